"""Kubernetes objects that tests make: a pod on a node without a kubelet, a net-attach-def."""

from __future__ import annotations

import json
from typing import Any

JSONObject = dict[str, Any]

NETWORKS = "k8s.v1.cni.cncf.io/networks"


def namespace(name: str) -> JSONObject:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def pod(
    name: str,
    networks: str = "",
    *,
    node: str = "node-1",
    in_namespace: str = "default",
    annotations: dict[str, str] | None = None,
) -> JSONObject:
    """Return a pod that is bound to a node already, so no scheduler is needed."""
    selected = {NETWORKS: networks} if networks else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": in_namespace,
            "annotations": selected | (annotations or {}),
        },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": "tests.local/none"}],
        },
    }


def net_attach_def(
    name: str, config: str | JSONObject | None = None, *, in_namespace: str = "default"
) -> JSONObject:
    """Return a definition; config is the text, or an object to be one."""
    text = config if isinstance(config, str) or config is None else json.dumps(config)
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": in_namespace},
        "spec": {} if text is None else {"config": text},
    }


def pods(in_namespace: str = "default") -> str:
    return f"/api/v1/namespaces/{in_namespace}/pods"


def net_attach_defs(in_namespace: str = "default") -> str:
    return f"/apis/k8s.cni.cncf.io/v1/namespaces/{in_namespace}/network-attachment-definitions"
