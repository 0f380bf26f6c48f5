"""Folders of the state, opened so that no link leads elsewhere: a daemon's container may write in
them, and standalone processes are the host's root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(folder: str | Path, *, within: int | None = None) -> Iterator[int]:
    """Give a descriptor of the folder, by its name in the one that `within` is of. Raise OSError,
    for a link too."""
    descriptor = os.open(folder, _FLAGS, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
