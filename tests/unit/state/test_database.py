"""state.db: last known copies, which no damage may cost more than themselves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from metaplugin.attachments.devices import ClaimedDevice, ResolvedDevice
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.commands.ports import KnownPod
from metaplugin.state.database import StateDatabase, StateSnapshot

POD = PodReference(namespace="default", name="p")


async def remembered(path: Path) -> KnownPod | None:
    state = StateDatabase(path)
    await state.open()
    try:
        return await state.pod(POD)
    finally:
        await state.close()


async def remember(path: Path, count: int = 1) -> None:
    state = StateDatabase(path)
    await state.open()
    pod = KnownPod(uid="u", annotations={"a": "b"})
    state.learn_pods({("default", f"p{number or ''}"): pod for number in range(count)})
    await state.close()


def test_a_copy_is_there_after_a_restart(tmp_path: Path) -> None:
    asyncio.run(remember(tmp_path / "state.db"))
    expected = KnownPod(uid="u", annotations={"a": "b"})
    assert expected == asyncio.run(remembered(tmp_path / "state.db"))


def test_a_database_that_another_process_holds_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """Two daemons while one replaces the other: the copies are the ones that an outage needs."""
    path = tmp_path / "state.db"
    asyncio.run(remember(path))
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("PRAGMA journal_mode=DELETE")
        other.execute("BEGIN EXCLUSIVE")
        assert asyncio.run(remembered(path)) is None
        other.execute("ROLLBACK")
    other.close()
    assert not (tmp_path / "state.db.damaged").exists()
    assert asyncio.run(remembered(path)) is not None


def test_a_page_damaged_in_the_middle_costs_no_start(tmp_path: Path) -> None:
    """ROB-7."""
    path = tmp_path / "state.db"
    asyncio.run(remember(path, 500))
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 200] = b"\xff" * 200
    path.write_bytes(content)
    assert asyncio.run(remembered(path)) is None
    asyncio.run(remember(path))
    assert asyncio.run(remembered(path)) is not None


CLAIMED = ResolvedDevice(
    claimed=ClaimedDevice(
        claim="c", container="app", driver="d", pool="n", device="0", cdi=("v/c=1",)
    ),
    id="0000:03:10.0",
    request="r/sub",
)
OURS = replace(POD, uid="u")


def changed(path: Path, change: Callable[[StateDatabase], None]) -> None:
    async def change_it() -> None:
        state = StateDatabase(path)
        await state.open()
        change(state)
        await state.close()

    asyncio.run(change_it())


def claimed_by(path: Path, pod: PodReference) -> tuple[ResolvedDevice, ...]:
    async def ask() -> tuple[ResolvedDevice, ...]:
        state = StateSnapshot(path)
        await state.open()
        try:
            return await state.claimed_devices(pod)
        finally:
            await state.close()

    return asyncio.run(ask())


def test_devices_of_claims_are_there_after_a_restart_for_that_pod_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    changed(path, lambda state: state.learn_claimed_devices(OURS, (CLAIMED,)))
    assert claimed_by(path, OURS) == (CLAIMED,)
    assert claimed_by(path, replace(POD, uid="later")) == claimed_by(path, POD) == ()


def test_devices_of_claims_go_with_their_pod(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    name, known = ("default", "p"), KnownPod(uid="u", annotations={})
    changes: list[Callable[[StateDatabase], None]] = [
        lambda state: state.learn_pods({name: None}),
        lambda state: state.learn_all_pods({}),
    ]
    for forget in changes:
        changed(path, lambda state: state.learn_claimed_devices(OURS, (CLAIMED,)))
        changed(path, lambda state: state.learn_all_pods({name: known}))
        assert claimed_by(path, OURS) == (CLAIMED,)
        changed(path, forget)
        assert claimed_by(path, OURS) == ()


def test_odd_devices_of_claims_are_none(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    changed(path, lambda state: state.learn_claimed_devices(OURS, (CLAIMED,)))
    for content in (b'{"uid":"u"}', b'{"uid":"u","devices":[{}]}', b'{"uid":"u","devices":1}'):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE objects SET content = ?", (content,))
        connection.close()
        assert claimed_by(path, OURS) == ()
