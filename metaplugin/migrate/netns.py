"""Whether the namespace that an attachment was made in is still at its path."""

from __future__ import annotations

import os
from pathlib import Path

_OWN = "/proc/self/ns/net"


class NetnsProblem(Exception):
    """What is at the path can't be told, or isn't what was attached."""


def netns_identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of the namespace at a path, None when it is gone; raise
    NetnsProblem.

    A process's path is refused: its number may be another process's by now. A path whose folder
    isn't there says that we look from the wrong place, rather than that the namespace is gone.
    """
    if path.startswith("/proc/"):
        raise NetnsProblem(
            f"its network namespace was given as {path}: that process may be another by now"
        )
    if not Path(path).is_absolute() or not Path(path).parent.is_dir():
        raise NetnsProblem(
            f"the folder of its network namespace {path} isn't there: run this on the node itself, "
            "not in a container"
        )
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise NetnsProblem(f"its network namespace {path}: {exc.strerror}") from exc
    own = os.stat(_OWN)
    if found.st_dev != own.st_dev:
        return None  # `ip netns del` and runtimes leave the empty file for a moment
    if found.st_ino == own.st_ino:
        raise NetnsProblem(f"its network namespace {path} is the node's own")
    return found.st_dev, found.st_ino
