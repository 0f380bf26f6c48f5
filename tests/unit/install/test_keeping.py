"""The daemon's care for the runtime's configuration, with a clock and a fighter of the test's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.install.keeping import INTERVAL_S, PEACE_S, Keeper

OURS = b'{"plugins": [{"type": "metaplugin"}]}'
NEWER = b'{"plugins": [{"type": "metaplugin", "capabilities": {"mac": true}}]}'
MULTUS = '{"plugins": [{"type": "multus-shim"}]}'
CALICO = '{"plugins": [{"type": "calico"}]}'


@dataclass
class Told:
    """The node's events, as they are told."""

    events: list[tuple[str, str, str]] = field(default_factory=list)

    def told(self, kind: str, reason: str, message: str) -> None:
        self.events.append((kind, reason, message))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.events]


class Watched:
    """A folder whose keeper looks when it is told to."""

    def __init__(self, folder: Path, disk: ThreadPoolExecutor) -> None:
        self.path = folder / "00-metaplugin.conflist"
        self.default = folder / "10-calico.conflist"
        self.default.write_text(CALICO)
        self.content: bytes | None = OURS
        self.clock = 0.0
        self.told = Told()
        self.keeper = Keeper(
            path=self.path,
            wanted=self._wanted,
            events=self.told,
            disk=disk,
            now=lambda: self.clock,
        )

    async def _wanted(self) -> bytes:
        if self.content is None:
            raise InvalidNetworkConfig(f"{self.path.parent}: no network configuration")
        return self.content

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            asyncio.run(self.keeper.look())
            self.clock += INTERVAL_S

    def read(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with ThreadPoolExecutor(max_workers=1) as disk:
        yield Watched(tmp_path, disk)


def test_it_is_written_and_then_left_alone(watched: Watched) -> None:
    watched.look()
    assert watched.read() == OURS
    before = watched.path.stat()
    watched.look(5)
    after = watched.path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert watched.told.reasons == ["CNIConfigurationWritten"]


def test_what_was_there_already_is_no_event(watched: Watched) -> None:
    watched.path.write_bytes(OURS)
    watched.path.chmod(0o644)
    watched.look(2)
    assert watched.told.events == []


def test_it_waits_for_a_default_network(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.content = None
    watched.look(3)
    assert watched.read() is None
    assert watched.told.reasons == ["DefaultNetworkMissing"]
    assert caplog.text.count("waiting for a default network") == 1
    watched.content = OURS
    watched.look()
    assert watched.read() == OURS


def test_it_follows_the_default_network(watched: Watched) -> None:
    """MULTUS A7.6; by one rename, as nothing else wakes containerd."""
    watched.look()
    watched.content = NEWER
    watched.look()
    assert watched.read() == NEWER
    assert watched.told.reasons == ["CNIConfigurationWritten"]


def test_it_stays_while_the_default_network_is_gone(watched: Watched) -> None:
    watched.look()
    watched.content = None
    watched.look(2)
    assert watched.read() == OURS
    watched.path.unlink()
    watched.look()
    assert watched.read() == OURS
    assert watched.told.reasons[1:] == ["DefaultNetworkMissing", "CNIConfigurationRestored"]


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (lambda path: path.unlink(), "was removed"),
        (lambda path: path.write_text("{}"), "was changed by another component"),
        (
            lambda path: path.rename(f"{path}.cilium_bak"),
            "was renamed to 00-metaplugin.conflist.cilium_bak",
        ),
    ],
    ids=["removed", "changed", "renamed"],
)
def test_it_is_written_again(act: object, what: str, watched: Watched) -> None:
    """MULTUS C8."""
    watched.look()
    assert callable(act)
    act(watched.path)
    watched.look()
    assert watched.read() == OURS
    assert watched.told.reasons[-1] == "CNIConfigurationRestored"
    assert what in watched.told.events[-1][2]


def test_two_that_fight_wait_longer_each_time(watched: Watched) -> None:
    restored = []
    watched.look()
    for _ in range(400):
        if watched.path.exists():
            watched.path.rename(f"{watched.path}.cilium_bak")
            restored.append(watched.clock)
        watched.look()
    pauses = [later - earlier for earlier, later in pairwise(restored[1:])]
    assert pauses[:5] == [6, 12, 24, 48, 96]
    assert max(pauses) == 300
    kind, reason, message = watched.told.events[-1]
    assert (kind, reason) == ("Warning", "CNIConfigurationContested")
    assert "cni.exclusive=false" in message


def test_who_chains_a_plugin_to_ours_is_named(watched: Watched) -> None:
    """istio-cni puts itself into the folder's first file, and again when that is written anew."""
    watched.look()
    for _ in range(20):
        watched.path.write_text('{"plugins": [{"type": "metaplugin"}, {"type": "istio-cni"}]}')
        watched.look()
    kind, reason, message = watched.told.events[-1]
    assert (kind, reason) == ("Warning", "CNIConfigurationContested")
    assert "which put istio-cni into it" in message
    assert "Have istio-cni put into the default network's file" in message


def test_after_peace_the_first_disturbance_is_mended_at_once(watched: Watched) -> None:
    watched.look()
    for _ in range(60):
        watched.path.unlink(missing_ok=True)
        watched.look()
    watched.look(120)
    assert watched.read() == OURS
    watched.clock += PEACE_S
    watched.path.unlink()
    watched.look()
    assert watched.read() == OURS
    assert watched.told.reasons[-1] == "CNIConfigurationRestored"


def test_multus_is_not_pushed_aside(watched: Watched) -> None:
    multus = watched.path.with_name("00-multus.conf")
    multus.write_text(MULTUS)
    watched.look(2)
    assert watched.read() is None
    assert watched.told.reasons == ["MultusInstalled"]
    assert "metaplugin migrate" in watched.told.events[0][2]
    multus.unlink()
    watched.look()
    assert watched.read() == OURS


def test_multus_is_pushed_aside_where_that_is_asked_for(watched: Watched) -> None:
    watched.path.with_name("00-multus.conf").write_text(MULTUS)
    watched.keeper.beside_multus = True
    watched.look()
    assert watched.read() == OURS


def test_a_configuration_before_ours_is_told(watched: Watched) -> None:
    watched.path.with_name("00-calico.conflist").write_text(CALICO)
    watched.look(2)
    assert watched.told.reasons == ["CNIConfigurationWritten", "CNIConfigurationNotFirst"]


def test_what_keeps_pods_from_their_networks_is_said(watched: Watched) -> None:
    """For the daemon's readiness."""
    keeper = watched.keeper
    assert "has not been written yet" in keeper.problem()
    watched.content = None
    watched.look()
    assert "waiting for a default network" in keeper.problem()
    watched.content = OURS
    watched.look()
    assert keeper.problem() == ""
    for _ in range(2):
        watched.path.unlink()
        watched.look()
    assert "again and again" in keeper.problem()
    watched.look(20)
    assert keeper.problem() == ""
    watched.path.with_name("00-calico.conflist").write_text(CALICO)
    watched.look()
    assert "comes before" in keeper.problem()


def test_a_folder_that_is_gone_is_told_once(watched: Watched) -> None:
    watched.look()
    watched.path.unlink()
    watched.default.unlink()
    os.rmdir(watched.path.parent)
    watched.look(3)
    assert watched.told.reasons[1:] == ["CNIConfigurationFailed"]
    watched.path.parent.mkdir()
    watched.look()
    assert watched.read() == OURS
