"""Files put in the place of others: whole or not at all, durable, and only where something changes.

A folder is locked while a file in it is replaced, so that installers and daemons take turns, and
one name for the unfinished file does: whoever comes next removes what a crash has left.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_WAIT_S = 60  # another installer copies a runtime in seconds
_LOOK_AGAIN_S = 0.1


class InstallError(Exception):
    """A step can't be done; the text says which, why, and what to do. What was there is whole."""


def put(path: Path, content: bytes, *, mode: int) -> bool:
    """Have the file hold `content`, root's and with `mode`; return whether that changed anything.

    Raise InstallError. A symlink in its place is replaced, not followed.
    """
    unfinished = f".{path.name}.unfinished"
    try:
        with locked(path.parent) as folder:
            if _is(path, content, mode):
                with suppress(OSError):
                    os.unlink(unfinished, dir_fd=folder)
                return False
            with suppress(FileNotFoundError):
                os.unlink(unfinished, dir_fd=folder)
            try:
                _write(unfinished, folder, content, mode)
                os.rename(unfinished, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                with suppress(OSError):
                    os.unlink(unfinished, dir_fd=folder)
                raise
            os.fsync(folder)
    except OSError as exc:
        raise InstallError(f"{path}: can't be written: {_why(exc, path.parent)}") from exc
    return True


def remove(path: Path) -> bool:
    """Have no such file, durably; return whether there was one. Raise InstallError."""
    try:
        with locked(path.parent) as folder:
            with suppress(FileNotFoundError):
                os.unlink(f".{path.name}.unfinished", dir_fd=folder)
            try:
                os.unlink(path.name, dir_fd=folder)
            except FileNotFoundError:
                return False
            os.fsync(folder)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise InstallError(f"{path}: can't be removed: {exc.strerror or exc}") from exc
    return True


def content_of(path: Path) -> bytes | None:
    """Return what the file holds, None where there is none; raise InstallError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise InstallError(f"{path}: can't be read: {exc.strerror}") from exc


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the folder for oneself; give its descriptor. Raise OSError, TimeoutError where somebody
    else holds it for long."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(folder, path)
        yield folder
    finally:
        os.close(folder)


def _lock(folder: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} is being changed by another installer") from None
            time.sleep(_LOOK_AGAIN_S)
        else:
            return


def _why(exc: OSError, folder: Path) -> str:
    """Return the error's words; for a folder of another user also the remedy: root without
    CAP_DAC_OVERRIDE, as in the DaemonSet's containers, may not write there."""
    why = exc.strerror or str(exc)
    try:
        owner = folder.stat().st_uid
    except OSError:
        return why
    if not isinstance(exc, PermissionError) or owner == 0:
        return why
    return (
        f"{why}: the folder is user {owner}'s, who could replace what root executes or reads "
        "there; make it root's on the node (chown root:root)"
    )


def _is(path: Path, content: bytes, mode: int) -> bool:
    try:
        found = path.lstat()
        return (
            stat.S_ISREG(found.st_mode)
            and stat.S_IMODE(found.st_mode) == mode
            and found.st_uid == 0
            and found.st_size == len(content)
            and path.read_bytes() == content
        )
    except FileNotFoundError:
        return False


def _write(name: str, folder: int, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
