"""Private namespaces for the demo: nothing touches the machine, all of it ends with its process.

Mount, network and process namespaces; /run and /var/lib/cni are empty file systems in memory there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

CNI_STATE = Path("/var/lib/cni")
UPLINK, UPLINK_PEER = "eth1", "eth1-switch"


def enter(arguments: Sequence[str]) -> NoReturn:
    """Become the demo in namespaces of its own; this process goes on as their holder."""
    isolation = ["--mount", "--net", "--pid", "--propagation=private", "--mount-proc"]
    inner = [sys.executable, "-m", "metaplugin.demo", "--holder", str(os.getpid()), *arguments]
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", *isolation, "--fork", "--kill-child", *inner])  # noqa: S606, S607 - the user's PATH


@contextlib.contextmanager
def furnished() -> Iterator[None]:
    """Give the namespaces what a node has: /run, the plugins' state, lo and eth1.

    The mount point is removed at the end if it had to be made on the machine.
    """
    missing = [path for path in (CNI_STATE, *CNI_STATE.parents) if not path.exists()]
    CNI_STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    for target in (Path("/run"), CNI_STATE):
        command(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(target)])
    Path("/run/netns").mkdir()
    command(["ip", "link", "set", "lo", "up"])
    command(["ip", "link", "add", UPLINK, "type", "veth", "peer", "name", UPLINK_PEER])
    for link in (UPLINK, UPLINK_PEER):
        command(["ip", "link", "set", link, "up"])
    try:
        yield
    finally:
        command(["umount", "--lazy", str(CNI_STATE)])
        for path in missing:
            path.rmdir()


def command(arguments: Sequence[str]) -> str:
    """Return what a command prints; raise CalledProcessError or TimeoutExpired."""
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=20)
    return done.stdout
