"""DEL in every order and condition in which runtimes send it."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.system.node import Node, noop_network

pytestmark = pytest.mark.system


def clean(node: Node) -> bool:
    return (node.leases(), node.records(), node.locks()) == ([], [], [])


def test_del_may_be_repeated(node: Node) -> None:
    """CNI-DEL-1."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    for _ in range(3):
        reply = node.delete(pod)
        assert (reply.exit_code, reply.stdout) == (0, b"")
    assert clean(node)


def test_a_repeated_del_runs_nothing(recording_node: Node) -> None:
    """A tombstone makes it a no-op: the pod's name and address may be another's by now."""
    node = recording_node
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0
    calls = len(node.noop_calls())
    assert node.delete(pod, CNI_NETNS="").exit_code == 0
    assert len(node.noop_calls()) == calls


def test_del_without_add_succeeds(node: Node) -> None:
    """CNI-DEL-2."""
    assert node.delete(node.pod("macvlan")).exit_code == 0
    assert clean(node)


@pytest.mark.parametrize("netns", ["", None], ids=["empty", "unset"])
def test_del_without_a_netns_releases_everything(node: Node, netns: str | None) -> None:
    """CNI-DEL-3: the record knows where the namespace is."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod, CNI_NETNS=netns).exit_code == 0
    assert clean(node)
    assert node.pod_links(pod) == set()


def test_del_after_the_netns_is_gone_releases_everything(node: Node) -> None:
    """CNI-DEL-3."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    assert node.delete(pod).exit_code == 0
    assert clean(node)


def test_a_later_namespace_at_the_same_path_is_not_touched(node: Node) -> None:
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    subprocess.run(["ip", "netns", "add", pod.netns.name], check=True)
    for name in ("eth0", "net1"):
        command = ["ip", "-n", pod.netns.name, "link", "add", name, "type", "bridge"]
        subprocess.run(command, check=True)
    assert node.delete(pod).exit_code == 0
    assert node.pod_links(pod) == {"eth0", "net1"}
    assert clean(node)


def test_the_shim_deletes_by_itself_when_the_daemon_is_gone(node: Node) -> None:
    """MULTUS-28, DESIGN section 3: with empty CNI_NETNS as well."""
    first, second = node.pod("macvlan"), node.pod("macvlan")
    for pod in (first, second):
        assert node.add(pod).exit_code == 0
    node.kill()
    assert node.delete(first).exit_code == 0
    assert node.delete(first).exit_code == 0
    assert node.delete(second, CNI_NETNS="").exit_code == 0
    assert node.pod_links(first) == node.pod_links(second) == set()
    assert clean(node)


def test_a_failure_without_the_daemon_is_told_and_can_be_repeated(recording_node: Node) -> None:
    """CNI-DEL-4, NPWG-54, MULTUS-27: all are tried, the record stays."""
    node = recording_node
    node.define("stuck", noop_network(node.root, "stuck", onDEL={"code": 88, "msg": "stuck"}))
    pod = node.pod("stuck")
    assert node.add(pod).exit_code == 0
    node.kill()
    reply = node.delete(pod)
    assert (reply.exit_code, reply.code) == (1, 11)
    assert "stuck" in reply.msg
    deleted = [c["env"]["CNI_IFNAME"] for c in node.noop_calls() if c["command"] == "DEL"]
    assert deleted == ["net1", "eth0"]
    assert node.records() == [f"{pod.container_id}@eth0"]
    assert node.locks() == []


def test_a_failing_del_is_told_and_can_be_repeated(recording_node: Node) -> None:
    """CNI-DEL-4, CNI-ERR-3, NPWG-54, MULTUS-27."""
    node = recording_node
    flag = node.root / "fail"
    script = node.plugin("flagged")
    fail = f"if command == 'DEL' and os.path.exists({str(flag)!r}):\n        sys.exit(3)"
    text = script.read_text().replace("    misbehave(", f"    {fail}\n    misbehave(", 1)
    script.write_text(text)
    flag.touch()
    network = noop_network(node.root, "flagged")
    network["plugins"][0]["type"] = "flagged"
    node.define("flagged", network)
    pod = node.pod("flagged")
    assert node.add(pod).exit_code == 0
    reply = node.delete(pod)
    assert (reply.exit_code, reply.code) == (1, 100)
    assert "flagged" in reply.msg
    flag.unlink()
    assert node.delete(pod).exit_code == 0
    assert (node.records(), node.locks()) == ([], [])


def test_a_del_error_never_reads_like_a_success_to_containerd(recording_node: Node) -> None:
    """For containerd, a DEL error that says "not found" is a success."""
    node = recording_node
    behaviour = {"code": 90, "msg": "lease not found"}
    node.define("odd", noop_network(node.root, "odd", onDEL=behaviour))
    pod = node.pod("odd")
    assert node.add(pod).exit_code == 0
    reply = node.delete(pod)
    assert reply.code == 90
    assert "not found" not in reply.stdout.decode()


def test_nothing_runs_late_when_a_stopped_daemon_goes_on(node: Node) -> None:
    """A daemon that hangs (SIGSTOP): the shim replays, and what the daemon does later has no
    effect."""
    node.configure_shim(silence_ms=1000)
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    node.signal_daemon(signal.SIGSTOP)
    reply = node.delete(pod)
    assert reply.exit_code == 0, reply.stdout
    assert clean(node)
    again = node.pod("macvlan")
    again.container_id, again.netns = pod.container_id, again.netns
    node.signal_daemon(signal.SIGCONT)
    assert node.add(again).exit_code == 0
    time.sleep(1)
    assert node.call("CHECK", again).exit_code == 0
    assert node.delete(again).exit_code == 0
    assert clean(node)


def test_an_add_that_a_stopped_daemon_began_is_undone(node: Node) -> None:
    """The daemon stops in mid-ADD: code 11 after the silence, DEL releases all, nothing comes
    later."""
    node.configure_shim(silence_ms=1000, add_wait_ms=1500)
    slow = node.plugin("slow")
    network = noop_network(node.root, "slow", onADD={"sleep": 1})
    network["plugins"][0]["type"] = slow.name
    node.define("slow", network)
    pod = node.pod("slow,macvlan")
    process = node.popen("ADD", pod)
    assert process.stdin is not None
    process.stdin.write(node.stdin(pod))
    process.stdin.close()
    while not node.noop_calls():
        time.sleep(0.02)
    node.signal_daemon(signal.SIGSTOP)
    assert process.wait(20) == 1
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert node.delete(pod).exit_code == 0
    node.signal_daemon(signal.SIGCONT)
    time.sleep(1)
    assert node.pod_links(pod) == set()
    assert clean(node)


def test_the_live_interfaces_survive_a_daemon_that_slept_through_del_and_add(node: Node) -> None:
    """The daemon away, DEL, ADD again with the same container id, then the daemon starts."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    node.kill()
    assert node.delete(pod).exit_code == 0
    process = node.popen("ADD", pod)
    assert process.stdin is not None
    process.stdin.write(node.stdin(pod))
    process.stdin.close()
    (node.root / "run" / "daemon.sock").unlink()
    node.start()
    assert process.wait(20) == 0
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    node.restart()
    other = node.pod("")  # its request makes the new daemon look for left-overs
    assert node.add(other).exit_code == 0
    time.sleep(0.5)
    assert node.call("CHECK", pod).exit_code == 0
    for each in (pod, other):
        assert node.delete(each).exit_code == 0
    assert clean(node)


def test_a_vanished_sandbox_is_released_without_its_del(node: Node) -> None:
    """The reaper works through a later request's shim."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    node.restart()
    other = node.pod("")
    assert node.add(other).exit_code == 0
    deadline = time.monotonic() + 10
    while node.records() != [f"{other.container_id}@eth0"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert node.records() == [f"{other.container_id}@eth0"]
    assert len(node.leases()) == 1
    assert node.delete(other).exit_code == 0


def test_arguments_that_a_plugin_refused_in_add_do_not_keep_its_del_from_succeeding(
    node: Node,
) -> None:
    """CNI-ENV-8, CNI-DEL-6: without IgnoreUnknown, which is the runtime's to pass, bridge knows no
    K8S_POD_NAME."""
    pod = node.pod("macvlan")
    arguments = f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod.name}"
    reply = node.call("ADD", pod, CNI_ARGS=arguments)
    assert (reply.exit_code, "unknown args" in reply.msg) == (1, True)
    assert clean(node)
    assert node.pod_links(pod) == set()
