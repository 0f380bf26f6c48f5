"""How a node's dealings with the API server stand, for whoever watches the daemon."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """One collection: whether it has been listed, how many objects are held, when the server last
    said something of it (0: never), whether its thread runs."""

    listed: bool
    objects: int
    heard: float
    alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiState:
    """`away` and `slow` are the breaker's; `statuses` are not on their pods yet, `events` not
    written."""

    away: bool
    slow: bool
    pods: WatchState
    definitions: WatchState
    statuses: int
    events: int
