"""A containerd, Debian's or another, and runc with metaplugin as their only CNI configuration."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tests.runtimes.cgroups import remove_cgroups
from tests.runtimes.cri import Service
from tests.runtimes.image import IMAGE, oci_archive
from tests.system.node import Node

_CONFIG = """version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.nri.v1.nri"]
[grpc]
  address = "{root}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  cni = {{bin_dir = "{root}/bin", conf_dir = "{root}/net.d"}}
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      pod_annotations = ["*"]
"""
_NAMESPACES = {"namespace_options": {"network": 0, "pid": 1, "ipc": 0}}


@dataclass(frozen=True)
class RunningPod:
    sandbox: str
    container: str
    address: str


class Containerd:
    """A containerd with folders of its own below the node's root."""

    def __init__(self, node: Node, version: str, folder: Path) -> None:
        self.node = node
        self._folder = folder
        self.root = node.root / "c"
        for name in ("root", "state", "net.d", "bin"):
            (self.root / name).mkdir(parents=True)
        self._install_plugins()
        self.configure(version)
        (self.root / "config.toml").write_text(_CONFIG.format(root=self.root, image=IMAGE))
        self.process: subprocess.Popen[bytes] | None = None
        self.runtime = Service(f"{self.root}/c.sock", "RuntimeService")
        self._log = (self.root / "log").open("wb")

    def _install_plugins(self) -> None:
        for plugin in Path("/usr/lib/cni").iterdir():
            (self.root / "bin" / plugin.name).symlink_to(plugin)
        shutil.copy(self.node.shim, self.root / "bin" / "metaplugin")
        configuration = self.node.shim.with_name("metaplugin.conf")
        shutil.copy2(configuration, self.root / "bin" / "metaplugin.conf")

    def configure(self, version: str) -> None:
        """Write the only CNI configuration, by rename as an installer would."""
        capabilities = {"portMappings": True, "io.kubernetes.cri.pod-annotations": True}
        plugin = {"type": "metaplugin", "capabilities": capabilities}
        text = json.dumps({"cniVersion": version, "name": "metaplugin", "plugins": [plugin]})
        temporary = self.root / "net.d" / "new"
        temporary.write_text(text)
        temporary.rename(self.root / "net.d" / "00-metaplugin.conflist")

    def start(self) -> None:
        program = str(self._folder / "containerd")
        command = [*self.node.prefix, program, "-c", str(self.root / "config.toml")]
        path = f"{self._folder}:{os.environ['PATH']}"  # where it looks for its shim
        self.process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, env=os.environ | {"PATH": path}
        )
        deadline = time.monotonic() + 20
        while not self._is_ready():
            assert time.monotonic() < deadline, (self.root / "log").read_text()[-5000:]
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            return not self.unready()
        except grpc.RpcError:
            return False

    def unready(self) -> str:
        """Return why the runtime takes no pods, "" when it does; raise grpc.RpcError."""
        conditions = self.runtime.call("Status", timeout=5).status.conditions
        wanted = {"RuntimeReady", "NetworkReady"}  # others are deprecation warnings
        unmet = (each for each in conditions if each.type in wanted and not each.status)
        return "; ".join(f"{each.reason}: {each.message}" for each in unmet)

    def networks(self) -> list[str]:
        """Return the names of the networks that the runtime goes by now."""
        reply = self.runtime.call("Status", verbose=True, timeout=30)
        loaded = json.loads(reply.info["cniconfig"])["Networks"]
        return [each["Config"]["Name"] for each in loaded if each["IFName"] != "lo"]

    def import_image(self) -> None:
        """Import an image of busybox alone, made here."""
        archive = self.root / "image.tar"
        archive.write_bytes(oci_archive())
        command = ["ctr", "-a", f"{self.root}/c.sock", "-n", "k8s.io", "images", "import"]
        subprocess.run([*command, str(archive)], check=True, capture_output=True)
        images = Service(f"{self.root}/c.sock", "ImageService")
        while not any(IMAGE in image.repo_tags for image in images.call("ListImages").images):
            time.sleep(0.02)
        images.close()

    def run(self, name: str, networks: str = "", **fields: Any) -> RunningPod:
        """Start a pod with one container; raise grpc.RpcError."""
        config = self.sandbox_config(name, networks) | fields
        sandbox = self.runtime.call("RunPodSandbox", config=config).pod_sandbox_id
        container = self.runtime.call(
            "CreateContainer",
            pod_sandbox_id=sandbox,
            sandbox_config=config,
            config={
                "metadata": {"name": "c"},
                "image": {"image": IMAGE},
                "command": ["/bin/busybox", "sleep", "9999"],
                "log_path": "c.log",
                "linux": {"security_context": _NAMESPACES},
            },
        ).container_id
        self.runtime.call("StartContainer", container_id=container)
        status = self.runtime.call("PodSandboxStatus", pod_sandbox_id=sandbox).status
        return RunningPod(sandbox, container, status.network.ip)

    def sandbox_config(self, name: str, networks: str) -> dict[str, Any]:
        annotations = {"k8s.v1.cni.cncf.io/networks": networks} if networks else {}
        return {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
            "hostname": name,
            "log_directory": str(self.root / "logs" / name),
            "annotations": annotations,
            "linux": {
                "cgroup_parent": f"/{self.node.root.name}",
                "security_context": _NAMESPACES,
            },
        }

    def execute(self, pod: RunningPod, *command: str) -> str:
        """Run a command in the pod's container; return its output."""
        reply = self.runtime.call(
            "ExecSync", container_id=pod.container, cmd=["/bin/busybox", *command], timeout=10
        )
        assert reply.exit_code == 0, reply
        return str(reply.stdout.decode())

    def sandboxes(self) -> list[str]:
        return [item.id for item in self.runtime.call("ListPodSandbox").items]

    def remove(self, sandbox: str) -> None:
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            self.runtime.call(method, pod_sandbox_id=sandbox)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def close(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for sandbox in self.sandboxes():
                self.remove(sandbox)
        self.runtime.close()
        self.stop(signal.SIGKILL)
        self._log.close()
        self._kill_shims()
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        for mount in reversed([line.split()[1] for line in mounts if f" {self.root}/" in line]):
            subprocess.run(["umount", "-l", mount], check=False)
        remove_cgroups(self.node.root.name)

    def _kill_shims(self) -> None:
        """End what runs the containers: it outlives containerd, on purpose."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "containerd-shim" in words[0] and f"{self.root}/c.sock" in words:
                    os.kill(int(folder.name), signal.SIGKILL)

    def check_all(self) -> subprocess.CompletedProcess[str]:
        """Run `metaplugin check --all` with the shim and the plugins that the runtime has."""
        folder = self.root / "bin"
        return self.node.check_all(shim=folder / "metaplugin", cni_path=folder)

    def install_noop(self) -> None:
        """Put the recording plugin among the runtime's plugins."""
        shutil.copy(self.node.plugin("noop"), self.root / "bin" / "noop")

    def view(self, pod: RunningPod) -> tuple[str, ...]:
        """Return the pod's links, addresses and routes as its container sees them.

        Without IPv6: the kernel makes link-local addresses by itself, tentative ones at first.
        """
        looks = (("link",), ("-4", "addr"), ("-4", "route"))
        return tuple(self.execute(pod, "ip", *look) for look in looks)

    def address(self, pod: RunningPod, interface: str) -> str:
        output = self.execute(pod, "ip", "-4", "-o", "addr", "show", interface)
        found = re.search(r"inet ([0-9.]+)/", output)
        assert found, output
        return found[1]

    def ping(self, pod: RunningPod, interface: str, address: str) -> None:
        """Have the pod's container ping an address through one of its interfaces."""
        output = self.execute(pod, "ping", "-c1", "-W2", "-I", interface, address)
        assert " 0% packet loss" in output, output

    def sandbox_namespaces(self) -> list[str]:
        """Return the network namespaces that the runtime keeps for sandboxes."""
        return [str(path) for path in (self.root / "state").glob("io.containerd.*/netns/*")]


@contextlib.contextmanager
def running(
    node: Node,
    version: str = "1.0.0",
    folder: Path = Path("/usr/bin"),
    kind: type[Containerd] = Containerd,
) -> Iterator[Containerd]:
    """Run a folder's containerd on the node, its image imported; end all of it."""
    for needed in ("/run/containerd", "/var/lib/cni"):
        Path(needed).mkdir(parents=True, exist_ok=True)
    containerd = kind(node, version, folder)
    try:
        containerd.start()
        containerd.import_image()
        yield containerd
    finally:
        containerd.close()
