"""No daemon: the shim's fallback answers, with the same flows and the same records."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.system.node import Node, noop_network

pytestmark = pytest.mark.system


@pytest.fixture
def thin(idle_node: Node) -> Node:
    """A node without a daemon, its shim with a fallback."""
    program = Path(sys.executable).with_name("metaplugin")
    idle_node.write_config()
    idle_node.configure_shim(
        fallback=program,
        fallback_config=idle_node.root / "daemon.yaml",
        add_wait_ms=0,
        status_wait_ms=0,
    )
    return idle_node


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
