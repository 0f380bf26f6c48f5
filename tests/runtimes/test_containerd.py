"""metaplugin under a runtime that nobody here wrote: Debian's containerd and runc, through CRI."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import grpc
import pytest

from tests.runtimes.containerd import Containerd
from tests.system.node import Node, noop_network

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

ETH0, NET1 = "10.90.0.", "10.91.0."


@pytest.fixture
def containerd(node: Node) -> Iterator[Containerd]:
    """A running containerd whose pods metaplugin attaches, its image imported."""
    with running(node, "1.0.0") as started:
        yield started


@contextlib.contextmanager
def running(node: Node, version: str) -> Iterator[Containerd]:
    for folder in ("/run/containerd", "/var/lib/cni"):
        subprocess.run(["mkdir", "-p", folder], check=True)
    containerd = Containerd(node, version)
    try:
        containerd.start()
        containerd.import_image()
        yield containerd
    finally:
        containerd.close()


def address_of(containerd: Containerd, pod: object, interface: str) -> str:
    output = containerd.execute(pod, "ip", "-4", "-o", "addr", "show", interface)  # type: ignore[arg-type]
    found = re.search(r"inet ([0-9.]+)/", output)
    assert found, output
    return found[1]


def clean(node: Node) -> dict[str, list[str]]:
    left = {"leases": node.leases(), "records": node.records(), "locks": node.locks()}
    return {what: names for what, names in left.items() if names}


def test_containers_reach_each_other_over_every_network(containerd: Containerd) -> None:
    """Annotations come from the runtime; CNI-DEL-5 at the end."""
    node = containerd.node
    pods = [containerd.run(name, "macvlan") for name in ("a", "b")]
    for interface, prefix in (("eth0", ETH0), ("net1", NET1)):
        first, second = (address_of(containerd, pod, interface) for pod in pods)
        assert first.startswith(prefix)
        ping = containerd.execute(pods[0], "ping", "-c1", "-W2", "-I", interface, second)
        assert " 0% packet loss" in ping
    assert pods[0].address == address_of(containerd, pods[0], "eth0")
    for pod in pods:
        containerd.remove(pod.sandbox)
    assert clean(node) == {}
    assert node.entries("status") == []


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_each_version_that_the_runtime_speaks(node: Node, version: str) -> None:
    """CNI-VER-7; containerd 1.6 speaks no 1.1.0."""
    with running(node, version) as containerd:
        pod = containerd.run("a", "macvlan")
        assert pod.address.startswith(ETH0)
        containerd.remove(pod.sandbox)
        assert clean(node) == {}


def test_live_pods_survive_the_restart_of_their_runtime(containerd: Containerd) -> None:
    node = containerd.node
    pod = containerd.run("a", "macvlan")
    before = [address_of(containerd, pod, name) for name in ("eth0", "net1")]
    records = node.records()
    containerd.stop()
    containerd.start()
    assert before == [address_of(containerd, pod, name) for name in ("eth0", "net1")]
    assert records == node.records()
    containerd.remove(pod.sandbox)
    assert clean(node) == {}


def test_live_pods_survive_the_restart_of_the_daemon(containerd: Containerd) -> None:
    node = containerd.node
    pod = containerd.run("a", "macvlan")
    before = [address_of(containerd, pod, name) for name in ("eth0", "net1")]
    node.restart()
    assert before == [address_of(containerd, pod, name) for name in ("eth0", "net1")]
    node.kill()
    containerd.remove(pod.sandbox)
    assert clean(node) == {}


def test_the_delegates_error_reaches_whoever_asked_for_the_pod(containerd: Containerd) -> None:
    node = containerd.node
    node.define("bad", noop_network(node.root, "bad", onADD={"code": 77, "msg": "no room"}))
    shim = containerd.root / "bin" / "noop"
    shim.write_bytes((node.plugin("noop")).read_bytes())
    shim.chmod(0o755)
    with pytest.raises(grpc.RpcError) as raised:
        containerd.run("a", "macvlan,bad")
    message = str(raised.value)
    for text in ("pod default/a", "default/bad", "net2", "no room"):
        assert text in message
    assert clean(node) == {}


def test_a_missing_network_is_named(containerd: Containerd) -> None:
    with pytest.raises(grpc.RpcError, match=r"no net-attach-def 'nowhere' in namespace 'default'"):
        containerd.run("a", "nowhere")
    assert clean(containerd.node) == {}


def test_a_runtime_killed_in_mid_add_leaves_nothing_in_the_end(containerd: Containerd) -> None:
    """CNI-DEL-7: the plugin goes on as an orphan; the removal of the sandbox releases all."""
    node = containerd.node
    node.define("slow", noop_network(node.root, "slow", onADD={"sleep": 2}))
    plugin = containerd.root / "bin" / "noop"
    plugin.write_bytes((node.plugin("noop")).read_bytes())
    plugin.chmod(0o755)
    config = containerd.sandbox_config("a", "macvlan,slow")
    with pytest.raises(grpc.RpcError):
        containerd.runtime.call("RunPodSandbox", config=config, timeout=1)
    containerd.stop(signal.SIGKILL)
    time.sleep(0.5)
    containerd.start()
    for sandbox in containerd.sandboxes():
        containerd.remove(sandbox)
    deadline = time.monotonic() + 10
    while clean(node) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert clean(node) == {}
