"""The image under a real runtime, as the DaemonSet has it run: its root read-only, one capability,
the runtime's seccomp profile, and of the host's folders the ones that it is given."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.image import NAME
from tests.manifests.documents import ROOT, documents
from tests.runtimes.containerd import Containerd, running
from tests.runtimes.footprint import footprint
from tests.runtimes.networks import ETH0, MACVLAN
from tests.system.node import Node

ARCHIVE = ROOT / "dist" / "metaplugin-image.tar"
[DAEMON_SET] = documents(ROOT / "deploy" / "base" / "daemonset.yaml")
POD = DAEMON_SET["spec"]["template"]["spec"]
[DAEMON] = POD["containers"]
OF_THE_NODE = {"network": 2, "pid": 1, "ipc": 0}
NET_ADMIN = 1 << 12

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


def security_context() -> dict[str, Any]:
    """Return the DaemonSet's as a kubelet passes it on."""
    said = DAEMON["securityContext"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    return {
        "capabilities": {
            "add_capabilities": said["capabilities"]["add"],
            "drop_capabilities": said["capabilities"]["drop"],
        },
        "namespace_options": OF_THE_NODE,
        "privileged": said["privileged"],
        "readonly_rootfs": said["readOnlyRootFilesystem"],
        "no_new_privs": not said["allowPrivilegeEscalation"],
        "seccomp": {"profile_type": 0},  # the runtime's default
    }


def start_daemon(containerd: Containerd, temporary: Path) -> str:
    """Start the image's daemon with the node's folders; return its sandbox."""
    node = containerd.node
    node.write_config()
    writable = ("run", "state", "status")
    read = ("manifests", "net.d", "default.conflist", "daemon.yaml")
    (node.root / "state").mkdir(exist_ok=True)
    mounts = [
        {"container_path": str(node.root / name), "host_path": str(node.root / name)}
        | {"readonly": name in read}
        for name in (*writable, *read)
    ]
    config = containerd.sandbox_config("daemon", "")
    config["hostname"] = ""  # the node's
    config["linux"]["security_context"] = {"namespace_options": OF_THE_NODE}
    sandbox = str(containerd.runtime.call("RunPodSandbox", config=config).pod_sandbox_id)
    container = containerd.runtime.call(
        "CreateContainer",
        pod_sandbox_id=sandbox,
        sandbox_config=config,
        config={
            "metadata": {"name": "daemon"},
            "image": {"image": NAME},
            "args": ["daemon", "--config", str(node.root / "daemon.yaml")],
            "mounts": [*mounts, {"container_path": "/tmp", "host_path": str(temporary)}],
            "log_path": "daemon.log",
            "linux": {"security_context": security_context()},
        },
    ).container_id
    containerd.runtime.call("StartContainer", container_id=container)
    deadline = time.monotonic() + 20
    while not (node.root / "run" / "daemon.sock").exists():
        assert time.monotonic() < deadline, log(containerd)
        time.sleep(0.02)
    return sandbox


def log(containerd: Containerd) -> str:
    return (containerd.root / "logs" / "daemon" / "daemon.log").read_text()


def process(containerd: Containerd) -> Path:
    """Return the daemon's folder in /proc."""
    configuration = str(containerd.node.root / "daemon.yaml").encode()
    [found] = [
        folder
        for folder in Path("/proc").glob("[0-9]*")
        if configuration in (folder / "cmdline").read_bytes().split(b"\0")
    ]
    return found


def status_of(folder: Path) -> dict[str, str]:
    lines = (folder / "status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.fixture
def containerd(idle_node: Node, tmp_path: Path) -> Iterator[Containerd]:
    """A runtime whose pods the image's daemon attaches."""
    with running(idle_node) as started:
        command = ["ctr", "-a", f"{started.root}/c.sock", "-n", "k8s.io", "images", "import"]
        subprocess.run([*command, str(ARCHIVE)], check=True, capture_output=True)
        daemon = start_daemon(started, tmp_path)
        yield started
        started.remove(daemon)


def test_its_daemon_serves_the_hosts_shim(containerd: Containerd) -> None:
    pods = [containerd.run(name, "macvlan") for name in ("a", "b")]
    for interface, prefix in (("eth0", ETH0), ("net1", MACVLAN)):
        address = containerd.address(pods[1], interface)
        assert address.startswith(prefix)
        containerd.ping(pods[0], interface, address)
    done = containerd.check_all()
    assert "2 attached, 0 not as they should be" in done.stdout, done.stdout + done.stderr
    for pod in pods:
        containerd.remove(pod.sandbox)
    assert footprint(containerd.node) == {}
    assert "level=error" not in log(containerd)


def test_its_process_has_what_the_daemon_set_gives_and_no_more(containerd: Containerd) -> None:
    status = status_of(process(containerd))
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == NET_ADMIN
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    mounts = (process(containerd) / "mounts").read_text().splitlines()
    root = next(line.split() for line in mounts if line.split()[1] == "/")
    assert root[3].split(",")[0] == "ro"


def test_its_memory_is_within_what_is_requested(containerd: Containerd) -> None:
    requested = int(DAEMON["resources"]["requests"]["memory"].removesuffix("Mi")) << 10
    resident = int(status_of(process(containerd))["VmRSS"].removesuffix("kB"))
    assert resident < requested
