"""The state folder's tombstones, as a daemon taken over may have left it."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from metaplugin.cni.errors import IOFailure
from metaplugin.state.records import TOMBSTONE_LIFE_S, RecordFolder

LONG_AGO = -TOMBSTONE_LIFE_S - 60


def sweep(state: Path) -> None:
    with ThreadPoolExecutor(max_workers=1) as disk:
        asyncio.run(RecordFolder(state, disk).drop_old_tombstones())


def age(path: Path, seconds: float) -> Path:
    moment = path.stat().st_mtime + seconds
    os.utime(path, (moment, moment))
    return path


def make(path: Path, seconds: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return age(path, seconds)


def test_tombstones_of_a_day_ago_go(tmp_path: Path) -> None:
    old, new = make(tmp_path / "tombstones/a@eth0", LONG_AGO), make(tmp_path / "tombstones/b@eth0")
    sweep(tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_state_without_tombstones_is_tidy(tmp_path: Path) -> None:
    sweep(tmp_path)


def test_a_link_in_their_place_is_not_followed(tmp_path: Path) -> None:
    """Whoever sweeps without a daemon is the host's root."""
    passwd = make(tmp_path / "etc/passwd", LONG_AGO)
    (tmp_path / "state").mkdir()
    (tmp_path / "state/tombstones").symlink_to(passwd.parent)
    with pytest.raises(IOFailure):
        sweep(tmp_path / "state")
    assert passwd.exists()
