"""How long a request, and each delegate in it, may still take."""

from __future__ import annotations

from asyncio import get_running_loop
from dataclasses import dataclass, replace

from metaplugin.cni.errors import TryAgainLater
from metaplugin.commands.ports import Deadlines

RESERVED_S = 10  # of a request's time, for each delegate that is still to undo its part


@dataclass(frozen=True, slots=True)
class Allowance:
    """The seconds that a delegate gets; `why` says which limit that is, for when they run out."""

    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the event loop's clock by which a request has to be answered."""

    at: float
    limits: Deadlines
    name: str = "deadlines.requestSeconds"

    @classmethod
    def start(cls, limits: Deadlines) -> Deadline:
        return cls(get_running_loop().time() + limits.request, limits)

    @classmethod
    def start_status(cls, limits: Deadlines) -> Deadline:
        """Return a STATUS's deadline: it undoes nothing, and has its own limit."""
        limits = replace(limits, request=min(limits.request, limits.status), rollback=0)
        return cls(get_running_loop().time() + limits.request, limits, "deadlines.statusSeconds")

    def for_delegate(self, what: str) -> Allowance:
        """Return the seconds that a delegate gets, what rollback needs left alone; raise
        TryAgainLater."""
        return self._allowance(self._left(self.limits.rollback, what))

    def for_rollback(self, what: str, *, following: int = 0) -> Allowance:
        """Return the seconds that a delegate gets while undoing or deleting, a share left for each
        of those that follow: all are tried, though some hang; raise TryAgainLater."""
        left = self._left(0, what)
        share = max(left - following * RESERVED_S, left / (following + 1))
        return self._allowance(share)

    def _allowance(self, left: float) -> Allowance:
        if left >= self.limits.delegate:
            return Allowance(self.limits.delegate, "deadlines.delegateSeconds")
        return Allowance(left, f"its part of {self._request()}")

    def _request(self) -> str:
        limit = f"{self.limits.request:g} s"
        return f"the request's {limit} ({self.name})"

    def _left(self, kept: float, what: str) -> float:
        left = self.at - kept - get_running_loop().time()
        if left <= 0:
            undoing = f", but for the {kept:g} s kept for undoing it" if kept else ""
            raise TryAgainLater(f"{what} was not started: {self._request()} are used up{undoing}")
        return left
