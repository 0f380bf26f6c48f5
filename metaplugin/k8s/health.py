"""Whether the API server answers, and how fast: what the last requests found.

A breaker: while the server is away nothing waits for it, and one prober alone tries it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

PATIENCE_S = 2  # how long something waits for an answer that it can do without


class Health:
    """Shared by all threads that ask. `on_change` is called, in the thread that found it, whenever
    `away` has changed. An answer that is an error is an answer. While the server is `slow`, what
    can do without an answer doesn't ask."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.slow = False
        self.heard = False
        self._on_change = on_change
        self._lock = threading.Lock()
        self._here = threading.Event()
        self._here.set()

    @property
    def away(self) -> bool:
        return not self._here.is_set()

    def answered(self, seconds: float, *, overloaded: bool = False) -> None:
        """Note an answer that took so long, or said that the server can't serve now."""
        self.heard = True
        self.slow = overloaded or seconds > PATIENCE_S
        self._set(away=False)

    def waited_in_vain(self) -> None:
        """Note that an answer is still out after PATIENCE_S."""
        self.slow = True

    def failed(self) -> None:
        """Note that there was no answer."""
        self._set(away=True)

    def await_return(self) -> None:
        """Block until the server isn't away."""
        self._here.wait()

    def _set(self, *, away: bool) -> None:
        with self._lock:
            if self.away == away:
                return
            if away:
                self._here.clear()
            else:
                self._here.set()
        self._on_change()
