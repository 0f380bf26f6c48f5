"""A whole cluster: the control plane in the tests' namespaces, each node on a machine of its own.

See README.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.machine import Machine, ip, until
from tests.cluster.node import Node
from tests.controlplane.assets import program
from tests.controlplane.client import ApiError, Client, JSONObject, path_of
from tests.controlplane.cluster import Cluster, Program, free_port
from tests.controlplane.objects import pods

STATUS = "k8s.v1.cni.cncf.io/network-status"

_READY_S = 90  # a node takes 5 s where the processor is free


class Site:
    """A cluster with nodes node1, node2, …; all is below `root`, which should be on a disk.

    `kubelet` has keys over its configuration's, `address` is the API server's if it is to be
    another than the tests' own."""

    def __init__(
        self,
        root: Path,
        *,
        nodes: int = 1,
        containerd: str = "1.6",
        kubelet: Mapping[str, Any] | None = None,
        address: str = "",
    ) -> None:
        self.root = root
        number = _free_number()
        self.management, self.data = f"mgmt{number}", f"data{number}"  # eth0's and eth1's bridges
        self.network = f"192.168.{177 + number}."  # the management network
        self.gateway = f"{self.network}1"  # the tests' own address there
        self._kubelet = kubelet
        root.mkdir(parents=True, exist_ok=True)
        self.control = Cluster(
            root / "control", address=address or self.gateway, flags=self._flags(root)
        )
        self.routes = {address: self.gateway} if address else {}  # of each node
        self.kubeconfig = self.control.kubeconfig(root / "kubeconfig")
        self.scheduler = self._controller("kube-scheduler", {})
        self.controllers = self._controller("kube-controller-manager", self._controller_flags())
        self.nodes = [self._node(number, containerd) for number in range(1, nodes + 1)]

    @staticmethod
    def _flags(root: Path) -> dict[str, str | None]:
        pki = root / "control" / "pki"
        return {
            "disable-admission-plugins": None,
            "enable-admission-plugins": "NodeRestriction",
            "kubelet-client-certificate": f"{pki}/kubelet-client.crt",
            "kubelet-client-key": f"{pki}/kubelet-client.key",
            "kubelet-certificate-authority": f"{pki}/ca.crt",
            "kubelet-preferred-address-types": "InternalIP",
        }

    def _controller_flags(self) -> dict[str, object]:
        pki = self.root / "control" / "pki"
        return {
            "service-account-private-key-file": pki / "tokens.key",
            "root-ca-file": pki / "ca.crt",
            "use-service-account-credentials": "true",
            "node-monitor-grace-period": "20s",
        }

    def _controller(self, name: str, flags: dict[str, object]) -> Program:
        flags = {
            "kubeconfig": self.kubeconfig,
            "leader-elect": "false",
            "bind-address": "127.0.0.1",
            "secure-port": free_port(),
            "cert-dir": self.root / "control" / name,
        } | flags
        options = [f"--{key}={value}" for key, value in flags.items()]
        return Program([program(name), *options], self.root / f"{name}.log")

    def _node(self, number: int, containerd: str) -> Node:
        name = f"node{number}"
        machine = Machine(name, self.root / name, [self.management, self.data])
        address = f"{self.network}{10 + number}"
        return Node(machine, address=address, number=number, containerd=containerd)

    @property
    def admin(self) -> Client:
        return self.control.admin

    # --- start and end

    def start(self) -> None:
        """Start everything; return when the nodes have registered. They are Ready only with a CNI
        configuration: see `wait_for_nodes`."""
        self._connect()
        self.control.authority.issue("kubelet-client", "system:masters")
        self.control.start()
        self.scheduler.start()
        self.controllers.start()
        for node in self.nodes:
            self.boot(node)
            self.provision(node)
            node.start(kubelet=False)
            node.import_busybox()
            node.start(containerd=False)
        for node in self.nodes:
            until(partial(self._is_known, node), f"{node.name} never registered")
        self._wait_for_accounts()

    def _wait_for_accounts(self) -> None:
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        until(lambda: self.admin.raw("GET", account)[0] == 200, "no service account `default`")

    def _connect(self) -> None:
        for wire in (self.management, self.data):
            ip("link", "add", wire, "type", "bridge")
            ip("link", "set", wire, "up")
        ip("addr", "add", f"{self.gateway}/24", "dev", self.management)
        if self.control.address != self.gateway:
            ip("addr", "add", self.control.address, "dev", self.management)

    def boot(self, node: Node) -> None:
        """Turn a node's machine on: nothing runs there yet."""
        others = [each for each in self.nodes if each is not node]
        node.boot({other.pods: other.address for other in others} | self.routes)
        node.serve_api(self.control.address, self.control.port)

    def provision(self, node: Node) -> None:
        """Put on a node's disk what its kubelet has to have."""
        authority, folder = self.control.authority, "/etc/kubernetes"
        certificate, key = authority.issue(f"system:node:{node.name}", "system:nodes")
        serving = authority.issue(node.name, addresses=[node.address])
        files = {"ca.crt": authority.certificate, "client.crt": certificate, "client.key": key}
        files |= dict(zip(("kubelet.crt", "kubelet.key"), serving, strict=True))
        for name, file in files.items():
            node.machine.write(f"{folder}/{name}", file.read_text(), 0o600)
        user = {"client-certificate": f"{folder}/client.crt", "client-key": f"{folder}/client.key"}
        node.machine.write(f"{folder}/kubelet.conf", self.credentials(user, f"{folder}/ca.crt"))
        node.configure(self._kubelet)

    def credentials(self, user: JSONObject, authority: str) -> str:
        """Return a kubeconfig's text."""
        cluster = {"server": self.control.url, "certificate-authority": authority}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": user}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
        return json.dumps(content)

    def close(self) -> None:
        """End everything, at any point of its start, one failing or not; the logs stay, the nodes'
        disks don't."""
        with contextlib.ExitStack() as steps:  # the last one first
            for folder in (node.machine.disk for node in self.nodes):
                steps.callback(shutil.rmtree, folder, ignore_errors=True)
            steps.callback(shutil.rmtree, self.control.root / "etcd", ignore_errors=True)
            for wire in (self.management, self.data):
                delete = ["ip", "link", "del", wire]
                steps.callback(subprocess.run, delete, check=False, capture_output=True)
            steps.callback(self.control.close)
            for part in (self.scheduler, self.controllers):
                steps.callback(part.kill)
            for node in self.nodes:
                steps.callback(node.machine.lose_power)

    # --- nodes

    def _is_known(self, node: Node) -> bool:
        return self.admin.raw("GET", f"/api/v1/nodes/{node.name}")[0] == 200

    def is_ready(self, node: Node) -> bool:
        return _is_ready(self.admin.get(f"/api/v1/nodes/{node.name}"))

    def wait_for_nodes(self) -> None:
        """Return when every node is Ready."""
        for node in self.nodes:
            until(partial(self.is_ready, node), f"{node.name} isn't Ready", seconds=_READY_S)

    # --- pods

    def apply(self, *documents: JSONObject) -> None:
        """Apply objects, into namespace `default` where they name none and have to."""
        for document in documents:
            self.admin.apply(document)

    def apply_file(self, path: Path) -> list[JSONObject]:
        """Apply a file as `kubectl apply -f` does; return its objects."""
        self.kubectl("apply", "-f", str(path))
        return [each for each in yaml.safe_load_all(path.read_text()) if each]

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl as the administrator; return its output; raise RuntimeError with it."""
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.root)}
        done = subprocess.run(
            [program("kubectl"), *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            input=text,
        )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def pod(self, name: str, namespace: str = "default") -> JSONObject:
        return self.admin.get(f"{pods(namespace)}/{name}")

    def has_pod(self, name: str, namespace: str = "default") -> bool:
        return self.admin.raw("GET", f"{pods(namespace)}/{name}")[0] == 200

    def wait_for_pods(self, *names: str, namespace: str = "default", seconds: float = 60) -> None:
        """Return when the pods are Ready; raise TimeoutError with the events of one that isn't."""
        for name in names:
            events = partial(self._story, name, namespace)
            until(partial(self._pod_is_ready, name, namespace), events, seconds=seconds)

    def _pod_is_ready(self, name: str, namespace: str) -> bool:
        return self.has_pod(name, namespace) and _is_ready(self.pod(name, namespace))

    def _story(self, name: str, namespace: str) -> str:
        if not self.has_pod(name, namespace):
            return f"there is no pod {namespace}/{name}"
        return f"{namespace}/{name}: " + "\n".join(self.events(name, namespace))

    def events(self, name: str, namespace: str = "default") -> list[str]:
        """Return the events of a pod that is there: reason and message."""
        uid = self.pod(name, namespace)["metadata"]["uid"]
        query = f"fieldSelector=involvedObject.uid={uid}"
        items = self.admin.get(f"/api/v1/namespaces/{namespace}/events?{query}")["items"]
        return [f"{each['reason']}: {each['message']}" for each in items]

    def network_status(self, name: str, namespace: str = "default") -> list[JSONObject]:
        """Return a pod's network-status as soon as it has one."""
        annotations: dict[str, str] = {}

        def is_there() -> bool:
            annotations.update(self.pod(name, namespace)["metadata"].get("annotations", {}))
            return STATUS in annotations

        until(is_there, f"no network-status: {self.events(name, namespace)}", seconds=20)
        parsed = json.loads(annotations[STATUS])
        assert isinstance(parsed, list)
        return parsed

    def execute(
        self, name: str, *command: str, namespace: str = "default", container: str = ""
    ) -> str:
        """Run a command in a pod, its first container unless told, as `kubectl exec` does."""
        where = ["-c", container] if container else []
        return self.kubectl("-n", namespace, "exec", name, *where, "--", *command)

    def delete_pods(self, *names: str, namespace: str = "default") -> None:
        """Delete pods, at once but in order; return when they are gone."""
        for name in names:
            with contextlib.suppress(ApiError):
                body = {"gracePeriodSeconds": 1}
                self.admin.request("DELETE", f"{pods(namespace)}/{name}", body)
        for name in names:
            until(partial(self._is_gone, name, namespace), partial(self._story, name, namespace))

    def _is_gone(self, name: str, namespace: str) -> bool:
        return not self.has_pod(name, namespace)

    def clear(self) -> None:
        """Delete every pod of namespace `default`, and what would make it again."""
        for kind in ("deployments", "daemonsets", "statefulsets"):
            self.admin.delete(f"/apis/apps/v1/namespaces/default/{kind}")
        until(self._has_no_replica_sets, "replica sets stay")
        self.delete_pods(*(each["metadata"]["name"] for each in self.admin.get(pods())["items"]))

    def _has_no_replica_sets(self) -> bool:
        return not self.admin.get("/apis/apps/v1/namespaces/default/replicasets")["items"]

    def remove(self, documents: list[JSONObject]) -> None:
        """Delete applied objects, pods first and in order."""
        named = [d["metadata"]["name"] for d in documents if d["kind"] == "Pod"]
        self.delete_pods(*named)
        for document in documents:
            if document["kind"] != "Pod":
                placed = {"namespace": "default"} | document["metadata"]
                self.admin.delete(path_of(document | {"metadata": placed}))


def _free_number() -> int:
    """Return a number for a cluster beside those that there are."""
    taken = {name for _, name in socket.if_nameindex()}
    return next(number for number in range(50) if f"mgmt{number}" not in taken)


def _is_ready(thing: JSONObject) -> bool:
    """Say whether a pod or a node is Ready."""
    conditions = thing.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@contextlib.contextmanager
def running_site(root: Path, **options: Any) -> Iterator[Site]:
    """A started cluster, its nodes without CNI configuration; gone at the end, the logs kept."""
    site = Site(root, **options)
    try:
        site.start()
        yield site
    finally:
        site.close()
