"""New records from outside a shim: under the sandbox's lock, as a shim writes them, and durable.

Only what isn't there is written; a tombstone counts as there: what was deleted stays deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metaplugin.attachments.record import Record
from metaplugin.wire.container import sandbox_file_name


class SandboxBusy(Exception):
    """Something runs for the sandbox at this moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStore:
    """A node's records and locks, by the folders of the shim's configuration."""

    state_dir: Path
    run_dir: Path

    def prepare(self) -> None:
        """Make the folders, root's alone; raise OSError, also where they are others'."""
        for folder in (self.run_dir, self.state_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
                raise PermissionError(f"{folder}: must be a folder that only root can write to")
        for folder in (self._locks, self._attachments):
            folder.mkdir(mode=0o700, exist_ok=True)

    def existing(self, record: Record) -> str | None:
        """Say what is there of the record already; None for nothing."""
        if (self._attachments / record.file_name).exists():
            return "it has a record already"
        if (self.state_dir / "tombstones" / record.file_name).exists():
            return "metaplugin has deleted it already"
        return None

    def create(self, record: Record, content: bytes) -> None:
        """Write the record durably and all or nothing; raise SandboxBusy, or OSError."""
        with self._locked(record.sandbox.container_id):
            if (known := self.existing(record)) is not None:
                raise SandboxBusy(known)
            folder = self._attachments
            temporary = folder / f".{record.file_name}"
            try:
                with open(temporary, "wb", opener=_private) as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(temporary, folder / record.file_name)  # unlike a rename replaces nothing
            finally:
                temporary.unlink(missing_ok=True)
            _sync(folder)

    @property
    def _attachments(self) -> Path:
        return self.state_dir / "attachments"

    @property
    def _locks(self) -> Path:
        return self.run_dir / "locks"

    @contextmanager
    def _locked(self, container_id: str) -> Iterator[None]:
        """Hold the sandbox's lock as the shim does: its file is unlinked while it is held, so one
        that is no longer the named one is stale."""
        path = self._locks / sandbox_file_name(container_id)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                os.close(descriptor)
                raise SandboxBusy("something runs for it now; run the import again") from exc
            if _is_current(descriptor, path):
                break
            os.close(descriptor)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _is_current(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
