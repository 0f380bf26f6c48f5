"""What the reflectors have seen, on the event loop's side."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from metaplugin.commands.ports import Name
from metaplugin.k8s.reflector import Batch, Resource, Seen

REST_S = 0.1  # in which a storm's changes gather: waking the loop costs more than to apply them

T = TypeVar("T")


class Store(Generic[T]):
    """The objects of some resources, by name. `synced` is set once each has been listed.

    Changes are applied on the event loop: what comes after a rest at once, else together after
    REST_S. Then `on_change` is told them.
    """

    def __init__(
        self,
        resources: tuple[Resource[T], ...],
        on_change: Callable[[Mapping[Name, T | None]], None],
    ) -> None:
        self.synced = asyncio.Event()
        self._objects: dict[Name, Seen[T]] = {}
        self._on_change = on_change
        self._resources = resources
        self._unlisted = set(resources)
        self._newest = 0  # version that a reflector has delivered
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Resource[T], Batch[T]]] = []
        self._awake = False  # whether _apply_waiting will run
        self._lock = threading.Lock()

    def get(self, name: Name) -> T | None:
        seen = self._objects.get(name)
        return seen.value if seen else None

    @property
    def count(self) -> int:
        return len(self._objects)

    def all(self) -> dict[Name, T]:
        return {n: seen.value for n, seen in self._objects.items() if seen.value is not None}

    def deliver(self, resource: Resource[T], batch: Batch[T]) -> None:
        """Take a reflector's batch, in the reflector's thread."""
        with self._lock:
            self._waiting.append((resource, batch))
            wake, self._awake = not self._awake, True
        if wake:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._apply_waiting)

    def offer(self, name: Name, seen: Seen[T]) -> None:
        """Take an object that came with an answer.

        It isn't held where no reflector would tell that it has changed, nor as of a version whose
        followers have been told already: it may be gone by now.
        """
        followed = any(resource.namespace in ("", name[0]) for resource in self._resources)
        told = 0 < seen.version <= self._newest
        if not followed or (not told and self._update(name, seen)):
            self._on_change({name: seen.value})

    def _apply_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._awake = bool(waiting)
        if not waiting:
            return
        self._loop.call_later(REST_S, self._apply_waiting)
        changes: dict[Name, T | None] = {}
        for resource, batch in waiting:
            changes |= self._apply(resource, batch)
        if changes:
            self._on_change(changes)
        if not self._unlisted:
            self.synced.set()

    def _apply(self, resource: Resource[T], batch: Batch[T]) -> dict[Name, T | None]:
        changes = {n: seen.value for n, seen in batch.changes.items() if self._update(n, seen)}
        self._newest = max(self._newest, batch.version)
        if batch.complete:
            self._unlisted.discard(resource)
            for name in self._gone(resource, batch):
                del self._objects[name]
                changes[name] = None
        return changes

    def _gone(self, resource: Resource[T], batch: Batch[T]) -> list[Name]:
        """Return what is held and not in a complete batch, nor newer than it: an answer may have
        overtaken a list."""
        return [
            name
            for name, held in self._objects.items()
            if resource.namespace in ("", name[0])
            and name not in batch.changes
            and not 0 < batch.version < held.version
        ]

    def _update(self, name: Name, seen: Seen[T]) -> bool:
        """Keep what was seen, unless what is held is as new; say whether it was kept."""
        held = self._objects.get(name)
        if held and held.version and seen.version and seen.version <= held.version:
            return False
        if seen.value is None:
            self._objects.pop(name, None)
        else:
            self._objects[name] = seen
        return True
