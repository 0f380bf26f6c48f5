"""The control groups that runtimes make: each test's are below a name of their own."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

_WAIT_S = 5  # for processes that have been killed to leave their groups


def remove_cgroups(name: str) -> None:
    """Remove the groups below `name` in every hierarchy."""
    deadline = time.monotonic() + _WAIT_S
    tops = [top for top in Path("/sys/fs/cgroup").glob(f"*/{name}") if top.is_dir()]
    while tops and time.monotonic() < deadline:
        for top in tops:
            groups = [path for path in top.rglob("*") if path.is_dir()]
            for group in [*sorted(groups, reverse=True), top]:
                with contextlib.suppress(OSError):
                    group.rmdir()
        tops = [top for top in tops if top.is_dir()]
        time.sleep(0.02 if tops else 0)
