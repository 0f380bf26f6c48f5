"""A short soak: `make soak` has a long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.soak.soak import run_soak

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SECONDS = 25


def test_whatever_is_killed_each_annotation_tells_what_is_there_and_nothing_leaks(
    tmp_path: Path,
) -> None:
    soak = run_soak(tmp_path, SECONDS, seed=4)
    sys.stdout.write(f"{dict(soak.done)}\n")
    assert soak.wrong == []
    assert soak.done["ADD"]
    assert soak.done["annotation equals namespace"]
