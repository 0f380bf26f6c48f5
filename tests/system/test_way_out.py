"""Networks whose plugin fails in DEL for ever: their pods can go, and nothing is forgotten."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.node import Node, Pod, Reply, macvlan_network, noop_network

pytestmark = pytest.mark.system

GIVE_UP_S = 2
REFUSAL = "plugin macvlan: Link not found"


def without_master(root: Path) -> dict[str, Any]:
    return macvlan_network(root, "10.92.0.0/24", master="absent0")


@pytest.fixture
def hasty_node(recording_node: Node) -> Node:
    """A recording node that gives up after two seconds, with network `stuck`: its plugin's DEL
    fails until `let_go`."""
    node = recording_node
    node.daemon_keys |= {"deadlines": {"giveUpSeconds": GIVE_UP_S}, "reapIntervalSeconds": 0.1}
    make_stuck(node)
    node.restart()
    return node


def make_stuck(node: Node) -> None:
    flag = node.root / "stuck"
    flag.touch()
    script = node.plugin("stuck")
    fail = (
        f"if command == 'DEL' and os.path.exists({str(flag)!r}):\n"
        "        misbehave({'code': 88, 'msg': 'no master'}, config)"
    )
    text = script.read_text().replace("    misbehave(", f"    {fail}\n    misbehave(", 1)
    script.write_text(text)
    network = noop_network(node.root, "stuck")
    network["plugins"][0]["type"] = "stuck"
    node.define("stuck", network)


def let_go(node: Node) -> None:
    (node.root / "stuck").unlink()


def deleted_in_time(node: Node, pod: Pod, **values: Any) -> Reply:
    """Repeat DEL as runtimes do; return the first answer after the time of giving up."""
    reply = node.delete(pod, **values)
    assert reply.code == 88
    time.sleep(GIVE_UP_S + 0.1)
    return node.delete(pod, **values)


def dels(node: Node) -> list[str]:
    return [c["env"]["CNI_IFNAME"] for c in node.noop_calls() if c["command"] == "DEL"]


def test_a_plugin_that_refuses_add_and_del_alike_keeps_no_pod(node: Node) -> None:
    """CNI-DEL-5: macvlan looks its master up before it does anything, in DEL too."""
    node.define("lost", without_master(node.root))
    pod = node.pod("lost")
    reply = node.add(pod)
    assert REFUSAL in reply.msg
    assert "refused its DEL as well" in str(reply.json["details"])
    assert (node.records(), node.leases(), node.pod_links(pod)) == ([], [], set())
    assert node.delete(pod).exit_code == 0


def test_what_add_left_is_kept_without_what_it_never_made(node: Node) -> None:
    """A shim alone finds nothing of the refusing plugin in the record either."""
    make_stuck(node)
    node.define("lost", without_master(node.root))
    pod = node.pod("stuck, lost")
    assert REFUSAL in node.add(pod).msg
    assert node.records() == [f"{pod.container_id}@eth0"]
    node.kill()
    reply = node.delete(pod)
    assert (reply.code, "no master" in reply.msg, "macvlan" in reply.msg) == (11, True, False)
    let_go(node)
    assert node.delete(pod).exit_code == 0
    assert (node.records(), node.leases()) == ([], [])


def test_a_refusal_is_remembered_for_the_runtimes_del(node: Node) -> None:
    """The rollback's own DEL ended otherwise: the plugin was killed."""
    script = node.root / "plugins" / "macvlan"
    flag = node.root / "killed"
    flag.touch()
    script.write_text(
        f'#!/bin/sh\n[ "$CNI_COMMAND" = DEL ] && [ -e {flag} ] && kill -9 $$\n'
        f"exec /usr/lib/cni/macvlan\n"
    )
    script.chmod(0o755)
    node.define("lost", without_master(node.root))
    pod = node.pod("lost")
    assert REFUSAL in node.add(pod).msg
    assert node.records() == [f"{pod.container_id}@eth0"]
    flag.unlink()
    assert node.delete(pod).exit_code == 0
    assert node.records() == []


def test_a_plugin_that_made_its_interface_first_is_not_taken_for_undone(node: Node) -> None:
    """The same words in ADD and DEL, but the interface is there."""
    script = node.root / "plugins" / "hasty"
    error = '{"cniVersion": "1.0.0", "code": 99, "msg": "no lease"}'
    script.write_text(
        "#!/bin/sh\n"
        f'[ "$CNI_COMMAND" = ADD ] && ip -n "${{CNI_NETNS##*/}}" link add net1 type bridge\n'
        f"echo '{error}'\nexit 1\n"
    )
    script.chmod(0o755)
    node.define("hasty", {"cniVersion": "1.0.0", "plugins": [{"type": "hasty"}]})
    pod = node.pod("hasty")
    assert node.add(pod).code == 99
    assert node.delete(pod).code == 99
    subprocess.run(["ip", "-n", pod.netns.name, "link", "del", "net1"], check=True)
    assert node.delete(pod).exit_code == 0
    assert node.records() == []


def test_a_del_that_fails_for_ever_is_given_up_and_stays_the_clean_ups(hasty_node: Node) -> None:
    """The time of failing outlives the daemon; what is released isn't deleted again."""
    node = hasty_node
    pod = node.pod("stuck")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).code == 88
    node.restart()
    time.sleep(GIVE_UP_S + 0.1)
    for _ in range(2):
        assert node.delete(pod).exit_code == 0
    record = f"{pod.container_id}@eth0"
    assert node.records() == [record]
    assert dels(node).count("eth0") == 1
    assert node.log.read_text().count("given up") == 1
    done = node.check_all()
    assert (done.returncode, record in done.stdout, "no master" in done.stdout) == (1, True, True)
    let_go(node)
    other = node.pod("")
    assert node.add(other).exit_code == 0  # its shim lets the clean-up work
    node.wait_for_records(1)
    assert node.records() == [f"{other.container_id}@eth0"]


def test_what_is_in_the_sandbox_still_is_never_given_up(hasty_node: Node) -> None:
    node = hasty_node
    pod = node.pod("stuck")
    assert node.add(pod).exit_code == 0
    name = pod.netns.name
    subprocess.run(["ip", "-n", name, "link", "add", "net1", "type", "bridge"], check=True)
    assert deleted_in_time(node, pod).code == 88
    assert node.delete(pod, CNI_NETNS="").code == 88  # alive, and nobody can look into it
    subprocess.run(["ip", "netns", "del", name], check=True)
    assert node.delete(pod).exit_code == 0


def test_the_default_network_is_given_up_like_any_other(hasty_node: Node) -> None:
    node = hasty_node
    default = {"cniVersion": "1.0.0", "name": "d", "plugins": [{"type": "stuck"}]}
    (node.root / "default.conflist").write_text(json.dumps(default))
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    assert deleted_in_time(node, pod).exit_code == 0
    assert node.records() == [f"{pod.container_id}@eth0"]


def test_a_shim_alone_stays_honest(hasty_node: Node) -> None:
    node = hasty_node
    pod = node.pod("stuck")
    assert node.add(pod).exit_code == 0
    assert deleted_in_time(node, pod).exit_code == 0
    node.kill()
    reply = node.delete(pod)
    assert (reply.code, "no master" in reply.msg) == (11, True)


def test_a_sandbox_that_was_never_added_is_given_up_too(hasty_node: Node) -> None:
    """Its ADD may have failed before there was a record."""
    node = hasty_node
    pod = node.pod("stuck")
    assert deleted_in_time(node, pod).exit_code == 0
    calls = len(node.noop_calls())
    assert node.delete(pod).exit_code == 0
    assert len(node.noop_calls()) == calls


def test_a_new_add_of_the_same_id_releases_first(hasty_node: Node) -> None:
    node = hasty_node
    pod = node.pod("stuck")
    assert node.add(pod).exit_code == 0
    assert deleted_in_time(node, pod).exit_code == 0
    assert "no master" in node.add(pod).msg
    let_go(node)
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0
