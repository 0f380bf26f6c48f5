"""The control plane as static pods of a node, in a network that metaplugin attaches them to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.machine import ip, until
from tests.cluster.node import MANIFESTS, Node
from tests.cluster.objects import pod
from tests.cluster.site import Site
from tests.controlplane import objects
from tests.controlplane.client import JSONObject
from tests.runtimes.image import IMAGE

API, ETCD = "10.77.0.10", "10.77.0.11"
CONTROL = objects.net_attach_def(
    "control",
    {
        "cniVersion": "1.0.0",
        "type": "bridge",
        "bridge": "br-control",
        "isGateway": True,
        "capabilities": {"ips": True},
        "ipam": {"type": "static"},
    },
    in_namespace="kube-system",
)


def static_pod(name: str, networks: str | list[JSONObject], **spec: object) -> JSONObject:
    manifest = pod(name, networks, **spec)
    manifest["metadata"]["namespace"] = "kube-system"
    return manifest


def place(node: Node, manifest: JSONObject) -> None:
    """Give the node's kubelet a static pod."""
    name = manifest["metadata"]["name"]
    node.machine.write(f"{MANIFESTS}/{name}.yaml", json.dumps(manifest))


def move_control_plane(site: Site, node: Node) -> None:
    """End etcd and the API server where they run, and have the node's kubelet run them: with the
    same data, certificates and address, which has to be `API`. The network `control` has to be
    there, and no other node. Return when the API server answers."""
    control = site.control
    assert control.address == API
    assert node.kubelet is not None
    node.kubelet.kill()  # it would go on asking for a minute where nobody is
    control.api.kill()
    control.etcd.stop()
    node.machine.run("ip", "route", "del", API)  # what can't be reached fails at once
    site.routes.clear()
    ip("addr", "del", f"{API}/32", "dev", site.management)
    ip("route", "add", API, "via", node.address)
    clients = f"http://{ETCD}:{control.etcd_port}"
    etcd = _changed(
        control.etcd.command,
        {"listen-client-urls": clients.replace(ETCD, "0.0.0.0"), "advertise-client-urls": clients},
    )
    api = _changed(control.api.command, {"bind-address": "0.0.0.0", "etcd-servers": clients})
    place(node, _pod_of(site, "etcd", etcd, ETCD))
    place(node, _pod_of(site, "kube-apiserver", api, API))
    node.start(containerd=False)
    wait_for_api(site)


def wait_for_api(site: Site) -> None:
    until(lambda: _answers(site), "the API server isn't back", seconds=120)


def _answers(site: Site) -> bool:
    try:
        return site.admin.raw("GET", "/readyz") == (200, "ok")
    except OSError:
        return False


def _changed(command: Sequence[str | Path], flags: dict[str, str]) -> list[str]:
    """Return the command with other values for some of its flags."""
    words = [str(word) for word in command]
    return [
        f"--{name}={flags[name]}" if (name := word[2:].partition("=")[0]) in flags else word
        for word in words
    ]


def _pod_of(site: Site, name: str, command: list[str], address: str) -> JSONObject:
    """Return a pod that runs a program of the machine's with its libraries."""
    folders = [str(Path(command[0]).parent), str(site.root), "/lib", "/lib64"]
    container = {
        "name": name,
        "image": IMAGE,
        "command": command,
        "volumeMounts": [{"name": f"v{n}", "mountPath": path} for n, path in enumerate(folders)],
    }
    volumes = [{"name": f"v{n}", "hostPath": {"path": path}} for n, path in enumerate(folders)]
    networks: list[JSONObject] = [{"name": "control", "ips": [f"{address}/24"]}]
    return static_pod(name, networks, containers=[container], volumes=volumes)
