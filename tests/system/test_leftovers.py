"""What could stay behind unseen: temporary files, references to namespaces, status, memory."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metaplugin.wire.frames import HEADER, Exec, Hello, Request
from tests.system.node import Node, noop_network

pytestmark = pytest.mark.system


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("call", ["fsync", "renameat"])
def test_a_shim_killed_while_it_writes_its_record_leaves_no_file(
    recording_node: Node, call: str
) -> None:
    """CNI-DEL-7: the record's temporary file goes with the DEL."""
    node = recording_node
    pod = node.pod("")
    prefix = ("strace", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when=1")
    assert node.add(pod, prefix=prefix).exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert node.delete(pod).exit_code == 0
    assert (node.records(), node.locks()) == ([], [])


def test_a_lent_shim_does_not_keep_the_pods_namespace(node: Node) -> None:
    """A device in a namespace comes back to the node only when nothing refers to it any more."""
    slow = noop_network(node.root, "slow", onDEL={"sleep": 15})
    node.plugin("noop")
    node.define("slow", slow)
    gone = node.pod("slow")
    assert node.add(gone).exit_code == 0
    subprocess.run(["ip", "netns", "del", gone.netns.name], check=True)
    node.restart()
    pod = node.pod("")
    assert node.add(pod).exit_code == 0  # its shim is lent to the reaper
    wait_until(lambda: [call["command"] for call in node.noop_calls()] == ["ADD", "DEL"])
    links = node.host_links()
    subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    wait_until(lambda: node.host_links() != links)
    assert len(node.records()) == 2  # the reaper's DEL runs still
    assert node.delete(pod).exit_code == 0
    wait_until(lambda: node.records() == [])


def test_a_status_file_goes_with_its_record_also_without_the_daemon(node: Node) -> None:
    """MULTUS-23, MULTUS-28: the shim's own DEL can't remove it; the next daemon does."""
    pod, kept = node.pod("macvlan"), node.pod("")
    for each in (pod, kept):
        assert node.add(each).exit_code == 0
    node.kill()
    assert node.delete(pod).exit_code == 0
    node.restart()
    wait_until(lambda: node.entries("status") == [f"default_{kept.name}.yaml"])
    assert node.delete(kept).exit_code == 0
    assert node.entries("status") == []


def connect(node: Node) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(node.root / "run" / "daemon.sock"))
    assert connection.recv(100) == Hello(1, 1).encode()
    return connection


REQUEST = Request(1, b"CNI_COMMAND=STATUS\0", b"{}", 0, 0, 0, b"", b"").encode()
BROKEN = {
    "cut short": REQUEST[:-3],
    "only a header": REQUEST[: HEADER.size],
    "nothing": b"",
    "another frame": Exec(1, b"x", b"", b"").encode(),
    "unknown kind": HEADER.pack(77, 3) + b"abc",
    "too long": HEADER.pack(Request.KIND, 0xFFFFFFFF),
    "fields beyond the frame": HEADER.pack(Request.KIND, 8) + b"\0\0\0\1\xff\xff\xff\xff",
    "a version nobody offered": b"".join([REQUEST[:8], b"\0\0\0\x09", REQUEST[12:]]),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_request_that_is_none_harms_no_later_one(recording_node: Node, data: bytes) -> None:
    """ROB-2: a shim killed while it sends its request, and what no shim would send."""
    node = recording_node
    for _ in range(3):
        with connect(node) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
        pod = node.pod("")
        assert node.add(pod).exit_code == 0
        assert node.delete(pod).exit_code == 0
    assert "Traceback" not in node.log.read_text()


def test_a_runtime_that_was_upgraded_while_it_runs_is_still_the_same(recording_node: Node) -> None:
    """CNI-GC-3: Linux marks the path of a running program whose file has been replaced."""
    node = recording_node
    runtime = node.root / "runtime"
    runtime.write_bytes(Path("/bin/dash").read_bytes())
    runtime.chmod(0o755)
    pod = node.pod("")
    replaced = (str(runtime), "-c", f'rm {runtime}; "$0"; exit $?')
    assert node.add(pod, prefix=replaced).exit_code == 0
    runtime.write_bytes(Path("/bin/dash").read_bytes())
    runtime.chmod(0o755)
    collect = node.stdin(None, "1.1.0", **{"cni.dev/valid-attachments": []})
    reply = node.call("GC", None, stdin=collect, prefix=(str(runtime), "-c", '"$0"; exit $?'))
    assert (reply.exit_code, reply.stdout) == (0, b"")
    assert node.records() == []


def test_default_routes_by_an_interface_that_is_not_there_are_told_and_undone(
    recording_node: Node,
) -> None:
    """NPWG-27, CNI-DEL-6: the network's plugin makes no interface at all."""
    node = recording_node
    node.define("extra", noop_network(node.root, "extra"))
    reply = node.add(node.pod('[{"name": "extra", "default-route": ["10.1.1.1"]}]'), timeout=20)
    assert (reply.exit_code, reply.code) == (1, 7)
    assert "net1" in reply.msg
    deleted = [c["env"]["CNI_IFNAME"] for c in node.noop_calls() if c["command"] == "DEL"]
    assert deleted == ["net1", "eth0"]
    assert (node.records(), node.locks()) == ([], [])


@pytest.mark.parametrize("field", ["msg", "details"])
@pytest.mark.parametrize("daemon", ["serving", "gone"])
@pytest.mark.parametrize("words", ["lease not found", "open x: no such file or directory"])
def test_no_del_error_holds_words_that_containerd_takes_for_a_success(
    recording_node: Node, field: str, daemon: str, words: str
) -> None:
    """go-cni's Remove passes over "not found", and without a netns over ENOENT's text; details
    are part of the text that it looks at."""
    node = recording_node
    behaviour = {"print": json.dumps({"code": 90, "msg": "odd", field: words}), "exit": 1}
    node.define("odd", noop_network(node.root, "odd", onDEL=behaviour))
    pod = node.pod("odd")
    assert node.add(pod).exit_code == 0
    if daemon == "gone":
        node.kill()
    (node.root / "plugins" / "noop2").unlink(missing_ok=True)
    reply = node.delete(pod, CNI_NETNS="")
    assert reply.code == (90 if daemon == "serving" else 11)
    told = reply.stdout.decode()
    assert words[:4] in told
    assert "not found" not in told
    assert "no such file or directory" not in told


def test_a_missing_plugin_in_a_replay_is_no_success_for_containerd(recording_node: Node) -> None:
    node = recording_node
    node.plugin("passing")
    network = noop_network(node.root, "passing")
    network["plugins"][0]["type"] = "passing"
    node.define("passing", network)
    pod = node.pod("passing")
    assert node.add(pod).exit_code == 0
    node.kill()
    (node.root / "plugins" / "passing").unlink()
    reply = node.delete(pod)
    assert reply.code == 11
    assert "passing" in reply.msg
    assert "not found" not in reply.stdout.decode()


def test_a_stopped_daemon_hears_of_requests_too_late_to_do_anything(recording_node: Node) -> None:
    """A daemon that hangs before the request: an honest answer in time, and nothing runs late."""
    node = recording_node
    node.configure_shim(add_wait_ms=500, status_wait_ms=500)
    pod = node.pod("")
    node.signal_daemon(signal.SIGSTOP)
    assert node.add(pod).code == 11
    assert node.call("CHECK", pod).code == 11
    assert node.call("STATUS", None, stdin=node.stdin(None, "1.1.0")).code == 50
    assert node.delete(pod).exit_code == 0
    node.signal_daemon(signal.SIGCONT)
    other = node.pod("")
    assert node.add(other).exit_code == 0  # served after all that was queued before it
    ids = {call["env"]["CNI_CONTAINERID"] for call in node.noop_calls()}
    assert ids == {other.container_id}
    assert node.delete(other).exit_code == 0
    assert (node.records(), node.locks()) == ([], [])


def test_a_disk_without_inodes_fails_no_del(recording_node: Node) -> None:
    """DEL needs no space: not even for its first tombstone."""
    node = recording_node
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    disk = node.root / "state"
    record = (disk / "attachments" / f"{pod.container_id}@eth0").read_bytes()
    options = "size=1m,mode=0700,nr_inodes=8"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", str(disk)], check=True)
    try:
        (disk / "attachments").mkdir(mode=0o700)
        (disk / "attachments" / f"{pod.container_id}@eth0").write_bytes(record)
        with contextlib.suppress(OSError):
            for number in range(8):
                (disk / f"filler{number}").touch()
        assert node.delete(pod).exit_code == 0
        assert node.entries("state", "tombstones") == []
        assert (node.records(), node.locks()) == ([], [])
        late = node.pod("")
        assert node.add(late).exit_code == 0
        assert node.delete(late).exit_code == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    ("call", "file"),
    [("fsync", "state/attachments/.{id}@eth0"), ("write", "state/attachments/{id}@eth0")],
    ids=["the plan's", "the results'"],
)
def test_a_record_that_can_not_be_written_undoes_the_add(
    recording_node: Node, call: str, file: str
) -> None:
    """CNI-DEL-6: a disk that fails, before the first delegate and after the last."""
    node = recording_node
    pod = node.pod("")
    path = str(node.root / file.format(id=pod.container_id))
    fault = ("-P", path, "-e", f"trace={call}", "-e", f"inject={call}:error=EIO")
    reply = node.add(pod, prefix=("strace", "-qq", "-o", "/dev/null", *fault))
    assert (reply.exit_code, reply.code) == (1, 5)
    assert "record" in reply.msg
    commands = [call["command"] for call in node.noop_calls()]
    assert commands == ([] if file.startswith("state/attachments/.") else ["ADD", "DEL"])
    assert (node.records(), node.locks()) == ([], [])


def test_a_pod_of_the_longest_name_has_its_status(recording_node: Node) -> None:
    """A namespace of 63 and a name of 253 characters fit no file name."""
    node = recording_node
    pod = node.pod("", name=f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}", namespace="n" * 63)
    assert node.add(pod).exit_code == 0
    assert len(node.entries("status")) == 1
    assert node.delete(pod).exit_code == 0
    assert node.entries("status") == []
    assert "not written" not in node.log.read_text()


def test_a_caller_that_is_not_root_gets_no_greeting(recording_node: Node) -> None:
    """DESIGN section 2: the peer is checked, beside the folder's mode."""
    node = recording_node
    program = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1])\n"
        "sys.exit(7 if s.recv(100) == b'' else 8)\n"
    )
    socket_path = node.root / "run" / "daemon.sock"
    for path, mode in ((node.root, 0o755), (node.root / "run", 0o755), (socket_path, 0o666)):
        path.chmod(mode)
    stranger = ["/usr/bin/python3", "-c", program, str(socket_path)]
    assert subprocess.run(stranger, check=False, timeout=30).returncode == 7
    (node.root / "run").chmod(0o700)
    assert "not root" in node.log.read_text()
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0


def test_a_daemon_that_stops_in_the_middle_of_a_del_does_nothing_later(
    recording_node: Node,
) -> None:
    """The shim gives it up and does the whole DEL by itself."""
    node = recording_node
    node.configure_shim(silence_ms=1000)
    flag = node.root / "slow"
    script = node.plugin("lingering")
    slow = f"if command == 'DEL' and os.path.exists({str(flag)!r}):\n        time.sleep(3)"
    text = script.read_text().replace("    misbehave(", f"    {slow}\n    misbehave(", 1)
    script.write_text(text)
    network = noop_network(node.root, "lingering")
    network["plugins"][0]["type"] = "lingering"
    node.define("lingering", network)
    pod = node.pod("lingering")
    assert node.add(pod).exit_code == 0
    flag.touch()
    deleting = node.popen("DEL", pod)
    assert deleting.stdin is not None
    deleting.stdin.write(node.stdin(pod))
    deleting.stdin.close()
    deleting.stdin = None
    wait_until(lambda: node.noop_calls()[-1]["command"] == "DEL")
    node.signal_daemon(signal.SIGSTOP)
    flag.unlink()
    out, _ = deleting.communicate(timeout=40)
    assert (deleting.returncode, out) == (0, b"")
    assert node.records() == []
    count = len(node.noop_calls())
    node.signal_daemon(signal.SIGCONT)
    other = node.pod("")
    assert node.add(other).exit_code == 0
    assert len(node.noop_calls()) == count + 1
    assert node.delete(other).exit_code == 0
    assert (node.records(), node.locks()) == ([], [])
