"""Reading records. The shim alone writes them, under the sandbox's lock; see RecordWriter.

A record is a few kilobytes in the page cache, yet the disk may hang, so it is read in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from metaplugin.attachments.record import StoredRecord, decode_stored_record
from metaplugin.cni.errors import IOFailure
from metaplugin.state.folders import opened
from metaplugin.wire.container import DamagedRecord, sandbox_file_name

log = logging.getLogger(__name__)

TOMBSTONE_LIFE_S = 24 * 3600  # runtimes repeat a DEL for as long as they try to remove a sandbox

_T = TypeVar("_T")


class RecordFolder:
    """The port RecordReader over a state folder."""

    def __init__(self, state: Path, executor: Executor) -> None:
        self._state = state
        self._attachments = state / "attachments"
        self._tombstones = state / "tombstones"
        self._executor = executor

    async def read(self, name: str) -> StoredRecord | None:
        return await self._run(lambda: _read(self._attachments / name))

    async def read_all(self, container_id: str = "") -> Sequence[StoredRecord]:
        prefix = f"{sandbox_file_name(container_id)}@" if container_id else ""
        found = await self._run(lambda: survey(self._state, prefix))
        for name, stored in found.items():
            if isinstance(stored, DamagedRecord):
                log.error("damaged record", extra={"record": name, "error": str(stored)})
        return [stored for stored in found.values() if isinstance(stored, StoredRecord)]

    async def damaged(self, container_id: str) -> Sequence[str]:
        prefix = f"{sandbox_file_name(container_id)}@"
        found = await self._run(lambda: survey(self._state, prefix))
        return [name for name, stored in found.items() if isinstance(stored, DamagedRecord)]

    async def survey(self) -> dict[str, StoredRecord | DamagedRecord]:
        """Return every record by name, or why it can't be read; raise IOFailure."""
        return await self._run(lambda: survey(self._state))

    async def is_forgotten(self, name: str) -> bool:
        return await self._run((self._tombstones / name).exists)

    async def drop_old_tombstones(self) -> None:
        """Remove the tombstones of records that ended over a day ago; raise IOFailure."""
        await self._run(self._drop_old_tombstones)

    async def _run(self, operation: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, operation)
        except OSError as exc:
            raise IOFailure(f"records can't be read: {exc}") from exc

    def _drop_old_tombstones(self) -> None:
        oldest = time.time() - TOMBSTONE_LIFE_S
        with contextlib.suppress(FileNotFoundError), opened(self._tombstones) as folder:
            for name in os.listdir(folder):
                with contextlib.suppress(FileNotFoundError):  # another process may sweep as well
                    if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < oldest:
                        os.unlink(name, dir_fd=folder)


def survey(state: Path, prefix: str = "") -> dict[str, StoredRecord | DamagedRecord]:
    """Return every record whose name begins with `prefix`, or why it can't be read; raise
    OSError."""
    found: dict[str, StoredRecord | DamagedRecord] = {}
    for path in _paths(state / "attachments"):
        if not path.name.startswith(prefix):
            continue
        try:
            stored = _read(path)
        except DamagedRecord as exc:
            found[path.name] = exc
            continue
        if stored:
            found[path.name] = stored
    return found


def _read(path: Path) -> StoredRecord | None:
    try:
        return decode_stored_record(path.read_bytes())
    except FileNotFoundError:
        return None


def _paths(folder: Path) -> list[Path]:
    """Return the folder's records; a temporary file of the shim's has a name that none begins
    with."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
