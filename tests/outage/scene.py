"""A node whose cluster is a real API server, and the pods that live on it.

The default network is a net-attach-def too, so everything that an ADD has to know comes from the
server.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.controlplane import objects
from tests.controlplane.client import Client
from tests.controlplane.cluster import Cluster
from tests.system.node import Node, Pod, bridge_network, macvlan_network, new_root, noop_network

STATUS = "k8s.v1.cni.cncf.io/network-status"
NETWORK = "storage"  # the net-attach-def that pods of these tests select
AWAY, BACK = "the Kubernetes API is away", "the Kubernetes API answers again"
RETURN_S = 5  # how late after the server's return a status may be on its pod
NOTICED_S = 20  # how long it may take until an outage is known to be one, on a busy machine


def new_node(cluster: Cluster, url: str, name: str, subnet: int) -> Node:
    """Return a node of that name, its daemon not running, with the account of base/rbac.yaml.

    Networks are the node's own (`<name>-default`, `storage` in its namespace of that name), of real
    plugins, with addresses of 10.<subnet>.
    """
    root = new_root()
    default = bridge_network(root, name, f"10.{subnet}.0.0/16")
    return _node(
        cluster, url, name, root, default, macvlan_network(root, f"10.{subnet + 1}.0.0/16")
    )


def recording_node(cluster: Cluster, url: str, name: str) -> Node:
    """As `new_node`, of recording plugins."""
    root = new_root()
    node = _node(
        cluster, url, name, root, noop_network(root, "default"), noop_network(root, "other")
    )
    node.plugin("noop")
    return node


def _node(
    cluster: Cluster,
    url: str,
    name: str,
    root: Path,
    default: dict[str, Any],
    other: dict[str, Any],
) -> Node:
    cluster.admin.apply(objects.namespace(name))
    system = f"{name}-default"
    cluster.admin.apply(objects.net_attach_def(system, default, in_namespace="kube-system"))
    cluster.admin.apply(objects.net_attach_def(NETWORK, other, in_namespace=name))
    kubeconfig = cluster.kubeconfig(root / "kubeconfig", token=cluster.token(), url=url)
    keys = {
        "manifests": None,
        "kubernetes": {"kubeconfig": str(kubeconfig), "nodeName": name},
        "clusterNetwork": system,
        "globalNamespaces": ["kube-system"],
    }
    return Node(root, default, daemon_keys=keys)


@dataclass
class Scene:
    """A node and its pods: the server's side and the runtime's."""

    cluster: Cluster
    node: Node
    name: str
    _made: int = 0
    _spare: list[Pod] = field(default_factory=list)

    @property
    def admin(self) -> Client:
        return self.cluster.admin

    def start(self, *, spare: int) -> None:
        """Start the daemon with some pods there already; return when it has seen all of them."""
        self._spare = [self.create() for _ in range(spare)]
        self.node.start()
        for pod in (self._spare[0], self._spare[-1]):
            wait_until(lambda pod=pod: self.remembers(pod))  # type: ignore[misc]

    def create(self, networks: str = NETWORK, *, node: str = "") -> Pod:
        """Make a pod on the server, bound to this node or another, and its namespace here. The
        runtime won't say its annotations."""
        self._made += 1
        made = self.admin.create(
            objects.pod(
                f"pod-{self._made}", networks, node=node or self.name, in_namespace=self.name
            )
        )
        return self._sandbox(made["metadata"]["name"], made["metadata"]["uid"])

    def _sandbox(self, name: str, uid: str, annotation: str | None = None) -> Pod:
        return self.node.pod(annotation, name=name, uid=uid, namespace=self.name)

    def another_sandbox(self, pod: Pod) -> Pod:
        """Return the same pod with a new sandbox, as a runtime makes one after a failure."""
        return self._sandbox(pod.name, pod.uid, pod.annotation)

    def known(self) -> Pod:
        """Return a pod that the daemon has seen, and nobody used: the runtime says nothing."""
        return self._spare.pop()

    def annotated(self, annotation: str = NETWORK) -> Pod:
        """Return such a pod; the runtime hands its annotations over."""
        pod = self._spare.pop()
        pod.annotation = annotation
        return pod

    def unknown(self) -> Pod:
        """Return a pod of which the daemon can't have heard."""
        return self._sandbox("never-heard-of", "00000000-0000-0000-0000-00000000000a")

    def remembers(self, pod: Pod, version: str = "") -> bool:
        """Whether the pod and its network, of that version if one is told, are in state.db."""
        path = self.node.root / "state" / "state.db"
        query = "SELECT kind, name, content FROM objects WHERE namespace = ?"
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
        ):
            found = {
                (kind, name): content for kind, name, content in db.execute(query, [self.name])
            }
            network = found.get(("definition", NETWORK))
            if network and ("pod", pod.name) in found:
                return version in {"", json.loads(network)["metadata"]["resourceVersion"]}
        return False

    def status(self, pod: str) -> list[dict[str, Any]]:
        """Return the pod's network-status on the server, [] where there is none."""
        found = self.admin.get(f"{objects.pods(self.name)}/{pod}")["metadata"]
        parsed = json.loads(found.get("annotations", {}).get(STATUS, "[]"))
        assert isinstance(parsed, list)
        return parsed

    def events(self, pod: str) -> list[str]:
        """Return the messages of the pod's events."""
        query = f"fieldSelector=involvedObject.name%3D{pod}"
        found = self.admin.get(f"/api/v1/namespaces/{self.name}/events?{query}")["items"]
        return [event["message"] for event in found]

    def logged(self, words: str, since: int = 0) -> bool:
        """Whether the daemon's log says so, after its first `since` characters."""
        return words in self.node.log.read_text()[since:]

    def close(self) -> None:
        self.node.close()


def interfaces(status: list[dict[str, Any]]) -> list[str]:
    return [entry["interface"] for entry in status]


def wait_until(condition: Callable[[], object], limit_s: float = NOTICED_S) -> float:
    """Return how long it took until the condition held; fail after the limit."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit_s, "it hasn't come about"
        time.sleep(0.02)
    return time.monotonic() - started
