"""List once, then watch for ever: what the API server holds, followed in a thread.

A list comes in pages; a watch goes on from the last version seen, also after cuts; only a start,
410 and garbage list again. What is kept of an object is decided here, so that the rest is freed.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from metaplugin.cni.raw import JSONObject
from metaplugin.commands.ports import Name
from metaplugin.k8s.api import Api, ApiAway, ApiGarbled, ApiRefused, Query
from metaplugin.k8s.health import Health

log = logging.getLogger(__name__)

LIST_TIMEOUT_S = 30
WATCH_S = 300  # the server ends a watch after it, and sends a bookmark every minute
WATCH_IDLE_S = 90  # without even a bookmark the connection is half open
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 3.0
REFUSALS, REFUSED_DELAY_S = (403, 404), 20  # no right, no such resource: an operator has to act
GONE = 410

T = TypeVar("T")


class Expired(Exception):
    """The server has forgotten the version that we know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource(Generic[T]):
    """A collection: its path, the query that selects from it, how many objects come at once, and
    what is kept of each; `namespace` when it is only that one's."""

    path: str
    slim: Callable[[JSONObject], T]
    page: int
    query: Query = ()
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """An object as of a version; None once it was deleted. Versions of one object can be compared
    where the server's are numbers, as all are; 0 otherwise."""

    version: int
    value: T | None


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Changes by name up to a version; `complete` says that the collection has no others."""

    changes: dict[Name, Seen[T]]
    version: int
    complete: bool = False


class Reflector(Generic[T]):
    """One collection's follower. `deliver` is called in its thread, with one batch at a time.
    `heard` is when the server last said something of it, a bookmark included (0: not yet)."""

    def __init__(
        self,
        api: Api,
        health: Health,
        resource: Resource[T],
        deliver: Callable[[Batch[T]], None],
    ) -> None:
        self._api = api
        self._health = health
        self._resource = resource
        self._deliver = deliver
        self._version = ""
        self._delay = FIRST_DELAY_S
        self._complaint = ""
        self.heard = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=resource.path, daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Have it end with its next event; its thread doesn't keep the process from ending."""
        self._stop.set()

    def _follow(self) -> None:
        while not self._stop.is_set():
            self._health.await_return()
            try:
                if not self._version:
                    self._list()
                self._watch()
            except (Expired, ApiGarbled) as exc:
                self._version = ""
                self._pause(str(exc))
            except ApiRefused as exc:
                self._health.answered(0, overloaded=exc.is_overload)
                self._version = "" if exc.status == GONE else self._version
                # a server that has just started refuses all until it has read its roles
                lasting = exc.status in REFUSALS and self._delay == LONGEST_DELAY_S
                at_least = REFUSED_DELAY_S if lasting else 0
                self._pause(str(exc), exc.retry_after or at_least)
            except ApiAway as exc:
                self._health.failed()
                self._pause(str(exc))
            except Exception:  # the thread's root: a defect may not end what ADD relies on
                log.exception("defect", extra={"resource": self._resource.path})
                self._version = ""
                self._pause("a defect")
            else:
                self._pause("the watch ended")

    def _list(self) -> None:
        """Deliver all there is; a page of it is freed before the next comes."""
        found: dict[Name, Seen[T]] = {}
        version, following = self._take_page((), found)
        while following:
            version, following = self._take_page((("continue", following),), found)
        self._deliver(Batch(found, _number(version), complete=True))
        self._version = version
        log.info("listed", extra={"resource": self._resource.path, "objects": len(found)})

    def _take_page(self, following: Query, found: dict[Name, Seen[T]]) -> tuple[str, str]:
        """Add a page's objects; return the list's version, and what to continue it with."""
        page = self._ask([*self._resource.query, ("limit", str(self._resource.page)), *following])
        for item in _items(page):
            found[_name(item)] = self._seen(item)
        metadata = _metadata(page)
        return str(metadata.get("resourceVersion") or "0"), str(metadata.get("continue") or "")

    def _ask(self, query: Query) -> JSONObject:
        asked = time.monotonic()
        page = self._api.call("GET", self._resource.path, query=query, timeout_s=LIST_TIMEOUT_S)
        self._health.answered(time.monotonic() - asked)
        self.heard = time.time()
        return page

    def _watch(self) -> None:
        """Deliver what changes, until the watch ends."""
        seconds = random.randint(WATCH_S * 4 // 5, WATCH_S)  # noqa: S311 - apart from other nodes
        query = [
            *self._resource.query,
            ("resourceVersion", self._version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(seconds)),
        ]
        asked = time.monotonic()
        with self._api.watch(self._resource.path, query=query, idle_s=WATCH_IDLE_S) as events:
            self._health.answered(time.monotonic() - asked)
            self._complaint = ""
            for event in events:
                self.heard = time.time()
                self._take(event)
                if self._stop.is_set():
                    return

    def _take(self, event: JSONObject) -> None:
        kind, item = event.get("type"), event.get("object")
        if not isinstance(item, dict):
            raise ApiGarbled("the watch sent an event without an object")
        if kind == "ERROR":
            raise _error(item)
        version = version_of(item)
        if kind in ("ADDED", "MODIFIED"):
            self._deliver(Batch({_name(item): self._seen(item)}, version))
        elif kind == "DELETED":
            self._deliver(Batch({_name(item): Seen(version, None)}, version))
        self._version = str(_metadata(item).get("resourceVersion") or self._version)
        self._delay = FIRST_DELAY_S

    def _seen(self, item: JSONObject) -> Seen[T]:
        return Seen(version_of(item), self._resource.slim(item))

    def _pause(self, reason: str, at_least: float = 0) -> None:
        """Wait before the next try: longer each time, differently on each node."""
        if reason != self._complaint:
            self._complaint = reason
            log.info("watch interrupted", extra={"resource": self._resource.path, "why": reason})
        jitter = random.uniform(1.0, 1.3)  # noqa: S311 - no secret
        self._stop.wait(max(self._delay, at_least) * jitter)
        self._delay = min(self._delay * 2, LONGEST_DELAY_S)


def version_of(item: JSONObject) -> int:
    """Return an object's resourceVersion as a number, 0 when it is none."""
    return _number(str(_metadata(item).get("resourceVersion") or ""))


def _number(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() else 0


def _error(status: JSONObject) -> Exception:
    """Return what an ERROR event means."""
    code = status.get("code")
    if code == GONE:
        return Expired("the watch's version has expired")
    return ApiRefused(code if isinstance(code, int) else 500, str(status.get("message")))


def _items(page: JSONObject) -> list[JSONObject]:
    items = page.get("items") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ApiGarbled("the list's items are no objects")
    return items


def _metadata(item: JSONObject) -> JSONObject:
    metadata = item.get("metadata")
    if not isinstance(metadata, dict):
        raise ApiGarbled("an object without metadata")
    return metadata


def _name(item: JSONObject) -> Name:
    metadata = _metadata(item)
    namespace, name = metadata.get("namespace"), metadata.get("name")
    if not isinstance(namespace, str) or not isinstance(name, str):
        raise ApiGarbled("an object without name and namespace")
    return sys.intern(namespace), name
