"""Killed at a system call chosen from outside, then DEL at once: nothing may remain.

strace kills the shim, or the daemon's loop, at its n-th system call, for n spread over a whole ADD
and a whole DEL of real bridge (with masquerading), portmap, macvlan and host-local.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.node import DEBIAN_PLUGINS, Node, Pod, bridge_network, macvlan_network, new_root

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

Point = tuple[str, int]

SHIM_POINTS = 16  # for each of ADD and DEL
DAEMON_POINTS = 10


@pytest.fixture
def crash_node(eth1: None) -> Iterator[Node]:
    root = new_root()
    default = bridge_network(root)
    default["plugins"][0]["ipMasq"] = True
    default["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    node = Node(root, default, shim_keys={"del_wait_ms": 1000})
    node.define("macvlan", macvlan_network(root))
    node.start()
    yield node
    sys.stdout.write(node.log.read_text()[-20000:])
    node.close()
    subprocess.run(["ip", "link", "del", "br-cbr0"], check=False, capture_output=True)


def request(node: Node, pod: Pod) -> bytes:
    config = json.loads(node.stdin(pod))
    config["runtimeConfig"]["portMappings"] = [
        {"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}
    ]
    return json.dumps(config).encode()


def rules() -> list[str]:
    """Return the packet filter's rules, counters left out."""
    lines = []
    for tool in ("iptables-save", "ip6tables-save"):
        output = subprocess.run([tool], check=True, capture_output=True, text=True).stdout
        lines += [line for line in output.splitlines() if line.startswith("-A")]
    return sorted(lines)


class Baseline:
    """What is there when no pod is, after a first pod came and went."""

    def __init__(self, node: Node) -> None:
        self.node = node
        pod = node.pod("macvlan")
        assert node.add(pod, stdin=request(node, pod)).exit_code == 0
        assert node.delete(pod, stdin=request(node, pod)).exit_code == 0
        self.links = node.host_links()
        self.rules = rules()

    def require(self, pod: Pod, point: str) -> None:
        """Fail unless the node is as before the pod."""
        node = self.node
        left = {
            "pod links": node.pod_links(pod),
            "host links": node.host_links() ^ self.links,
            "leases": node.leases(),
            "rules": [rule for rule in rules() if rule not in self.rules],
            "records": node.records(),
            "locks": node.locks(),
        }
        assert {key: value for key, value in left.items() if value} == {}, point


def system_calls(node: Node, command: str, pod: Pod) -> list[Point]:
    """Return the system calls that a whole command takes the shim."""
    trace = node.root / "trace"
    prefix = ("strace", "-qq", "-o", str(trace))
    assert node.call(command, pod, stdin=request(node, pod), prefix=prefix).exit_code == 0
    return parsed(trace)


def parsed(trace: Path) -> list[Point]:
    """Return each call's name and how many of that name came up to it: so strace counts for
    `when`."""
    seen: Counter[str] = Counter()
    found = []
    for line in trace.read_text().splitlines():
        if match := re.match(r"([a-z_0-9]+)\(", line):
            seen[match[1]] += 1
            found.append((match[1], seen[match[1]]))
    return found


def points(calls: list[Point], count: int) -> list[Point]:
    """Return `count` of the calls, spread evenly from the first to the last."""
    return [calls[(len(calls) - 1) * i // (count - 1)] for i in range(count)]


def killed_at(point: Point) -> tuple[str, ...]:
    name, when = point
    return ("strace", "-qq", "-o", "/dev/null", "-e", f"inject={name}:signal=KILL:when={when}")


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_nothing_remains_when_the_shim_is_killed(crash_node: Node, command: str) -> None:
    """CNI-DEL-6, CNI-DEL-7."""
    node = crash_node
    baseline = Baseline(node)
    pod = node.pod("macvlan")
    added, deleted_by = (system_calls(node, each, pod) for each in ("ADD", "DEL"))
    killed = 0
    for point in points(added if command == "ADD" else deleted_by, SHIM_POINTS):
        pod = node.pod("macvlan")
        stdin = request(node, pod)
        if command == "DEL":
            assert node.add(pod, stdin=stdin).exit_code == 0
        reply = node.call(command, pod, stdin=stdin, prefix=killed_at(point))
        killed += reply.exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        deleted = node.delete(pod, stdin=stdin)
        assert deleted.exit_code == 0, (point, deleted.stdout)
        baseline.require(pod, f"shim killed in {command} at {point}")
    assert killed >= SHIM_POINTS - 2  # how often it polls is not always the same


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_nothing_remains_when_the_daemon_is_killed(crash_node: Node, command: str) -> None:
    """CNI-DEL-7, MULTUS-28: the shim replays the record's DEL by itself."""
    node = crash_node
    baseline = Baseline(node)
    killed = 0
    for point in points(daemon_calls(node, command), DAEMON_POINTS):
        pod = node.pod("macvlan")
        stdin = request(node, pod)
        if command == "DEL":
            assert node.add(pod, stdin=stdin).exit_code == 0
        with traced_daemon(node, "-o", "/dev/null", *killed_at(point)[4:]):
            node.call(command, pod, stdin=stdin, timeout=30)
        killed += node.daemon is not None and node.daemon.poll() == -signal.SIGKILL
        deleted = node.delete(pod, stdin=stdin)
        assert deleted.exit_code == 0, (point, deleted.stdout)
        baseline.require(pod, f"daemon killed in {command} at {point}")
        node.restart()
    assert killed >= DAEMON_POINTS - 3


def daemon_calls(node: Node, command: str) -> list[Point]:
    """Return the system calls that the daemon's loop makes for a whole command."""
    pod = node.pod("macvlan")
    stdin = request(node, pod)
    if command == "DEL":
        assert node.add(pod, stdin=stdin).exit_code == 0
    trace = node.root / "trace"
    with traced_daemon(node, "-o", str(trace)):
        assert node.call(command, pod, stdin=stdin).exit_code == 0
    if command == "ADD":
        assert node.delete(pod, stdin=stdin).exit_code == 0
    return parsed(trace)


@contextlib.contextmanager
def traced_daemon(node: Node, *options: str) -> Iterator[None]:
    """Trace the daemon's first thread, the one of its event loop, from now on."""
    assert node.daemon is not None
    strace = subprocess.Popen(
        ["strace", *options, "-p", str(node.daemon.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert strace.stderr is not None
    assert "attached" in strace.stderr.readline()
    yield
    strace.terminate()
    strace.wait()
    strace.stderr.close()


@pytest.fixture
def slow_host_local(crash_node: Node) -> Path:
    """Make host-local sleep before it does its work."""
    path = crash_node.root / "plugins" / "host-local"
    path.write_text(
        f'#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] && sleep 2\nexec {DEBIAN_PLUGINS}/host-local\n'
    )
    path.chmod(0o755)
    for name in ("bridge", "macvlan", "portmap"):
        shutil.copy(DEBIAN_PLUGINS / name, crash_node.root / "plugins" / name)
    return path


@pytest.mark.parametrize("moment", [0.5, 3.0], ids=["in the bridge's", "in the macvlan's"])
def test_nothing_remains_after_5_seconds_when_the_shim_dies_inside_a_slow_ipam(
    crash_node: Node, slow_host_local: Path, moment: float
) -> None:
    """CNI-DEL-7: the IPAM child survives the kill; the DEL waits for it by the sandbox's lock."""
    node = crash_node
    baseline = Baseline(node)
    pod = node.pod("macvlan")
    stdin = request(node, pod)
    process = node.popen("ADD", pod)
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    time.sleep(moment)
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    started = time.monotonic()
    assert node.delete(pod, stdin=stdin).exit_code == 0
    time.sleep(max(0.0, 5 - (time.monotonic() - started)))
    baseline.require(pod, f"killed after {moment} s")
