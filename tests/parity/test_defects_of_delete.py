"""What Multus v4.3.0 loses or leaks, must hold here: records, DEL, CHECK, GC (A25)."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import Any

import pytest

from tests.apiserver.faults import Answer, on
from tests.parity.cluster_node import ClusterNode, recording
from tests.system.node import Node, noop_network

pytestmark = pytest.mark.system

UNUSUAL: dict[str, Any] = {
    "capabilities": {"portMappings": True},
    "policy": {"type": "k8s", "token": None},
    "pools": [{"of": [1, 2.5, None]}, []],
    "big": 1 << 70,
}


def plugin_input(node: Node, command: str) -> dict[str, Any]:
    """Return what the last call of that command got, its prevResult excepted."""
    given = [json.loads(c["stdin"]) for c in node.noop_calls() if c["command"] == command][-1]
    given.pop("prevResult", None)
    return dict(given)


@pytest.mark.parametrize("daemon", ["there", "away"])
def test_del_and_check_get_the_whole_configuration_of_a_default_network(
    recording_node: Node, daemon: str
) -> None:
    """A25.1: a `.conflist` by its path; keys that no standard names go to every command."""
    node = recording_node
    result = {"cniVersion": "1.0.0"}
    default = noop_network(node.root, "default-net", result=result, **UNUSUAL)
    (node.root / "default.conflist").write_text(json.dumps(default))
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    assert node.call("CHECK", pod).exit_code == 0
    if daemon == "away":
        node.kill()
    assert node.delete(pod).exit_code == 0
    written = {**default["plugins"][0], "name": "default-net", "cniVersion": "1.0.0"}
    del written["capabilities"]
    assert [plugin_input(node, command) for command in ("ADD", "CHECK", "DEL")] == [written] * 3


DAMAGE = {
    "nothing": b"",
    "an empty list": b"[]",
    "half a list": b'[{"Conf": {"type": "no',
    "garbage": b"\x00\xff" * 500,
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("daemon", ["there", "away"])
def test_a_del_with_a_damaged_record_releases_or_says_that_it_did_not(
    node: Node, content: bytes, daemon: str
) -> None:
    """A25.4: no success while a lease is left, and nothing that ends the daemon."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    [record] = node.records()
    (node.root / "state" / "attachments" / record).write_bytes(content)
    if daemon == "away":
        node.kill()
        assert node.delete(pod).code == 11
        assert node.records() == [record]
        node.restart()
    assert node.delete(pod).exit_code == 0
    assert (node.leases(), node.records()) == ([], [])


def test_a_record_is_written_beside_and_renamed_when_it_is_on_disk(recording_node: Node) -> None:
    """A25.5: a crash leaves the old record or the new one, never an empty file."""
    node = recording_node
    pod = node.pod("")
    log = node.root / "calls"
    watched = "trace=openat,fsync,fdatasync,rename,renameat,renameat2,clone,clone3,fork,vfork"
    reply = node.add(pod, prefix=("strace", "-o", str(log), "-e", watched))
    assert reply.exit_code == 0
    text = log.read_text()
    renamed = re.search(rf'rename(?:at2?)?\(.*"[^"]*{pod.container_id}@eth0"', text)
    assert renamed is not None
    before, after = text[: renamed.start()], text[renamed.end() :]
    assert "O_EXCL" in before or "O_TRUNC" in before
    assert re.search(r"f(data)?sync\(", before)
    assert re.search(r"fsync\(", after)  # the folder
    assert node.delete(pod).exit_code == 0


@pytest.mark.parametrize("content", ["", '{"cniVersion": "1.0.0", "plugins": [', "[]"])
def test_a_default_network_that_is_half_written_harms_nothing_but_the_moment(
    recording_node: Node, content: str
) -> None:
    """A25.5: ADD and STATUS say so, no file is written for it, and the next ADD works."""
    node = recording_node
    whole = (node.root / "default.conflist").read_text()
    (node.root / "default.conflist").write_text(content)
    pod = node.pod("")
    reply = node.add(pod)
    assert reply.exit_code == 1
    assert "default.conflist" in reply.msg
    assert node.call("STATUS", None, stdin=node.stdin(None, "1.1.0")).code == 50
    assert node.noop_calls() == []
    (node.root / "default.conflist").write_text(whole)
    assert node.add(pod).exit_code == 0
    assert node.entries("net.d") == []
    assert node.delete(pod).exit_code == 0


def test_a_del_without_a_daemon_releases_everything_or_fails(node: Node) -> None:
    """A25.6."""
    pods = [node.pod("macvlan"), node.pod("macvlan")]
    for pod in pods:
        assert node.add(pod).exit_code == 0
    node.kill()
    assert node.delete(pods[0]).exit_code == 0
    assert node.records() == [f"{pods[1].container_id}@eth0"]
    missing = node.delete(pods[1], CNI_PATH=str(node.root / "plugins"))
    assert missing.exit_code == 1
    assert node.records() == [f"{pods[1].container_id}@eth0"]
    assert node.delete(pods[1]).exit_code == 0
    assert (node.leases(), node.records()) == ([], [])


def test_a_polite_stop_cuts_no_call_and_removes_no_configuration(recording_node: Node) -> None:
    """A25.7."""
    node = recording_node
    slow = noop_network(node.root, "default-net", onADD={"sleep": 1})
    (node.root / "default.conflist").write_text(json.dumps(slow))
    (node.root / "net.d" / "00-metaplugin.conflist").write_text("{}")
    pod = node.pod("")
    process = node.popen("ADD", pod)
    assert process.stdin is not None
    process.stdin.write(node.stdin(pod))
    process.stdin.close()
    process.stdin = None
    node.wait_for_noop_calls(1)
    assert node.stop() == 0
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, json.loads(out)["cniVersion"]) == (0, "1.0.0")
    assert node.entries("net.d") == ["00-metaplugin.conflist"]
    assert node.delete(pod).exit_code == 0
    assert [call["command"] for call in node.noop_calls()] == ["ADD", "DEL"]


def test_an_interface_that_was_added_later_is_released_with_its_pod(node: Node) -> None:
    """A25.9: CNI's own way to add one to a live container; each has a record from its ADD on."""
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    assert node.add(pod, CNI_IFNAME="hot1").exit_code == 0
    assert node.pod_links(pod) == {"eth0", "hot1"}
    assert len(node.leases()) == 2
    subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    assert node.delete(pod, CNI_NETNS="").exit_code == 0
    collect = node.stdin(None, "1.1.0", **{"cni.dev/valid-attachments": []})
    assert node.call("GC", None, stdin=collect).exit_code == 0
    assert (node.leases(), node.records()) == ([], [])


def test_gc_goes_by_the_runtimes_list_and_check_covers_every_attachment(node: Node) -> None:
    """A25.15: what isn't listed is freed; state that was never there is no error."""
    collect = node.stdin(None, "1.1.0", **{"cni.dev/valid-attachments": []})
    assert node.call("GC", None, stdin=collect).exit_code == 0
    pod = node.pod("macvlan, macvlan")
    assert node.add(pod).exit_code == 0
    assert node.call("CHECK", pod).exit_code == 0
    subprocess.run(["ip", "-n", pod.netns.name, "link", "del", "net2"], check=True)
    assert "net2" in node.call("CHECK", pod).msg
    subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    assert node.call("GC", None, stdin=collect).exit_code == 0
    assert (node.leases(), node.records()) == ([], [])


def test_interfaces_keep_their_names_whatever_the_configuration_says_later(
    recording_node: Node,
) -> None:
    """A25.27: another network for every pod renumbers nothing that is attached."""
    node = recording_node
    node.define("extra", noop_network(node.root, "extra", result={"cniVersion": "1.0.0"}))
    quiet = noop_network(node.root, "first", result={"cniVersion": "1.0.0"})
    delegates = [quiet]
    pod = node.pod("extra")
    assert node.add(pod, stdin=node.stdin(pod, delegates=delegates)).exit_code == 0
    more = node.stdin(pod, delegates=[quiet, noop_network(node.root, "second")])
    assert node.call("CHECK", pod, stdin=more).exit_code == 0
    assert node.delete(pod, stdin=more).exit_code == 0
    named = [
        (call["command"], json.loads(call["stdin"])["name"], call["env"]["CNI_IFNAME"])
        for call in node.noop_calls()
    ]
    assert named == [
        ("ADD", "first", "eth0"),
        ("ADD", "extra", "net1"),
        ("CHECK", "first", "eth0"),
        ("CHECK", "extra", "net1"),
        ("DEL", "extra", "net1"),
        ("DEL", "first", "eth0"),
    ]


@pytest.mark.parametrize(
    "words", ["no such file or directory", "not found", "Link not found", "file exists"]
)
def test_what_an_error_means_never_goes_by_its_words(recording_node: Node, words: str) -> None:
    """A25.30: whatever a delegate says, its failed DEL failed, and can be repeated."""
    node = recording_node
    failing = noop_network(node.root, "default-net", onDEL={"code": 5, "msg": words})
    (node.root / "default.conflist").write_text(json.dumps(failing))
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    for _ in range(2):
        assert node.delete(pod).code == 5
        assert node.records() == [f"{pod.container_id}@eth0"]


def test_a_failure_after_the_last_delegate_undoes_them_all(node: Node) -> None:
    """A25.18: a gateway that can't be reached."""
    pod = node.pod('[{"name": "macvlan", "default-route": ["10.77.0.1"]}]')
    reply = node.add(pod)
    assert reply.exit_code == 1
    assert "10.77.0.1" in reply.msg
    assert node.pod_links(pod) == set()
    assert (node.leases(), node.records()) == ([], [])


def test_a_status_that_can_not_be_written_fails_no_pod_and_is_written_later(
    cluster_node: ClusterNode,
) -> None:
    """A25.18: the networks are there; the annotation follows."""
    cluster_node.define("lan", recording(cluster_node.node, "lan", "1.1.1.3/24"))
    rule = cluster_node.server.inject(Answer(500), on(verb="patch"))
    pod = cluster_node.pod("lan")
    assert cluster_node.add(pod).exit_code == 0
    assert cluster_node.server.count("patch", "pods/status") >= 1
    rule.clear()
    assert [entry["name"] for entry in cluster_node.status(pod)] == ["weave1", "default/lan"]
    assert cluster_node.node.delete(pod).exit_code == 0


def test_a_daemon_that_is_killed_in_mid_add_leaks_nothing(node: Node) -> None:
    """A25.5, A25.6: whatever was written, the runtime's DEL releases it."""
    sleeping = {"type": "noop", "log": str(node.root / "noop.log"), "onADD": {"sleep": 30}}
    node.plugin("noop")
    node.define("slow", {"cniVersion": "1.0.0", "plugins": [sleeping]})
    pod = node.pod("macvlan, slow")
    process = node.popen("ADD", pod)
    assert process.stdin is not None
    process.stdin.write(node.stdin(pod))
    process.stdin.close()
    process.stdin = None
    node.wait_for_noop_calls(1)
    node.signal_daemon(signal.SIGKILL)
    out, _ = process.communicate(timeout=30)
    assert json.loads(out)["code"] == 11
    assert node.delete(pod).exit_code == 0
    assert (node.leases(), node.records()) == ([], [])
