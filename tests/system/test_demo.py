"""The demo runs, and fails loudly when something that it shows isn't so."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
SHIM = Path(os.environ.get("METAPLUGIN_SHIM", REPOSITORY / "build" / "metaplugin-shim"))
LIMIT_S = 55

pytestmark = [pytest.mark.system, pytest.mark.timeout(LIMIT_S + 5)]

# A shim that spoils what the real one has made: the status is right, the kernel isn't as it says.
SPOILING_SHIM = """#!/bin/sh
{shim} || exit
if [ "$CNI_COMMAND" = ADD ]; then
    ip -n "${{CNI_NETNS##*/}}" link set net1 address 02:00:00:00:bb:bb
fi
"""


def demo_command(examples: Path, *options: str, shim: Path = SHIM) -> list[str]:
    program = [sys.executable, "-m", "metaplugin.daemon.cli", "demo"]
    return [*program, "--examples", str(examples), "--shim", str(shim), *options]


def run_demo(examples: Path, *, shim: Path = SHIM) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        demo_command(examples, shim=shim),
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )


def flat(output: str) -> str:
    """Return the output as one line without the panel's borders, which cut long messages."""
    return re.sub(r"[\s│]+", " ", output)


def one_example(folder: Path, name: str, **replaced: str) -> Path:
    """Return a folder with one example, its text changed, and the cluster's files."""
    examples = folder / "examples"
    shutil.copytree(EXAMPLES / "cluster", examples / "cluster")
    text = (EXAMPLES / name).read_text()
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (examples / name).write_text(text)
    return examples


def machine() -> tuple[str, bool, list[str]]:
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    return links.stdout, Path("/var/lib/cni").exists(), sorted(os.listdir("/run"))


def test_the_demo_shows_every_example_and_touches_nothing_of_the_machine() -> None:
    before = machine()
    done = run_demo(EXAMPLES)
    assert done.returncode == 0, done.stdout
    for path in EXAMPLES.glob("*.yaml"):
        assert f"examples/{path.name}" in done.stdout
    assert "All of it is so" in done.stdout
    assert "NOT SO" not in done.stdout
    assert before == machine()


def test_a_network_whose_plugin_is_missing_fails_the_demo_by_name(tmp_path: Path) -> None:
    examples = one_example(tmp_path, "macvlan.yaml", **{'"macvlan"': '"nosuchplugin"'})
    done = run_demo(examples)
    assert done.returncode == 1, done.stdout
    assert "THE DEMO FAILED" in done.stdout
    assert "ADD default/macvlan-a failed: code" in flat(done.stdout)
    assert "nosuchplugin" in done.stdout


@pytest.mark.parametrize(
    ("annotation", "problem"), [("'[{]'", "no JSON"), ("'[5]'", "networks[0]")]
)
def test_an_annotation_that_is_none_fails_the_demo_in_the_daemons_words(
    tmp_path: Path, annotation: str, problem: str
) -> None:
    examples = one_example(tmp_path, "two-bridges.yaml", **{"storage, backup@backup0": annotation})
    done = run_demo(examples)
    assert done.returncode == 1
    assert problem in flat(done.stdout)
    assert "Traceback" not in done.stdout


def test_a_request_that_a_plugin_ignores_fails_the_demo(tmp_path: Path) -> None:
    """The network declares `mac`, but ptp knows no such capability and makes up an address."""
    examples = one_example(
        tmp_path, "static-ip-and-mac.yaml", **{'"type": "bridge"': '"type": "ptp"'}
    )
    done = run_demo(examples)
    assert done.returncode == 1, done.stdout
    assert "net2 has the MAC address asked for, 02:00:00:00:71:63: expected" in flat(done.stdout)


def test_a_status_that_differs_from_the_kernel_fails_the_demo(tmp_path: Path) -> None:
    spoiling = tmp_path / "shim"
    spoiling.write_text(SPOILING_SHIM.format(shim=SHIM))
    spoiling.chmod(0o755)
    done = run_demo(one_example(tmp_path, "same-network-twice.yaml"), shim=spoiling)
    assert done.returncode == 1, done.stdout
    assert "of net1 are the kernel's: expected {'mac': '02:00:00:00:bb:bb'" in flat(done.stdout)
    assert "CHECK" in flat(done.stdout).partition("THE DEMO FAILED")[2]


@contextlib.contextmanager
def kept_demo(examples: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `demo --keep` until it waits; give it and the process in the namespaces."""
    command = demo_command(examples, "--keep")
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        try:
            assert demo.stdout is not None
            said = ""
            while "Everything is deleted on" not in said:
                line = demo.stdout.readline()
                assert line, said
                said += line
            children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
            yield demo, int(children[0])
        finally:
            demo.kill()  # its namespaces end with it


def end(demo: subprocess.Popen[str], inner: int) -> str:
    """Let a kept demo go on to its end, as Ctrl-C does; return the rest of what it says."""
    time.sleep(0.1)  # from the message to the wait itself
    os.kill(inner, signal.SIGINT)
    return demo.communicate(timeout=LIMIT_S)[0]


def test_kept_pods_can_be_looked_at_and_go_in_the_end(tmp_path: Path) -> None:
    with kept_demo(one_example(tmp_path, "macvlan.yaml")) as (demo, inner):
        look = ["nsenter", "--target", str(demo.pid), "--mount", "--net"]
        address = ["ip", "-n", "cni-macvlan-a", "-br", "address", "show", "net1"]
        shown = subprocess.run([*look, *address], capture_output=True, text=True, check=True)
        rest = end(demo, inner)
    assert "192.168.101." in shown.stdout
    assert demo.returncode == 0, rest


def test_a_link_that_nobody_deleted_fails_the_demo(tmp_path: Path) -> None:
    with kept_demo(one_example(tmp_path, "ports-and-bandwidth.yaml")) as (demo, inner):
        stray = ["ip", "link", "add", "stray", "type", "veth", "peer", "name", "strayed"]
        subprocess.run(["nsenter", "--target", str(demo.pid), "--net", *stray], check=True)
        rest = end(demo, inner)
    assert demo.returncode == 1, rest
    assert "left behind (links): veth stray" in flat(rest)
