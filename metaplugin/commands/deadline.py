"""How long a request, and each delegate in it, may still take."""

from __future__ import annotations

from asyncio import get_running_loop
from dataclasses import dataclass

from metaplugin.cni.errors import TryAgainLater
from metaplugin.commands.ports import Deadlines

RESERVED_S = 10  # of a request's time, for each delegate that is still to undo its part


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the event loop's clock by which a request has to be answered."""

    at: float
    limits: Deadlines

    @classmethod
    def start(cls, limits: Deadlines) -> Deadline:
        return cls(get_running_loop().time() + limits.request, limits)

    def for_delegate(self, what: str) -> float:
        """Return the seconds that a delegate gets, what rollback needs left alone; raise
        TryAgainLater."""
        return min(self._left(self.limits.rollback, what), self.limits.delegate)

    def for_rollback(self, what: str, *, following: int = 0) -> float:
        """Return the seconds that a delegate gets while undoing or deleting, a share left for each
        of those that follow: all are tried, though some hang; raise TryAgainLater."""
        left = self._left(0, what)
        share = max(left - following * RESERVED_S, left / (following + 1))
        return min(share, self.limits.delegate)

    def _left(self, kept: float, what: str) -> float:
        left = self.at - kept - get_running_loop().time()
        if left <= 0:
            limit = self.limits.request - kept
            raise TryAgainLater(f"{what} was not started: the request's {limit:g} s are used up")
        return left
