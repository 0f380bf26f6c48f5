"""The shim alone: a whole process against a server that answers at once."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.shim.peer import Conversation, Surroundings
from tests.system.node import SHIM

RUNS, WARM_UP = 300, 20


def shim_alone() -> float:
    """Return the median milliseconds of a run that a server answers, starting it included."""
    with tempfile.TemporaryDirectory(prefix="mp", dir="/run") as name:
        at = Surroundings(Path(name), SHIM)
        with at.daemon(*[_answer] * (RUNS + WARM_UP)):
            return _median(lambda: at.call("STATUS").check_returncode())


def _median(run: Callable[[], None]) -> float:
    took = []
    for _ in range(RUNS + WARM_UP):
        started = time.perf_counter()
        run()
        took.append((time.perf_counter() - started) * 1000)
    return statistics.median(took[WARM_UP:])


def _answer(shim: Conversation) -> None:
    shim.open()
    shim.answer()
