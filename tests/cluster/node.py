"""A node of a real cluster: containerd, runc and a kubelet on a machine of its own."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from tests.cluster.machine import Machine, Service, until
from tests.controlplane.assets import program
from tests.runtimes import build
from tests.runtimes.cri import Service as RuntimeService
from tests.runtimes.image import IMAGE, oci_archive

RUNTIMES = {
    "1.6": Path("/usr/bin"),
    "1.7": build.trixie_folder(),
    "2.3": build.built_folder(),
}
SERVICES = "10.97.0.1"  # the API server's address in the network of services
SOCKET = "/run/containerd/containerd.sock"
MANIFESTS = "/etc/kubernetes/manifests"  # of static pods
EXAMPLES_IMAGE = "docker.io/library/busybox:1.36"  # busybox:1.36 in full, as runtimes keep it

# A root without CAP_SYS_RESOURCE can't lower what the out-of-memory killer thinks of a process. The
# folder of plugins is /usr/lib/cni for Debian's 1.7 unless it is told.
_CONTAINERD = """version = 2
disabled_plugins = ["io.containerd.tracing.processor.v1.otlp", "io.containerd.nri.v1.nri"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  cni = {{bin_dir = "/opt/cni/bin", conf_dir = "/etc/cni/net.d"}}
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      pod_annotations = ["*"]
"""
_KUBELET: dict[str, Any] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "authentication": {
        "anonymous": {"enabled": False},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": "/etc/kubernetes/ca.crt"},
    },
    "authorization": {"mode": "Webhook"},
    "tlsCertFile": "/etc/kubernetes/kubelet.crt",
    "tlsPrivateKeyFile": "/etc/kubernetes/kubelet.key",
    "containerRuntimeEndpoint": f"unix://{SOCKET}",
    "staticPodPath": MANIFESTS,
    "cgroupDriver": "cgroupfs",
    "failCgroupV1": False,
    "failSwapOn": False,
    "oomScoreAdj": 0,
    "localStorageCapacityIsolation": False,
    "evictionHard": {
        f"{what}.{left}": "0%"
        for what, left in (
            ("memory", "available"),
            ("nodefs", "available"),
            ("nodefs", "inodesFree"),
            ("imagefs", "available"),
            ("imagefs", "inodesFree"),
        )
    },
    "imageGCHighThresholdPercent": 100,
    "makeIPTablesUtilChains": False,
    "clusterDNS": ["10.97.0.10"],
    "clusterDomain": "cluster.local",
    "maxPods": 250,
    "fileCheckFrequency": "1s",
}


class Node:
    """A node whose kubelet has, or will have, credentials in /etc/kubernetes.

    `machine` is what it stands on: `lose_power`, `boot`, `run`, `path`, `serve`. `start` starts
    containerd and kubelet, or the one that is told.
    """

    def __init__(
        self, machine: Machine, *, address: str, number: int, containerd: str = "1.6"
    ) -> None:
        self.machine = machine
        self.name = machine.name
        self.address = address
        self.number = number
        self.pods = f"10.244.{number}.0/24"  # the default network's addresses here
        self._programs = RUNTIMES[containerd]
        self.containerd: Service | None = None
        self.kubelet: Service | None = None

    def boot(self, routes: Mapping[str, str]) -> None:
        """Turn the machine on, with its address and `routes` to other networks."""
        self.machine.boot()
        run = self.machine.run
        run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        for network, router in routes.items():
            run("ip", "route", "add", network, "via", router)

    def serve_api(self, address: str, port: int) -> None:
        """Have the API server's service lead there, as kube-proxy would: for the node itself too,
        which looks for a route before it translates."""
        self.machine.run("ip", "route", "add", SERVICES, "dev", "eth0")
        where = ["-d", SERVICES, "-p", "tcp", "--dport", "443"]
        to = ["-j", "DNAT", "--to-destination", f"{address}:{port}"]
        for chain in ("OUTPUT", "PREROUTING"):
            self.machine.run("iptables", "-w", "-t", "nat", "-A", chain, *where, *to)

    def configure(self, kubelet: Mapping[str, Any] | None = None) -> None:
        """Write both programs' configurations, `kubelet` over the defaults."""
        content = _KUBELET | {"cgroupRoot": self.machine.cgroup} | dict(kubelet or {})
        self.machine.write("/etc/kubernetes/kubelet.yaml", json.dumps(content))
        self.machine.write("/etc/containerd/config.toml", _CONTAINERD.format(image=IMAGE))

    def start(self, *, containerd: bool = True, kubelet: bool = True) -> None:
        if containerd:
            self._start_containerd()
        if kubelet:
            self._start_kubelet()

    def _start_containerd(self) -> None:
        path = f"PATH={self._programs}:{os.environ['PATH']}"  # where it looks for its shim
        self.containerd = self.machine.serve(
            "containerd", "env", path, self._programs / "containerd"
        )
        until(self._runtime_answers, f"containerd: see {self.machine.logs}", seconds=30)

    def _runtime_answers(self) -> bool:
        assert self.containerd is not None
        self.containerd.check()
        with self.runtime() as runtime:
            try:
                return bool(runtime.call("Status", timeout=5).status.conditions)
            except grpc.RpcError:
                return False

    def _start_kubelet(self) -> None:
        flags = {
            "config": "/etc/kubernetes/kubelet.yaml",
            "kubeconfig": "/etc/kubernetes/kubelet.conf",
            "hostname-override": self.name,
            "node-ip": self.address,
            "v": 2,
        }
        options = [f"--{name}={value}" for name, value in flags.items()]
        self.kubelet = self.machine.serve("kubelet", program("kubelet"), *options)

    def runtime(self, service: str = "RuntimeService") -> RuntimeService:
        """Return the runtime's side of CRI."""
        return RuntimeService(str(self.machine.path(SOCKET)), service)

    def import_image(self, archive: bytes | Path) -> None:
        """Import the images of an OCI archive."""
        with tempfile.NamedTemporaryFile() as temporary:
            file = archive if isinstance(archive, Path) else Path(temporary.name)
            if isinstance(archive, bytes):
                file.write_bytes(archive)
            self.ctr("images", "import", str(file))

    def ctr(self, *arguments: str) -> str:
        return self.machine.run("ctr", "-n", "k8s.io", *arguments)

    def import_busybox(self) -> None:
        """Import what sandboxes and examples run."""
        for name in (IMAGE, EXAMPLES_IMAGE):
            self.import_image(oci_archive(name))
            until(partial(self._has_image, name), f"no image {name}")

    def _has_image(self, name: str) -> bool:
        return name in self.images()

    def images(self) -> set[str]:
        """Return the names of the images that the runtime would start."""
        with self.runtime("ImageService") as service:
            return {tag for image in service.call("ListImages").images for tag in image.repo_tags}

    def sandboxes(self) -> list[Any]:
        with self.runtime() as runtime:
            return list(runtime.call("ListPodSandbox").items)

    def links(self) -> set[str]:
        """Return the machine's interfaces but its own and the bridges, which their plugin keeps."""
        lines = json.loads(self.machine.run("ip", "-json", "-detail", "link"))
        bridges = {e["ifname"] for e in lines if e.get("linkinfo", {}).get("info_kind") == "bridge"}
        return {each["ifname"] for each in lines} - bridges - {"lo", "eth0", "eth1"}

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder of the machine, [] where there is none."""
        path = self.machine.path(folder)
        return sorted(each.name for each in path.iterdir()) if path.is_dir() else []
