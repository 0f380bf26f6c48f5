"""Left-over records: whose release counts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from metaplugin.attachments.record import Record, StoredRecord
from metaplugin.attachments.runtime_conf import Sandbox
from metaplugin.commands.ports import Caller, Node, Settings
from metaplugin.commands.reap import reap
from metaplugin.wire.frames import NetnsState, Stated


@dataclass
class Sandboxes:
    """Every namespace is gone; what is forgotten is off the disk."""

    on_disk: dict[str, StoredRecord]
    listed: list[StoredRecord]
    locked: list[str] = field(default_factory=list)

    async def read_all(self) -> list[StoredRecord]:
        return self.listed

    async def read(self, name: str) -> StoredRecord | None:
        return self.on_disk.get(name)

    async def forget(self, name: str) -> None:
        del self.on_disk[name]

    async def withdraw(self, record: Record) -> None:
        """Nothing was published."""

    async def try_lock(self, container_id: str) -> bool:
        self.locked.append(container_id)
        return True

    async def unlock(self) -> None:
        self.locked.pop()

    async def stat_netns(self, path: str) -> Stated:
        return Stated(0, NetnsState.MISSING, 0, 0)


@dataclass
class Place:
    """What a reaper uses of a node."""

    records: Sandboxes
    status: Sandboxes
    settings: Settings = field(default_factory=Settings)


def record(container_id: str) -> StoredRecord:
    kept = Record(
        generation="g",
        sandbox=Sandbox(container_id=container_id, netns=f"/run/netns/{container_id}"),
        ifname="eth0",
        network="metaplugin",
        runtime="/usr/bin/containerd",
        pod=None,
        created=0,
        attachments=(),
    )
    return StoredRecord(record=kept, calls=())


def released(listed: list[StoredRecord], on_disk: Mapping[str, StoredRecord]) -> int:
    sandboxes = Sandboxes(dict(on_disk), listed)
    port = cast("Any", sandboxes)
    caller = Caller(plugins=port, records=port, locks=port, network=None)
    count = asyncio.run(reap(caller, cast("Node", Place(sandboxes, sandboxes))))
    assert sandboxes.on_disk == {}
    assert sandboxes.locked == []
    return count


def test_what_its_own_del_released_meanwhile_is_not_counted() -> None:
    """Many sandboxes that end at once are listed as they were, and then looked at one by one."""
    gone, left = record("a"), record("b")
    assert released([gone, left], {left.record.file_name: left}) == 1
