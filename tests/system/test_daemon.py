"""The daemon's life: many pods at a time, a polite stop, damage and a full disk."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.node import Node, Pod, Reply, bridge_network, new_root, noop_network

pytestmark = pytest.mark.system


def begin(node: Node, pod: Pod) -> subprocess.Popen[bytes]:
    """Start an ADD and give it its input."""
    process = node.popen("ADD", pod)
    assert process.stdin is not None
    process.stdin.write(node.stdin(pod))
    process.stdin.close()
    return process


def end(process: subprocess.Popen[bytes]) -> Reply:
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    return Reply(process.wait(30), out, err.decode(), 0)


def wait_for_calls(node: Node, count: int) -> None:
    deadline = time.monotonic() + 20
    while len([c for c in node.noop_calls() if c["command"] == "ADD"]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_pods_whose_delegate_hangs_delay_no_other(recording_node: Node) -> None:
    """CNI-CON-1: more of them than the limit on planning, and than any pool of threads."""
    node = recording_node
    node.define("hung", noop_network(node.root, "hung", onADD={"sleep": 50}))
    hung = [begin(node, node.pod("hung")) for _ in range(20)]
    wait_for_calls(node, 40)
    other = node.pod("")
    assert node.add(other).exit_code == 0
    assert node.delete(other).exit_code == 0
    assert [process.poll() for process in hung] == [None] * 20
    for process in hung:
        process.kill()
        end(process)


def test_two_calls_for_one_sandbox_run_one_after_the_other(recording_node: Node) -> None:
    """CNI-DLG-20, CNI-CON-2: the DEL waits until the ADD has ended."""
    node = recording_node
    node.define("slow", noop_network(node.root, "slow", onADD={"sleep": 1.5}))
    pod = node.pod("slow")
    adding = begin(node, pod)
    wait_for_calls(node, 2)
    assert node.delete(pod).exit_code == 0
    assert end(adding).exit_code == 0
    commands = [call["command"] for call in node.noop_calls()]
    assert commands == ["ADD", "ADD", "DEL", "DEL"]
    assert (node.records(), node.locks()) == ([], [])


def test_what_runs_is_finished_before_a_polite_stop(recording_node: Node) -> None:
    """MULTUS-28: records and configuration stay."""
    node = recording_node
    node.define("slow", noop_network(node.root, "slow", onADD={"sleep": 1.5}))
    pod = node.pod("slow")
    adding = begin(node, pod)
    wait_for_calls(node, 2)
    assert node.stop() == 0
    assert end(adding).exit_code == 0
    assert node.records() == [f"{pod.container_id}@eth0"]
    assert not (node.root / "run" / "daemon.sock").exists()
    node.start()
    assert node.delete(pod).exit_code == 0
    assert node.records() == []


def test_an_add_waits_for_a_daemon_that_restarts(recording_node: Node) -> None:
    """MULTUS-28."""
    node = recording_node
    node.kill()
    (node.root / "run" / "daemon.sock").unlink()
    pod = node.pod("")
    adding = begin(node, pod)
    time.sleep(0.3)
    node.start()
    assert end(adding).exit_code == 0
    assert node.delete(pod).exit_code == 0


def test_without_a_daemon_an_add_is_to_be_tried_again(recording_node: Node) -> None:
    """CNI-ERR-8."""
    node = recording_node
    node.kill()
    node.configure_shim(add_wait_ms=300)
    reply = node.add(node.pod(""))
    assert (reply.exit_code, reply.code) == (1, 11)
    assert "daemon" in reply.msg
    assert node.locks() == []


def test_an_add_whose_caller_died_is_undone_by_the_next_del(recording_node: Node) -> None:
    """CNI-DEL-7."""
    node = recording_node
    node.define("slow", noop_network(node.root, "slow", onADD={"sleep": 30}))
    pod = node.pod("slow")
    adding = begin(node, pod)
    wait_for_calls(node, 2)
    adding.send_signal(signal.SIGKILL)
    end(adding)
    assert node.delete(pod).exit_code == 0
    deleted = [c["env"]["CNI_IFNAME"] for c in node.noop_calls() if c["command"] == "DEL"]
    assert deleted == ["net1", "eth0"]
    assert (node.records(), node.locks()) == ([], [])


def test_an_answer_that_nobody_takes_is_undone(recording_node: Node) -> None:
    """DESIGN section 2: an ADD whose result can't be delivered didn't happen."""
    node = recording_node
    node.define("slow", noop_network(node.root, "slow", onADD={"sleep": 1}))
    pod = node.pod("slow")
    adding = node.popen("ADD", pod)
    assert adding.stdin is not None
    assert adding.stdout is not None
    adding.stdin.write(node.stdin(pod))
    adding.stdin.close()
    adding.stdout.close()
    assert adding.wait(20) == 1
    assert adding.stderr is not None
    adding.stderr.close()
    deleted = [c["env"]["CNI_IFNAME"] for c in node.noop_calls() if c["command"] == "DEL"]
    assert deleted == ["net1", "eth0"]
    assert (node.records(), node.locks()) == ([], [])


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "truncated": content[:40],
        "flipped": bytes([*content[:20], content[20] ^ 1, *content[21:]]),
        "garbage": b"\xff" * 500,
    }
    if how == "flipped":  # in every section, so that none is whole
        damaged["flipped"] = content.replace(b"CNI_COMMAND", b"CNI_COMMANE")
    path.write_bytes(damaged[how])


@pytest.mark.parametrize("how", ["empty", "truncated", "flipped", "garbage"])
def test_a_damaged_record_is_rebuilt_for_its_del(node: Node, how: str) -> None:
    """ROB-7: neither wedged nor silently leaked."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    damage(node.root / "state" / "attachments" / f"{pod.container_id}@eth0", how)
    assert node.call("CHECK", pod).code == 11
    assert node.delete(pod).exit_code == 0
    assert (node.leases(), node.records(), node.locks()) == ([], [], [])
    assert node.pod_links(pod) == set()


def test_a_damaged_record_without_a_daemon_is_told(node: Node) -> None:
    """ROB-7."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    damage(node.root / "state" / "attachments" / f"{pod.container_id}@eth0", "garbage")
    node.kill()
    reply = node.delete(pod)
    assert (reply.exit_code, reply.code) == (1, 11)
    assert "damaged" in reply.msg
    node.restart()
    assert node.delete(pod).exit_code == 0
    assert (node.leases(), node.records()) == ([], [])


def test_a_record_torn_at_its_end_still_deletes(node: Node) -> None:
    """The first section holds every DEL that is due."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    path = node.root / "state" / "attachments" / f"{pod.container_id}@eth0"
    path.write_bytes(path.read_bytes()[:-7])
    assert node.delete(pod).exit_code == 0
    assert (node.leases(), node.records()) == ([], [])


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database_costs_nothing_but_its_cache(node: Node, content: bytes) -> None:
    """DESIGN section 4: losing it never costs a DEL."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    node.kill()
    state = node.root / "state"
    for path in state.glob("state.db*"):
        path.unlink()
    (state / "state.db").write_bytes(content)
    node.restart()
    assert node.delete(pod).exit_code == 0
    other = node.pod("macvlan")
    assert node.add(other).exit_code == 0
    assert node.delete(other).exit_code == 0
    assert node.stop() == 0
    with sqlite3.connect(state / "state.db") as connection:
        kinds = {row[0] for row in connection.execute("SELECT DISTINCT kind FROM objects")}
    connection.close()
    assert kinds == {"definition"}


def test_known_networks_attach_while_the_cluster_is_away(node: Node) -> None:
    """MULTUS-30: from the last known copy, also after a restart."""
    first = node.pod("macvlan")
    assert node.add(first).exit_code == 0
    (node.root / "manifests").rename(node.root / "gone")
    node.stop()
    node.start()
    second, unknown = node.pod("macvlan"), node.pod("nowhere")
    assert node.add(second).exit_code == 0
    assert node.add(unknown).code == 11
    for pod in (first, second):
        assert node.delete(pod).exit_code == 0
    assert node.leases() == []


@pytest.fixture
def full_disk_node(eth1: None) -> Iterator[Node]:
    """A node whose state folder is a disk of 1 MiB."""
    root = new_root()
    node = Node(root, bridge_network(root))
    disk = root / "state"
    disk.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "small", str(disk)]
    subprocess.run(mount, check=True)
    node.start()
    yield node
    node.kill()
    subprocess.run(["umount", str(disk)], check=True)
    node.close()
    subprocess.run(["ip", "link", "del", "br-cbr0"], check=False, capture_output=True)


def test_a_full_disk_fails_an_add_cleanly_and_no_del(full_disk_node: Node) -> None:
    """A record that can't be written is an error before anything runs; DEL needs no space."""
    node = full_disk_node
    live, late = node.pod(""), node.pod("")
    assert node.add(live).exit_code == 0
    filler = node.root / "state" / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 4096)
    reply = node.add(late)
    assert (reply.exit_code, reply.code) == (1, 5)
    assert "No space left" in reply.msg
    assert node.pod_links(late) == set()
    assert len(node.leases()) == 1
    assert node.entries("state", "attachments") == [f"{live.container_id}@eth0"]
    assert node.delete(live).exit_code == 0
    assert node.delete(late).exit_code == 0
    assert (node.leases(), node.records(), node.locks()) == ([], [], [])
    filler.unlink()
    assert node.add(late).exit_code == 0
    assert node.delete(late).exit_code == 0


def test_a_second_daemon_takes_over_and_the_first_leaves_its_socket(recording_node: Node) -> None:
    node = recording_node
    first = node.daemon
    assert first is not None
    inode = (node.root / "run" / "daemon.sock").stat().st_ino
    node.start()
    while (node.root / "run" / "daemon.sock").stat().st_ino == inode:
        time.sleep(0.02)
    first.terminate()
    assert first.wait(20) == 0
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0


def test_what_is_kept_is_private_to_root(node: Node) -> None:
    """ROB-8."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    for folder in ("run", "state"):
        for path in [node.root / folder, *(node.root / folder).rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0, path
    assert node.delete(pod).exit_code == 0


def test_each_log_line_names_what_it_is_about(node: Node) -> None:
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0
    lines = node.log.read_text().splitlines()
    [attached] = [line for line in lines if "network=default/macvlan" in line]
    assert "interface=net1" in attached
    assert f"container_id={pod.container_id}" in attached
    done = [line for line in lines if "msg=done" in line]
    for line, command in zip(done, ("ADD", "DEL"), strict=True):
        for field in (
            f"command={command}",
            f"container_id={pod.container_id}",
            f"pod=default/{pod.name}",
            "interface=eth0",
        ):
            assert field in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clusterNetwrk: x\n", "nearest known one is 'clusterNetwork'"),
        ("deadlines: {delegateSecond: 5}\n", "nearest known one is 'delegateSeconds'"),
        ("deadlines: {delegateSeconds: soon}\n", "deadlines.delegateSeconds"),
        ("deadlines: {rollbackSeconds: 220}\n", "deadlines.rollbackSeconds"),
        ("readinessFile: ready\n", "readinessFile"),
        ("auxiliaryChain: ../x\n", "auxiliaryChain"),
        ("auxiliaryCNIChainName: x\n", "nearest known one is 'auxiliaryChain'"),
        ("- a list\n", "must hold keys and values"),
        ("a: [\n", "no YAML"),
    ],
    ids=[
        "typo",
        "nested typo",
        "wrong type",
        "contradiction",
        "relative path",
        "chain elsewhere",
        "key of Multus",
        "list",
        "no yaml",
    ],
)
def test_a_bad_configuration_file_is_told_in_full(idle_node: Node, text: str, message: str) -> None:
    """An unknown key is an error that names the nearest known one."""
    path = idle_node.root / "bad.yaml"
    path.write_text(text)
    result = idle_node.run_daemon(path)
    assert result.returncode == 1
    assert message in result.stderr
    assert str(path) in result.stderr
