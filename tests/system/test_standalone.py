"""No daemon: the shim's fallback answers, with the same flows and the same records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.node import Node, Pod, noop_network

pytestmark = pytest.mark.system


@pytest.fixture
def thin(idle_node: Node) -> Node:
    """A node without a daemon, its shim with a fallback."""
    idle_node.write_config()
    with_fallback(idle_node, wait_ms=0)
    return idle_node


def with_fallback(node: Node, *, wait_ms: int) -> None:
    """Have the shim wait so long for a daemon, and start standalone then."""
    node.configure_shim(
        fallback=Path(sys.executable).with_name("metaplugin"),
        fallback_config=node.root / "daemon.yaml",
        add_wait_ms=wait_ms,
        status_wait_ms=wait_ms,
    )


def test_a_pod_lives_and_dies_without_any_daemon(thin: Node) -> None:
    pod = thin.pod('[{"name": "macvlan", "default-route": ["10.91.0.254"]}]')
    reply = thin.add(pod)
    assert reply.exit_code == 0, reply.stderr
    assert thin.pod_links(pod) == {"eth0", "net1"}
    assert [entry["interface"] for entry in thin.status(pod)] == ["eth0", "net1"]
    assert thin.call("CHECK", pod).exit_code == 0
    assert thin.call("STATUS", None, stdin=thin.stdin(None, "1.1.0")).exit_code == 0
    assert thin.add(pod).code == 4
    assert thin.delete(pod).exit_code == 0
    assert (thin.leases(), thin.records(), thin.locks()) == ([], [], [])
    assert thin.pod_links(pod) == set()


def test_standalone_and_daemon_share_their_records(thin: Node) -> None:
    """Whoever holds the sandbox's lock is the only one at work; the records are one truth."""
    first, second = thin.pod("macvlan"), thin.pod("macvlan")
    assert thin.add(first).exit_code == 0
    thin.configure_shim()
    thin.start()
    assert thin.call("CHECK", first).exit_code == 0
    assert thin.add(second).exit_code == 0
    assert thin.delete(first).exit_code == 0
    thin.kill()
    assert thin.delete(second).exit_code == 0
    assert (thin.leases(), thin.records(), thin.locks()) == ([], [], [])


@pytest.mark.parametrize("politely", [True, False])
def test_standalone_knows_what_the_daemon_knew(thin: Node, politely: bool) -> None:
    """The last known copies, from the database of a daemon that was stopped, or killed."""
    thin.configure_shim()
    thin.start()
    pod = thin.pod("macvlan")
    assert thin.add(pod).exit_code == 0
    if politely:
        assert thin.stop() == 0
    else:
        thin.kill()
    (thin.root / "manifests").rename(thin.root / "gone")
    before = (thin.root / "state" / "state.db").read_bytes()
    program = Path(sys.executable).with_name("metaplugin")
    thin.configure_shim(
        fallback=program, fallback_config=thin.root / "daemon.yaml", add_wait_ms=100
    )
    other = thin.pod("macvlan")
    reply = thin.add(other)
    assert reply.exit_code == 0, reply.stderr
    assert before == (thin.root / "state" / "state.db").read_bytes()
    for each in (pod, other):
        assert thin.delete(each).exit_code == 0


def test_an_error_is_as_the_daemons(thin: Node) -> None:
    thin.plugin("noop")
    thin.define("bad", noop_network(thin.root, "bad", onADD={"code": 77, "msg": "no room"}))
    pod = thin.pod("macvlan,bad")
    reply = thin.add(pod)
    assert (reply.exit_code, reply.code) == (1, 77)
    assert "no room" in reply.msg
    assert json.loads(reply.stdout)["cniVersion"] == "1.0.0"
    assert (thin.leases(), thin.records(), thin.locks()) == ([], [], [])


def test_a_fallback_that_can_not_start_is_told(thin: Node) -> None:
    thin.configure_shim(fallback="/nowhere/metaplugin", add_wait_ms=0)
    reply = thin.add(thin.pod(""))
    assert (reply.exit_code, reply.code) == (1, 11)
    assert "/nowhere/metaplugin" in reply.stderr
    assert thin.locks() == []


def test_each_takes_up_what_the_other_has_attached(thin: Node) -> None:
    """CHECK and the refusal of a second ADD, both ways; a change is told by both."""
    of_standalone, of_daemon = thin.pod("macvlan"), thin.pod("macvlan")
    assert thin.add(of_standalone).exit_code == 0
    thin.start()
    show_daemon(thin, shown=True)
    assert thin.add(of_daemon).exit_code == 0
    assert thin.call("CHECK", of_standalone).exit_code == 0
    assert thin.add(of_standalone).code == 4
    thin.kill()
    with_fallback(thin, wait_ms=0)
    assert thin.call("CHECK", of_daemon).exit_code == 0
    assert thin.add(of_daemon).code == 4
    for pod in (of_standalone, of_daemon):
        subprocess.run(["ip", "-n", pod.netns.name, "link", "del", "net1"], check=True)
    assert "net1" in thin.call("CHECK", of_daemon).msg
    thin.restart()
    show_daemon(thin, shown=True)
    assert "net1" in thin.call("CHECK", of_standalone).msg
    assert by_daemon(thin, of_standalone) == ["CHECK", "ADD", "CHECK"]
    assert by_daemon(thin, of_daemon) == ["ADD"]
    for pod in (of_standalone, of_daemon):
        assert thin.delete(pod).exit_code == 0
    assert (thin.leases(), thin.records(), thin.locks()) == ([], [], [])


@pytest.mark.parametrize("first", ["daemon", "standalone"])
def test_calls_for_one_sandbox_wait_for_each_other(thin: Node, first: str) -> None:
    """The sandbox's lock is the mutex, whoever answers: an ADD during an ADD, a DEL during both."""
    pod = thin.pod(slow_network(thin, seconds=1))
    thin.start()
    show_daemon(thin, first == "daemon")
    adding = started(thin, "ADD", pod)
    thin.wait_for_noop_calls(1)
    show_daemon(thin, first != "daemon")
    again = started(thin, "ADD", pod)
    assert outcome(again)[0] == 4
    assert outcome(adding)[0] == 0
    deleting = started(thin, "DEL", pod)
    show_daemon(thin, first == "daemon")
    assert thin.delete(pod).exit_code == 0
    assert outcome(deleting)[0] == 0
    assert [call["command"] for call in thin.noop_calls()] == ["ADD", "DEL"]
    assert by_daemon(thin, pod).count("ADD") == 1
    assert (thin.leases(), thin.records(), thin.locks()) == ([], [], [])
    assert thin.pod_links(pod) == set()


@pytest.mark.parametrize("first", ["daemon", "standalone"])
def test_a_del_waits_for_the_add_that_the_other_is_at(thin: Node, first: str) -> None:
    pod = thin.pod(slow_network(thin, seconds=1))
    thin.start()
    show_daemon(thin, first == "daemon")
    adding = started(thin, "ADD", pod)
    thin.wait_for_noop_calls(1)
    show_daemon(thin, first != "daemon")
    assert thin.delete(pod).exit_code == 0
    assert outcome(adding)[0] == 0
    add, delete = thin.noop_calls()
    assert (add["command"], delete["command"]) == ("ADD", "DEL")
    assert delete["time"] - add["time"] >= 1
    assert by_daemon(thin, pod) == (["ADD"] if first == "daemon" else ["DEL"])
    assert (thin.leases(), thin.records(), thin.locks()) == ([], [], [])
    assert thin.pod_links(pod) == set()


def test_standalone_clears_what_a_killed_daemon_began(thin: Node) -> None:
    """The next ADD of that sandbox, in no need of a DEL between."""
    pod = thin.pod(slow_network(thin, seconds=30))
    thin.start()
    show_daemon(thin, shown=True)
    adding = started(thin, "ADD", pod)
    thin.wait_for_noop_calls(1)
    thin.kill()
    assert outcome(adding)[0] == 11
    with_fallback(thin, wait_ms=0)
    slow_network(thin, seconds=0)
    reply = thin.add(pod)
    assert reply.exit_code == 0, reply.stderr
    assert len(thin.leases()) == 2
    assert thin.delete(pod).exit_code == 0
    assert (thin.leases(), thin.records(), thin.locks()) == ([], [], [])


def test_a_damaged_record_is_rebuilt_for_its_del_without_a_daemon(thin: Node) -> None:
    pod = thin.pod("macvlan", name="shown")
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shown"}}
    thin.write_manifest("shown.yaml", document)
    assert thin.add(pod).exit_code == 0
    [name] = thin.records()
    path = thin.root / "state" / "attachments" / name
    path.write_bytes(path.read_bytes()[:40])
    reply = thin.delete(pod)
    assert reply.exit_code == 0, reply.stdout
    assert (thin.leases(), thin.records(), thin.locks()) == ([], [], [])


@pytest.mark.parametrize("by", ["daemon", "standalone"])
def test_what_outlives_its_record_is_taken_away(thin: Node, by: str) -> None:
    """Tombstones of yesterday, and the status of pods that a shim alone has deleted."""
    gone, live = thin.pod("macvlan"), thin.pod("macvlan")
    for pod in (gone, live):
        assert thin.add(pod).exit_code == 0
    assert thin.delete(gone).exit_code == 0
    foreign = thin.root / "status" / "not_ours.yaml"
    foreign.write_text("kind: Pod\nmetadata: {annotations: {a: b}}\n")
    [tombstone] = (thin.root / "state" / "tombstones").iterdir()
    os.utime(tombstone, (0, 0))
    if by == "daemon":
        thin.start()
    else:
        assert thin.call("CHECK", live).exit_code == 0
    deadline = time.monotonic() + 10
    while thin.entries("status") != ["default_pod2.yaml", "not_ours.yaml"] or tombstone.exists():
        assert time.monotonic() < deadline, thin.entries("status")
        time.sleep(0.01)
    assert thin.delete(live).exit_code == 0


def slow_network(node: Node, *, seconds: int) -> str:
    """Define a network whose ADD takes so long; return an annotation with it."""
    node.plugin("noop")
    node.define("slow", noop_network(node.root, "slow", onADD={"sleep": seconds}))
    return "macvlan,slow"


def show_daemon(node: Node, shown: bool) -> None:
    """Have new calls wait for the daemon, or find none; calls under way keep their connection."""
    with_fallback(node, wait_ms=10000 if shown else 0)
    socket, hidden = node.root / "run" / "daemon.sock", node.root / "run" / "hidden.sock"
    if not shown and socket.exists():
        socket.rename(hidden)
    elif shown and hidden.exists():
        hidden.rename(socket)


def by_daemon(node: Node, pod: Pod) -> list[str]:
    """Return the commands for a pod that the daemon has answered, from its log."""
    lines = node.log.read_text().splitlines()
    ends = [line for line in lines if " msg=done " in line or " msg=failed " in line]
    ends = [line for line in ends if pod.container_id in line]
    return [line.partition("command=")[2].split()[0] for line in ends]


def started(node: Node, command: str, pod: Pod) -> subprocess.Popen[bytes]:
    process = node.popen(command, pod)
    assert process.stdin is not None
    process.stdin.write(node.stdin(pod))
    process.stdin.close()
    process.stdin = None
    return process


def outcome(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Wait for a call; return its error's code, 0 for success, and the error's text."""
    out, _ = process.communicate(timeout=50)
    error = json.loads(out) if process.returncode else {}
    return error.get("code", 0), error.get("msg", "")
