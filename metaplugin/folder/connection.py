"""The folder of manifests as the flows' ports, put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

from metaplugin.attachments.record import Record
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.environment import Command
from metaplugin.cni.errors import CNIError
from metaplugin.commands.ports import Claims, Learner, Memory
from metaplugin.commands.remembered import RememberedCluster
from metaplugin.folder.manifests import ManifestFolder
from metaplugin.folder.status import StatusFolder


class _Database(Memory, Learner, Protocol):
    """What remembers."""


class FolderConnection:
    """A folder of manifests and one for network-status. There is no `kubectl describe` to tell
    events: the log has them."""

    def __init__(
        self, manifests: Path, status: Path, executor: Executor, database: _Database
    ) -> None:
        self.cluster = self.recall = RememberedCluster(
            ManifestFolder(manifests, executor, database), database
        )
        self.claims: Claims | None = None  # ResourceClaims are the API server's
        self.status = StatusFolder(status, executor)
        self.events = self
        self._writing: asyncio.Task[None] | None = None

    def start(self, records: Iterable[Record]) -> None:
        """Write the statuses of live records, and from now on what couldn't be written at once."""
        self.status.resume(records)
        self._writing = asyncio.create_task(self.status.keep_writing())

    async def settle(self) -> None:
        """Wait for nothing: the folder is read at each request."""

    async def listed(self) -> None:
        """As `settle`."""

    async def close(self) -> None:
        if self._writing:
            self._writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writing

    def attached(self, record: Record) -> None:
        """Leave it to the log."""

    def failed(self, command: Command, pod: PodReference, error: CNIError) -> None:
        """Leave it to the log."""

    def given_up(self, record: Record) -> None:
        """Leave it to the log."""

    def told(self, kind: str, reason: str, message: str) -> None:
        """Leave it to the log."""
