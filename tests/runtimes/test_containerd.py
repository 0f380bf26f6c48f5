"""metaplugin under a runtime that nobody here wrote: Debian's containerd and runc, through CRI."""

from __future__ import annotations

import contextlib
import signal
import threading

import grpc
import pytest

from tests.runtimes.containerd import Containerd, RunningPod, running
from tests.runtimes.footprint import footprint, rules_of_pods, snapshot
from tests.runtimes.networks import ETH0, MACVLAN, SECOND
from tests.system.node import Node, noop_network

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

PORT = [{"protocol": 0, "container_port": 8080, "host_port": 18080, "host_ip": ""}]
NETWORKS = {"eth0": ETH0, "net1": MACVLAN, "net2": SECOND}


def two_pods(containerd: Containerd) -> tuple[RunningPod, RunningPod]:
    """Start two pods with every network, one with a host port."""
    first = containerd.run("a", "macvlan,second", port_mappings=PORT)
    return first, containerd.run("b", "macvlan,second")


def require_reach(containerd: Containerd, first: RunningPod, second: RunningPod) -> None:
    """Have the first pod's container ping the second over each network."""
    for interface, prefix in NETWORKS.items():
        address = containerd.address(second, interface)
        assert address.startswith(prefix)
        containerd.ping(first, interface, address)


def require_as_it_should_be(containerd: Containerd, count: int) -> None:
    done = containerd.check_all()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} attached, 0 not as they should be" in done.stdout


def remove_all(containerd: Containerd, *pods: RunningPod) -> None:
    """Remove the pods and prove that nothing of them is left."""
    for pod in pods:
        containerd.remove(pod.sandbox)
    assert footprint(containerd.node) == {}
    assert containerd.sandbox_namespaces() == []


def test_containers_reach_each_other_over_every_network(containerd: Containerd) -> None:
    """Annotations come from the runtime; CNI-DEL-5 at the end."""
    pods = two_pods(containerd)
    require_reach(containerd, *pods)
    assert pods[0].address == containerd.address(pods[0], "eth0")
    assert rules_of_pods(containerd.node) != []
    assert len(containerd.sandbox_namespaces()) == 2
    require_as_it_should_be(containerd, 2)
    remove_all(containerd, *pods)


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_each_version_that_the_runtime_speaks(busy_node: Node, version: str) -> None:
    """CNI-VER-7; containerd 1.6 speaks no 1.1.0."""
    with running(busy_node, version) as containerd:
        pods = two_pods(containerd)
        require_reach(containerd, *pods)
        require_as_it_should_be(containerd, 2)
        remove_all(containerd, *pods)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_live_pods_survive_the_restart_of_their_runtime(
    containerd: Containerd, number: signal.Signals
) -> None:
    """Nothing changes, and CHECK of everything is clean: before, meanwhile and after."""
    pods = two_pods(containerd)
    before = snapshot(containerd.node), [containerd.view(pod) for pod in pods]
    containerd.stop(number)
    require_as_it_should_be(containerd, 2)
    containerd.start()
    assert before == (snapshot(containerd.node), [containerd.view(pod) for pod in pods])
    require_reach(containerd, *pods)
    require_as_it_should_be(containerd, 2)
    remove_all(containerd, *pods)


def test_live_pods_survive_the_restart_of_the_daemon(containerd: Containerd) -> None:
    node = containerd.node
    pods = two_pods(containerd)
    before = snapshot(node), [containerd.view(pod) for pod in pods]
    node.restart()
    require_as_it_should_be(containerd, 2)
    assert before == (snapshot(node), [containerd.view(pod) for pod in pods])
    node.kill()
    for pod in pods:
        containerd.remove(pod.sandbox)
    assert set(footprint(node)) <= {"status"}  # which is the daemon's to take away


def test_the_delegates_error_reaches_whoever_asked_for_the_pod(containerd: Containerd) -> None:
    node = containerd.node
    containerd.install_noop()
    node.define("bad", noop_network(node.root, "bad", onADD={"code": 77, "msg": "no room"}))
    with pytest.raises(grpc.RpcError) as raised:
        containerd.run("a", "macvlan,second,bad", port_mappings=PORT)
    message = str(raised.value)
    for text in ("pod default/a", "default/bad", "net3", "no room"):
        assert text in message
    assert footprint(node) == {}


def test_a_missing_network_is_named(containerd: Containerd) -> None:
    with pytest.raises(grpc.RpcError, match=r"no net-attach-def 'nowhere' in namespace 'default'"):
        containerd.run("a", "nowhere")
    assert footprint(containerd.node) == {}


@pytest.mark.parametrize("daemon_too", [False, True])
def test_a_runtime_killed_in_mid_add_leaves_nothing_in_the_end(
    containerd: Containerd, daemon_too: bool
) -> None:
    """CNI-DEL-7: the plugin goes on as an orphan; the removal of the sandbox releases all."""
    node = containerd.node
    slow_network(containerd)
    asked = threading.Thread(target=ask_in_vain, args=(containerd, "macvlan,second,slow"))
    asked.start()
    node.wait_for_noop_calls(1)
    assert {"links", "rules", "leases", "records", "locks"} <= set(footprint(node))
    containerd.stop(signal.SIGKILL)
    if daemon_too:
        node.restart()
    asked.join(20)
    containerd.start()
    [sandbox] = containerd.sandboxes()
    containerd.remove(sandbox)
    assert footprint(node) == {}
    assert containerd.sandbox_namespaces() == []
    assert "0 attached, 0 not as they should be" in containerd.check_all().stdout


def slow_network(containerd: Containerd) -> None:
    containerd.install_noop()
    node = containerd.node
    node.define("slow", noop_network(node.root, "slow", onADD={"sleep": 2}))


def ask_in_vain(containerd: Containerd, networks: str) -> None:
    config = containerd.sandbox_config("a", networks) | {"port_mappings": PORT}
    with contextlib.suppress(grpc.RpcError):
        containerd.runtime.call("RunPodSandbox", config=config)
