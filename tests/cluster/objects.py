"""Kubernetes objects that the tests of a real cluster make: what they run is there on each node."""

from __future__ import annotations

import json
from typing import Any

from tests.controlplane.client import JSONObject
from tests.controlplane.objects import NETWORKS
from tests.runtimes.image import IMAGE

# It ends when it is told: a process 1 without a trap would be waited for.
_SLEEP = ["/bin/sh", "-c", "trap exit TERM; sleep infinity & wait"]


def template(networks: str | list[JSONObject] = "", *, node: str = "", **spec: Any) -> JSONObject:
    """Return metadata and spec of a pod that sleeps; `spec` has more keys, or others."""
    text = networks if isinstance(networks, str) else json.dumps(networks)
    selector = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    return {
        "metadata": {"annotations": {NETWORKS: text} if text else {}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [container()],
            **selector,
            **spec,
        },
    }


def container(name: str = "c", **keys: Any) -> JSONObject:
    return {"name": name, "image": IMAGE, "command": _SLEEP, **keys}


def pod(name: str, networks: str | list[JSONObject] = "", **options: Any) -> JSONObject:
    content = template(networks, **options)
    content["metadata"] |= {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", **content}


def deployment(name: str, replicas: int, networks: str = "", **options: Any) -> JSONObject:
    content = template(networks, **options)
    content["metadata"]["labels"] = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": content,
        },
    }


def bridge(name: str, subnet: str) -> JSONObject:
    """Return the configuration of a bridge network with addresses of the node's own."""
    return {
        "cniVersion": "1.0.0",
        "type": "bridge",
        "bridge": f"cbr-{name}",
        "isGateway": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]]},
    }


def macvlan() -> JSONObject:
    """Return the configuration of a macvlan network over eth1 whose addresses pods choose."""
    return {
        "cniVersion": "1.0.0",
        "type": "macvlan",
        "master": "eth1",
        "mode": "bridge",
        "capabilities": {"ips": True, "mac": True},
        "ipam": {"type": "static"},
    }
