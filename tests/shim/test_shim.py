"""The shim against a daemon that a test plays: what it runs, what it believes, when it gives up."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from metaplugin.wire.container import Section, encode_section
from metaplugin.wire.frames import (
    HEADER,
    Alive,
    Answered,
    Append,
    Exec,
    Executed,
    Find,
    Forget,
    Found,
    Frame,
    Hello,
    Lend,
    Lock,
    Locked,
    Netns,
    NetnsState,
    Note,
    Outcome,
    Save,
    Saved,
    Stat,
    Stated,
    decode_environment,
)
from tests.shim.peer import Conversation, Surroundings

FALLBACKS = 16
BUILD = Path(__file__).parents[2] / "build"
SHIM, SANITIZED = BUILD / "metaplugin-shim", BUILD / "metaplugin-shim-sanitized"


@pytest.fixture(params=[SHIM, SANITIZED], ids=["shim", "sanitized"])
def at(request: pytest.FixtureRequest) -> Iterator[Surroundings]:
    root = Path(tempfile.mkdtemp(prefix="mp", dir="/run"))
    yield Surroundings(root, request.param)
    shutil.rmtree(root)


@pytest.fixture
def turns(at: Surroundings) -> Iterator[int]:
    """Have all turns of those in a daemon's place taken; give how many they are."""
    with open(at.root / "run" / "turns", "wb") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, FALLBACKS)
        yield FALLBACKS


def error(reply: subprocess.CompletedProcess[bytes]) -> tuple[int, str]:
    """Return code and message; the sanitizers must have had nothing to say."""
    assert reply.returncode == 1, reply
    assert b"runtime error" not in reply.stderr
    parsed = json.loads(reply.stdout)
    assert set(parsed) == {"cniVersion", "code", "msg"}
    return parsed["code"], parsed["msg"]


def test_it_is_small() -> None:
    """DESIGN section 1."""
    assert SHIM.stat().st_size <= 100_000
    assert b"ld-musl" not in SHIM.read_bytes()


def test_an_answer_reaches_the_runtime(at: Surroundings) -> None:
    def serve(shim: Conversation) -> None:
        request = shim.open()
        environment = decode_environment(request.environment)
        assert environment["CNI_COMMAND"] == "STATUS"
        assert all(name.startswith("CNI_") for name in environment)
        assert request.stdin == b"the input \xff"
        assert request.runtime.decode() == os.path.realpath("/proc/self/exe")
        assert shim.answer(3, b"the answer").errno == 0

    with at.daemon(serve):
        reply = at.call(stdin=b"the input \xff")
    assert (reply.returncode, reply.stdout) == (3, b"the answer")


def test_it_tries_again_when_a_daemon_goes_before_the_request(at: Surroundings) -> None:
    def go(shim: Conversation) -> None:
        shim.connection.shutdown(socket.SHUT_RDWR)

    def serve(shim: Conversation) -> None:
        shim.open()
        shim.answer()

    with at.daemon(go, serve):
        assert at.call().returncode == 0


def test_few_are_at_work_in_a_daemons_place_at_once(at: Surroundings) -> None:
    """A node that boots has a hundred pods to start, and memory for fewer interpreters."""
    here, log = at.root / "here", at.root / "log"
    here.mkdir()
    program = at.script(
        "fallback",
        f"""
        : >{here}/$$
        ls {here} | wc -l >>{log}
        sleep 0.2
        rm {here}/$$""",
    )
    at.configure(fallback=program, status_wait_ms=0, lock_wait_ms=20000, silence_ms=10000)
    with ThreadPoolExecutor(max_workers=40) as callers:
        list(callers.map(lambda _: at.call(), range(40)))
    counts = [int(line) for line in log.read_text().split()]
    assert len(counts) == 40
    assert 1 < max(counts) <= FALLBACKS


def test_whose_turn_does_not_come_is_told(at: Surroundings, turns: int) -> None:
    at.configure(fallback=at.script("fallback", "exit 1"), status_wait_ms=0)
    found, message = error(at.call())
    assert found == 50
    assert f"can't be replaced: {turns} processes are at work in its place" in message


def test_a_daemon_that_comes_meanwhile_serves(at: Surroundings, turns: int) -> None:
    def serve(shim: Conversation) -> None:
        shim.open()
        shim.answer(0, f"{turns} were busy".encode())

    at.configure(fallback="/nowhere", status_wait_ms=0, lock_wait_ms=20000)
    with ThreadPoolExecutor(max_workers=1) as callers:
        waiting = callers.submit(at.call)
        time.sleep(0.5)
        with at.daemon(serve):
            assert waiting.result().stdout == b"16 were busy"


@pytest.mark.parametrize(
    ("command", "code"), [("STATUS", 50), ("GC", 11), ("CHECK", 11), ("ADD", 11)]
)
def test_without_a_daemon_it_says_so(at: Surroundings, command: str, code: int) -> None:
    with sandbox(at) as netns:
        found, message = error(at.call(command, CNI_NETNS=netns))
    assert found == code
    assert "daemon can't be reached: No such file or directory, tried for" in message
    assert ("status_wait_ms" if command == "STATUS" else "add_wait_ms") in message


class sandbox:  # noqa: N801 - reads as the context manager that it is
    """A network namespace for a while."""

    def __init__(self, at: Surroundings) -> None:
        self.name = at.root.name

    def __enter__(self) -> str:
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        return f"/run/netns/{self.name}"

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True)


HOSTILE = {
    "unknown kind": HEADER.pack(99, 0),
    "giant length": HEADER.pack(Exec.KIND, 0xFFFFFFFF),
    "no frame": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "reply in place of request": Executed(0, 0, b"", b"").encode(),
    "another hello": Hello(1, 1).encode(),
    "exec cut short": HEADER.pack(Exec.KIND, 6) + b"\0\0\0\1\0\0",
    "exec blob beyond": HEADER.pack(Exec.KIND, 8) + b"\0\0\0\1\xff\xff\xff\xff",
    "exec with more": HEADER.pack(Exec.KIND, 20) + b"\0" * 20,
    "exec with path": Exec(9, b"p", b"CNI_PATH=/tmp\0", b"").encode(),
    "exec with preload": Exec(9, b"p", b"LD_PRELOAD=/tmp/x\0", b"").encode(),
    "exec unended": Exec(9, b"p", b"CNI_COMMAND=ADD", b"").encode(),
    "find empty": HEADER.pack(Find.KIND, 0),
    "alive with more": HEADER.pack(Alive.KIND, 3) + b"abc",
    "answer cut short": HEADER.pack(17, 4) + b"\0\0\0\0",
    "answer with more": HEADER.pack(17, 9) + b"\0" * 9,
    "record note": Note(b"{}").encode(),
    "header cut short": b"\0\0",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_frame_ends_the_conversation(at: Surroundings, data: bytes) -> None:
    def serve(shim: Conversation) -> None:
        shim.open()
        shim.connection.sendall(data)
        shim.connection.shutdown(socket.SHUT_WR)
        with pytest.raises((EOFError, ConnectionError)):
            shim.receive(Answered)

    at.script("p", "touch $0.ran")
    with at.daemon(serve):
        assert error(at.call())[0] == 50
    assert not (at.root / "plugins" / "p.ran").exists()


@pytest.mark.parametrize(("minimum", "maximum"), [(2, 9), (0, 0)])
def test_a_daemon_of_other_versions_is_told_apart(
    at: Surroundings, minimum: int, maximum: int
) -> None:
    def serve(shim: Conversation) -> None:
        shim.send(Hello(minimum, maximum))
        assert shim.connection.recv(1) == b""

    at.configure(status_wait_ms=60)
    with at.daemon(serve):
        code, message = error(at.call())
    assert code == 50
    assert f"versions {minimum} to {maximum}" in message


def test_a_silent_daemon_is_given_up_and_its_plugin_killed(at: Surroundings) -> None:
    def serve(shim: Conversation) -> None:
        shim.open()
        with pytest.raises((EOFError, ConnectionError)):
            shim.execute("slow", ms=20000)

    at.script("slow", "echo $$ > $0.pid; sleep 30 & wait")
    started = time.monotonic()
    with at.daemon(serve):
        code, message = error(at.call())
    assert time.monotonic() - started < 5
    assert (code, "no sign of life for 600 ms" in message) == (50, True)
    pid = int((at.root / "plugins" / "slow.pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
    assert b"sleep\x0030" not in b"".join(
        p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline")
    )


def test_a_plugins_del_goes_on_when_the_daemon_is_lost(at: Surroundings) -> None:
    """CNI-DEL-7: what a DEL cut short had still to do, no later one may find."""

    def serve(shim: Conversation) -> None:
        shim.open()
        shim.send(Exec(9000, b"slow", b"CNI_COMMAND=DEL\0", b""))

    log = at.script("slow", "sleep 0.5; echo $CNI_COMMAND done >> $0.log").with_suffix(".log")
    with at.daemon(serve):
        assert at.call("DEL").returncode == 0
    assert log.read_text() == "DEL done\n"


def test_signs_of_life_keep_a_slow_plugin_going(at: Surroundings) -> None:
    def serve(shim: Conversation) -> None:
        shim.open()
        shim.send(Exec(9000, b"slow", b"CNI_COMMAND=ADD\0", b""))
        for _ in range(6):
            time.sleep(0.25)
            shim.send(Alive())
        assert shim.receive(Executed) == Executed(Outcome.EXITED, 0, b"done\n", b"")
        shim.answer()

    at.script("slow", "sleep 1; echo done")
    with at.daemon(serve):
        assert at.call().returncode == 0


def ends(at: Surroundings, plugin: str, *, ms: int = 5000, stdin: bytes = b"{}") -> Executed:
    """Return how a plugin's execution ended."""
    found: list[Executed] = []

    def serve(shim: Conversation) -> None:
        shim.open()
        found.append(shim.execute(plugin, ms=ms, stdin=stdin))
        shim.answer()

    at.configure(silence_ms=9000)
    with at.daemon(serve):
        assert at.call().returncode == 0
    return found[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", (Outcome.EXITED, 0, b"{}")),
        ("exit 3", (Outcome.EXITED, 3, b"")),
        ("kill -SEGV $$", (Outcome.SIGNALLED, 11, b"")),
        ("exec >&-; exit 0", (Outcome.EXITED, 0, b"")),
        ("echo a; sleep 30 & exit 0", (Outcome.EXITED, 0, b"a\n")),
        ("head -c 100000000 /dev/zero", (Outcome.TOO_MUCH_OUTPUT, 0, b"")),
    ],
    ids=["answers", "fails", "dies", "closes stdout", "leaves a child with stdout", "100 MB"],
)
def test_how_a_plugin_ended(at: Surroundings, text: str, expected: tuple[int, int, bytes]) -> None:
    at.script("p", text)
    executed = ends(at, "p")
    assert (executed.outcome, executed.status, executed.stdout) == expected


def test_a_plugin_that_never_ends_is_killed_at_its_deadline(at: Surroundings) -> None:
    at.script("p", "sleep 30 & wait")
    started = time.monotonic()
    assert ends(at, "p", ms=300).outcome == Outcome.DEADLINE
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("plugin", ["", ".", "..", "/bin/sh", "a/b", "a" * 300, "a\0b"], ids=ascii)
def test_a_type_that_is_no_file_name_is_refused(at: Surroundings, plugin: str) -> None:
    """CNI-DLG-13."""
    assert ends(at, plugin).outcome == Outcome.REFUSED


def test_a_missing_and_an_unusable_plugin(at: Surroundings) -> None:
    at.script("plain", "").chmod(0o644)
    (at.root / "plugins" / "broken").write_bytes(b"\x7fELF no")
    (at.root / "plugins" / "broken").chmod(0o755)
    assert ends(at, "nowhere").outcome == Outcome.NOT_FOUND
    assert ends(at, "plain") == Executed(Outcome.NOT_STARTED, errno.EACCES, b"", b"")
    assert ends(at, "broken") == Executed(Outcome.NOT_STARTED, errno.ENOEXEC, b"", b"")


def test_a_plugin_that_reads_nothing_gets_16_mib_all_the_same(at: Surroundings) -> None:
    at.script("p", "exit 0")
    assert ends(at, "p", stdin=b"x" * (16 << 20)).outcome == Outcome.EXITED


def test_a_plugin_gets_all_of_a_large_input(at: Surroundings) -> None:
    """CNI-DLG-21, CNI-IN-6."""
    at.script("p", "wc -c")
    assert ends(at, "p", stdin=b"x" * (16 << 20)).stdout.split() == [b"16777216"]


def test_a_plugins_environment_is_the_runtimes_with_its_own_cni(at: Surroundings) -> None:
    """DESIGN section 2; CNI-DLG-8."""

    def serve(shim: Conversation) -> None:
        shim.open()
        executed = shim.execute("p", CNI_IFNAME="net1", CNI_ARGS="A=B")
        got = dict(line.split("=", 1) for line in executed.stdout.decode().splitlines())
        assert got.pop("PATH") == os.environ["PATH"]
        assert got.pop("FROM_RUNTIME") == "yes"
        assert got.pop("CNI_PATH") == f"{at.root / 'plugins'}:/opt/more"
        cni = {key: value for key, value in got.items() if key.startswith("CNI_")}
        assert cni == {"CNI_COMMAND": "ADD", "CNI_IFNAME": "net1", "CNI_ARGS": "A=B"}
        shim.answer()

    at.configure(plugin_dirs="/opt/more")
    at.script("p", "env")
    with at.daemon(serve):
        path = f"relative:{at.root / 'plugins'}::."
        assert at.call(FROM_RUNTIME="yes", CNI_PATH=path).returncode == 0


def test_a_plugins_errors_reach_both_the_runtime_and_the_daemon(at: Surroundings) -> None:
    """CNI-ERR-6."""
    at.script("p", "echo because >&2; head -c 200000 /dev/zero | tr '\\0' x >&2")

    def serve(shim: Conversation) -> None:
        shim.open()
        assert shim.execute("p").stderr == b"x" * 65536
        shim.answer()

    with at.daemon(serve):
        assert at.call().stderr.startswith(b"because\nxxx")


def test_plugins_can_be_looked_for(at: Surroundings) -> None:
    at.script("here", "")
    at.script("plain", "").chmod(0o644)

    def serve(shim: Conversation) -> None:
        shim.open()
        found = []
        for name in (b"here", b"plain", b"nowhere", b"../here"):
            shim.send(Find(name))
            found.append(shim.receive(Found))
        path = str(at.root / "plugins" / "here").encode()
        assert found == [
            Found(0, path),
            Found(errno.EACCES, b""),
            Found(errno.ENOENT, b""),
            Found(errno.EINVAL, b""),
        ]
        shim.answer()

    with at.daemon(serve):
        assert at.call().returncode == 0


def test_paths_can_be_asked_about(at: Surroundings) -> None:
    def serve(shim: Conversation) -> None:
        shim.open()
        states = []
        for path in (netns, "/proc/self/ns/net", "/etc/passwd", "/nowhere", "/proc/self/ns/mnt"):
            shim.send(Stat(path.encode()))
            states.append(NetnsState(shim.receive(Stated).state))
        assert states == [
            NetnsState.VALID,
            NetnsState.HOST,
            NetnsState.NOT_A_NETNS,
            NetnsState.MISSING,
            NetnsState.NOT_A_NETNS,
        ]
        shim.answer()

    with sandbox(at) as netns, at.daemon(serve):
        assert at.call().returncode == 0


def test_records_are_kept_extended_and_forgotten(at: Surroundings) -> None:
    folder, tombstones = at.root / "state" / "attachments", at.root / "state" / "tombstones"

    def serve(shim: Conversation) -> None:
        shim.open()

        def keep(frame: Frame) -> int:
            shim.send(frame)
            return shim.receive(Saved).errno

        assert keep(Save(b"c1@eth0", b"one")) == 0
        assert keep(Append(b"c1@eth0", b"two")) == 0
        assert (folder / "c1@eth0").read_bytes() == b"onetwo"
        assert (folder / "c1@eth0").stat().st_mode & 0o777 == 0o600
        assert keep(Save(b"c1@eth0", b"three")) == 0
        assert (folder / "c1@eth0").read_bytes() == b"three"
        assert keep(Append(b"c2@eth0", b"x")) == errno.ENOENT
        assert keep(Forget(b"c1@eth0")) == 0
        assert keep(Forget(b"never")) == 0
        for name in (b"", b".", b"..", b"../x", b"a/b", b".hidden", b"a" * 300, b"a\0b"):
            for frame in (Save(name, b""), Append(name, b""), Forget(name)):
                assert keep(frame) == errno.EINVAL
        shim.answer()

    with at.daemon(serve):
        assert at.call().returncode == 0
    assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tombstones.iterdir()) == ["c1@eth0", "never"]
    assert (tombstones / "c1@eth0").read_bytes() == b""


def test_a_link_in_the_way_is_not_followed(at: Surroundings) -> None:
    target = at.root / "target"
    target.write_text("untouched")
    folder = at.root / "state" / "attachments"
    folder.mkdir(parents=True, mode=0o700)
    (folder / ".c1@eth0").symlink_to(target)
    (folder / "c2@eth0").symlink_to(target)

    def serve(shim: Conversation) -> None:
        shim.open()
        for frame in (Save(b"c1@eth0", b"x"), Append(b"c2@eth0", b"x")):
            shim.send(frame)
            assert shim.receive(Saved).errno == errno.ELOOP
        shim.answer()

    with at.daemon(serve):
        assert at.call().returncode == 0
    assert target.read_text() == "untouched"


def test_another_sandboxs_lock_can_be_tried(at: Surroundings) -> None:
    def lock(shim: Conversation, name: bytes) -> int:
        shim.send(Lock(name))
        return shim.receive(Locked).errno

    def serve(shim: Conversation) -> None:
        shim.open()
        assert lock(shim, b"c1") == 0
        assert error(at.call("CHECK", CNI_NETNS=netns))[0] == 11  # it waits for the lock in vain
        assert lock(shim, b"") == 0
        assert lock(shim, b"../x") == errno.EINVAL
        assert lock(shim, b"c2") == 0
        shim.answer()

    at.configure(silence_ms=9000)
    with sandbox(at) as netns, at.daemon(serve):
        assert at.call().returncode == 0
    assert list((at.root / "run" / "locks").iterdir()) == []


def test_a_lent_shim_serves_on_after_its_answer(at: Surroundings) -> None:
    at.script("p", "echo late")

    def serve(shim: Conversation) -> None:
        shim.open()
        shim.send(Lend(30))
        assert shim.answer(0, b"first").errno == 0
        assert ended.wait(10)
        assert shim.execute("p").stdout == b"late\n"

    ended = threading.Event()
    at.configure(silence_ms=20000)
    with at.daemon(serve):
        assert at.call().stdout == b"first"
        ended.set()


def test_an_answer_that_nobody_reads_is_told_to_the_daemon(at: Surroundings) -> None:
    outcomes: list[int] = []

    def serve(shim: Conversation) -> None:
        shim.open()
        outcomes.append(shim.answer(0, b"lost").errno)
        outcomes.append(shim.execute("p").outcome)

    at.script("p", "exit 0")
    with at.daemon(serve):
        reader, writer = os.pipe()
        os.close(reader)
        environment = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(at.root / "plugins")}
        process = subprocess.run(
            [at.shim], check=False, stdin=subprocess.DEVNULL, stdout=writer, env=environment
        )
        os.close(writer)
    assert process.returncode == 1
    assert outcomes == [errno.EPIPE, Outcome.EXITED]


def test_a_netlink_socket_of_the_sandbox_comes_with_the_request(at: Surroundings) -> None:
    def serve(shim: Conversation) -> None:
        request = shim.open()
        status = Path(netns).stat()
        assert (request.netns_state, request.netns_inode) == (NetnsState.VALID, status.st_ino)
        assert request.netns_device == status.st_dev
        with socket.socket(fileno=os.dup(shim.descriptors[0])) as netlink:
            netlink.send(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))
            links = netlink.recv(65536)
        assert b"lo\0" in links
        assert b"eth1" not in links
        shim.answer()

    with sandbox(at) as netns, at.daemon(serve):
        assert at.call("ADD", CNI_NETNS=netns).returncode == 0


CONFIGURATIONS = {
    "unknown key": ("run_dri=/x\n", 'unknown key "run_dri"'),
    "no value": ("run_dir\n", "is not key=value"),
    "relative": ("state_dir=here\n", 'bad value "here" of state_dir'),
    "no number": ("add_wait_ms=soon\n", 'bad value "soon" of add_wait_ms'),
    "negative": ("silence_ms=-1\n", 'bad value "-1" of silence_ms'),
}


@pytest.mark.parametrize(("text", "message"), CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_a_bad_configuration_is_told_with_its_line(
    at: Surroundings, text: str, message: str
) -> None:
    at.configure(text)
    code, found = error(at.call())
    assert code == 7
    assert message in found
    assert "metaplugin.conf:9:" in found


@pytest.mark.parametrize(("mode", "owner"), [(0o666, 0), (0o620, 0), (0o600, 1)])
def test_a_configuration_that_others_could_have_written_is_refused(
    at: Surroundings, mode: int, owner: int
) -> None:
    path = at.root / "bin" / "metaplugin.conf"
    path.chmod(mode)
    os.chown(path, owner, 0)
    code, message = error(at.call())
    assert code == 7
    assert "owned by root" in message


@pytest.mark.parametrize(("mode", "owner"), [(0o775, 0), (0o757, 0), (0o700, 1), (0o755, 1)])
def test_a_socket_folder_that_others_can_write_to_is_refused(
    at: Surroundings, mode: int, owner: int
) -> None:
    """DESIGN section 2."""
    run = at.root / "run"
    run.chmod(mode)
    os.chown(run, owner, 0)
    code, message = error(at.call())
    assert code == 5
    assert "must be owned by root with mode 0700" in message


def test_a_socket_folder_that_a_kubelet_made_is_closed_to_others(at: Surroundings) -> None:
    """Made as 0755 for the daemon's pod, after each boot, before there is a daemon to close it."""
    run = at.root / "run"
    run.chmod(0o755)
    at.configure(add_wait_ms=0)
    code, message = error(at.call())
    assert (code, "must be owned by root" in message) == (50, False)
    assert run.stat().st_mode & 0o777 == 0o700


def test_a_daemon_that_is_not_root_is_not_believed(at: Surroundings) -> None:
    """DESIGN section 2: who owns the listening socket counts."""
    program = (
        "import os,socket,sys,time; os.setuid(1); s=socket.socket(socket.AF_UNIX);"
        "s.bind(sys.argv[1]); s.listen(); time.sleep(20)"
    )
    path = at.root / "run" / "daemon.sock"
    at.configure(run_dir=at.root / "run")
    (at.root).chmod(0o755)
    (at.root / "run").chmod(0o777)
    python = ["/usr/bin/python3", "-c", program, str(path)]
    with subprocess.Popen(python) as imposter:
        while not path.exists():
            time.sleep(0.02)
        (at.root / "run").chmod(0o700)
        code, message = error(at.call())
        imposter.kill()
    assert code == 50
    assert "doesn't run as root" in message


def record(at: Surroundings, content: bytes, name: str = "c1@eth0") -> Path:
    path = at.root / "state" / "attachments" / name
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    path.write_bytes(content)
    return path


def section(at: Surroundings, netns: str, *plugins: str) -> bytes:
    inode = Path(netns).stat() if netns else os.stat("/")
    environment = b"CNI_COMMAND=DEL\0CNI_NETNS=/recorded\0CNI_IFNAME=net1\0"
    calls = tuple(Exec(2000, p.encode(), environment, b'{"x": 1}') for p in plugins)
    location = Netns(netns.encode(), inode.st_dev, inode.st_ino)
    return encode_section(Section(note=b"{}", netns=location, calls=calls))


def test_a_del_without_a_daemon_does_what_the_record_says(at: Surroundings) -> None:
    """MULTUS-28; the namespace's path is the one where it is now."""
    log = at.root / "log"
    for name in ("p", "q"):
        at.script(name, f'echo "{name} $CNI_COMMAND $CNI_IFNAME <$CNI_NETNS> $(cat)" >> {log}')
    with sandbox(at) as netns:
        path = record(at, section(at, netns, "p", "q"))
        reply = at.call("DEL")
    assert (reply.returncode, reply.stdout) == (0, b"")
    assert log.read_text().splitlines() == [
        f'p DEL net1 <{netns}> {{"x": 1}}',
        f'q DEL net1 <{netns}> {{"x": 1}}',
    ]
    assert not path.exists()
    assert at.call("DEL").returncode == 0
    assert len(log.read_text().splitlines()) == 2


def test_a_plugins_del_goes_on_when_the_shim_is_killed_and_the_next_waits_for_it(
    at: Surroundings,
) -> None:
    """CNI-DEL-7, CNI-DLG-20."""
    at.configure(lock_wait_ms=5000)
    once = "[ -e $0.once ] || { touch $0.once; kill -9 $PPID; }"
    plugin = at.script("p", f"echo begin >> $0.log; {once}; sleep 0.5; echo end >> $0.log")
    path = record(at, section(at, "", "p"))
    assert at.call("DEL").returncode == -signal.SIGKILL
    assert path.exists()
    assert at.call("DEL").returncode == 0
    assert plugin.with_suffix(".log").read_text().split() == ["begin", "end"] * 2
    assert not path.exists()


def test_a_del_removes_what_a_killed_save_left(at: Surroundings) -> None:
    """CNI-DEL-5, CNI-DEL-7."""
    unfinished = record(at, b"half a rec", name=".c1@eth0")
    others = record(at, b"half a rec", name=".c2@eth0")
    assert at.call("DEL").returncode == 0
    assert (unfinished.exists(), others.exists()) == (False, True)


def test_a_replay_tells_plugins_when_the_namespace_is_gone(at: Surroundings) -> None:
    at.script("p", 'echo "<$CNI_NETNS>" >&2')
    with sandbox(at) as netns:
        content = section(at, netns, "p")
    record(at, content)
    assert at.call("DEL", CNI_NETNS=netns).stderr == b"<>\n"


def test_a_replay_tries_all_and_keeps_the_record_on_failure(at: Surroundings) -> None:
    """CNI-DEL-4."""
    at.script("p", """echo '{"code": 7, "msg": "é \\"no\\""}'; exit 1""")
    at.script("q", "touch $0.ran")
    path = record(at, section(at, "", "p", "missing", "q"))
    code, message = error(at.call("DEL"))
    assert code == 11
    assert 'plugin p: exit status 1 {"code": 7, "msg": "é "no""}' in message.replace("\\", "")
    assert "plugin missing: not there" in message
    assert (at.root / "plugins" / "q.ran").exists()
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"MPR1", b"garbage" * 100, b"MPR1" + b"\xff" * 60])
def test_a_damaged_record_is_not_taken_for_nothing(at: Surroundings, content: bytes) -> None:
    """ROB-7."""
    path = record(at, content)
    code, message = error(at.call("DEL"))
    assert code == 11
    assert f"{path} is damaged" in message


def test_every_truncation_of_a_record_ends_in_success_or_code_11(at: Surroundings) -> None:
    """ROB-7."""
    at.script("p", "echo >> $0.runs")
    at.configure(del_wait_ms=0)
    content = section(at, "", "p")
    path = record(at, content)
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        assert error(at.call("DEL"))[0] == 11
    path.write_bytes(content + content[:-3])
    assert at.call("DEL").returncode == 0
    assert (at.root / "plugins" / "p.runs").read_bytes() == b"\n"


def test_version_answers_without_input(at: Surroundings) -> None:
    """CNI-VER-3, CNI-VER-4."""
    assert json.loads(at.call("VERSION", stdin=b"").stdout)["cniVersion"] == "1.1.0"
    nested = b'{"a": {"cniVersion": "9"}, "x": "\\"cniVersion\\"", "cniVersion": "0.3.1"}'
    assert json.loads(at.call("VERSION", stdin=nested).stdout)["cniVersion"] == "0.3.1"


def test_without_a_command_it_tells_people_what_it_is(at: Surroundings) -> None:
    """CNI-ENV-2."""
    reply = at.call("")
    assert error(reply)[0] == 4
    assert b"CNI" in reply.stderr
