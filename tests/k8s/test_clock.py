"""A wall clock that jumps: only what is meant for readers and for the next process goes by it."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest

from metaplugin.cni.errors import TryAgainLater
from metaplugin.commands.ports import KnownPod
from metaplugin.npwg.definition import NetworkAttachmentDefinition
from metaplugin.state.database import StateDatabase
from tests.apiserver.faults import Slow, on
from tests.apiserver.server import ApiServer
from tests.k8s.side import Side, definition, pod, record, reference, status_of

YEAR_S = 365 * 24 * 3600
POD = KnownPod(uid="u", annotations={"k8s.v1.cni.cncf.io/networks": "lan"})
LAN = NetworkAttachmentDefinition(namespace="default", name="lan", config="{}")


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock finds it years before or after the last one."""
    real, jumps = time.time, itertools.cycle((10 * YEAR_S, -10 * YEAR_S, 0))
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))


@pytest.mark.parametrize("years", [-10, 1, 10])
def test_what_is_remembered_outlives_a_jump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    """A node may start with a wrong clock and without an API server; nor is a daemon's age a
    reason to forget."""
    real = time.time

    async def learn() -> None:
        database = StateDatabase(tmp_path / "state.db")
        await database.open()
        database.learn_all_pods({("default", "a"): POD})
        database.learn_all_definitions({("default", "lan"): LAN})
        await database.close()

    async def recall() -> tuple[KnownPod | None, NetworkAttachmentDefinition | None]:
        database = StateDatabase(tmp_path / "state.db")
        await database.open()
        found = (
            await database.pod(reference("a", "u")),
            await database.definition("default", "lan"),
        )
        await database.close()
        return found

    asyncio.run(learn())
    monkeypatch.setattr(time, "time", lambda: real() + years * YEAR_S)
    assert asyncio.run(recall()) == (POD, LAN)


def test_nothing_goes_by_the_wall_clock(server: ApiServer, side: Side, jumping: None) -> None:
    """Retries, breaker, patience, late answers, repeats of Events."""
    server.put(pod("a", uid="u"))
    server.put(definition("lan"))
    side.memory.wait_for(lambda: side.memory.pods and side.memory.definitions)
    server.stop()
    side.publish(record("a", "u"))
    for _ in range(3):
        side.call(
            side.connection.events.failed, "ADD", reference("a", "u"), TryAgainLater("the same")
        )
    server.start()
    server.wait_for(lambda: status_of(server, "a") == record("a", "u").status)
    server.wait_for(lambda: len(server.objects("Event")) == 1)
    server.inject(Slow(0.3), on(verb="get"), times=1)
    server.cut_watches()
    server.put(pod("b", uid="u"))
    found = side.pod("b", "u")
    assert found is not None
    side.memory.wait_for(lambda: side.memory.knows_pod("b", "u"))
    assert server.count("list") == 2
