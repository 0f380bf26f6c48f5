"""Pods and net-attach-defs for ADD: what is watched, else one live request, else the last copy.

Where a last copy could do, a request gets PATIENCE_S, and a slow server isn't asked; where nothing
is known it gets its full time, and goes on when the ADD has given up: its result serves the
runtime's retry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cachetools import TTLCache

from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import InvalidNetworkConfig, TryAgainLater
from metaplugin.cni.raw import JSONObject
from metaplugin.commands.ports import KnownPod, Learner, Memory, Name
from metaplugin.k8s.api import ApiAway, ApiRefused
from metaplugin.k8s.calls import Calls
from metaplugin.k8s.health import PATIENCE_S, Health
from metaplugin.k8s.objects import Definition, Malformed
from metaplugin.k8s.reflector import Seen, version_of
from metaplugin.k8s.store import Store
from metaplugin.npwg.definition import NetworkAttachmentDefinition

log = logging.getLogger(__name__)

LIVE_TIMEOUT_S = 20
FIRST_DELAY_S = 0.1
ERRORS_RETRIED_S = 2  # a single failure fails no pod; when they last, the runtime tries again
BACK_WITHIN_S = 0.3  # one lost connection is no outage
RETRY_SERVED_S = 60  # the kubelet tries again after 10 to 15 s

T = TypeVar("T")


class Unanswered(Exception):
    """The server didn't say; the text says why."""


class LiveLookUp(Generic[T]):
    """Single objects asked for, by whoever needs them together; what came too late is kept."""

    def __init__(
        self,
        calls: Calls,
        health: Health,
        path: Callable[[Name], str],
        slim: Callable[[JSONObject], T],
        timeout_s: float,
    ) -> None:
        self.timeout_s = timeout_s
        self._calls = calls
        self._health = health
        self._path = path
        self._slim = slim
        self._asked: dict[Name, asyncio.Task[Seen[T]]] = {}
        self._late: TTLCache[Name, Seen[T]] = TTLCache(maxsize=1000, ttl=RETRY_SERVED_S)

    async def __call__(self, name: Name, patience_s: float) -> Seen[T]:
        """Return the object as it is now, its value None when there is none; raise Unanswered."""
        if late := self._late.pop(name, None):
            return late
        if self._health.away:
            raise Unanswered("the Kubernetes API is away")
        task = self._asked.get(name)
        if task is None:
            task = self._asked[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda done: self._keep(name, done))
        if not await self._calls.answers(task, patience_s):
            raise Unanswered(
                f"the Kubernetes API has not answered within {patience_s:g} s, or has gone away "
                f"meanwhile (deadlines.liveSeconds is {self.timeout_s:g})"
            )
        self._late.pop(name, None)
        return task.result()

    def came_late(self, name: Name) -> bool:
        """Whether an answer is there that nobody has had."""
        return name in self._late

    async def _ask(self, name: Name) -> Seen[T]:
        """Ask until there is an answer that says something of the object; raise Unanswered."""
        delay, last = FIRST_DELAY_S, asyncio.get_running_loop().time() + ERRORS_RETRIED_S
        try:
            async with asyncio.timeout(self.timeout_s):
                while (seen := await self._ask_once(name, delay, last)) is None:
                    delay *= 2
                return seen
        except TimeoutError as exc:
            raise Unanswered(
                f"the Kubernetes API didn't answer in {self.timeout_s:g} s (deadlines.liveSeconds)"
            ) from exc

    async def _ask_once(self, name: Name, delay: float, last: float) -> Seen[T] | None:
        """Return the object, or None when it is time to ask again, until the moment `last`; raise
        Unanswered."""
        try:
            item = await self._calls.call("GET", self._path(name), timeout_s=self.timeout_s)
            return Seen(version_of(item), self._slim(item))
        except ApiRefused as exc:
            if exc.status == 404:
                return Seen(0, None)
            pause = exc.retry_after or delay
            if not exc.is_overload or asyncio.get_running_loop().time() + pause > last:
                raise Unanswered(f"the Kubernetes API refused: {exc}") from exc
            await asyncio.sleep(pause)
        except ApiAway as exc:
            if not await self._calls.back_within(BACK_WITHIN_S):
                raise Unanswered(f"the Kubernetes API is away: {exc}") from exc
            await asyncio.sleep(delay)
        return None

    def _keep(self, name: Name, task: asyncio.Task[Seen[T]]) -> None:
        del self._asked[name]
        if not task.cancelled() and task.exception() is None and task.result().value is not None:
            self._late[name] = task.result()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """The port Cluster by what is held already: nothing is asked, so nothing is waited for."""

    pods: Store[KnownPod]
    definitions: Store[Definition]
    memory: Memory

    async def pod(self, reference: PodReference) -> KnownPod | None:
        held = self.pods.get((reference.namespace, reference.name))
        if held and held.is_meant_by(reference):
            return held
        return await self.memory.pod(reference)

    async def definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None:
        held = self.definitions.get((namespace, name))
        return _usable(held) if held else await self.memory.definition(namespace, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCluster:
    """The port Cluster over the API server. `learner` is told which definitions are used."""

    recall: Recall
    learner: Learner
    live_pods: LiveLookUp[KnownPod]
    live_definitions: LiveLookUp[Definition]
    health: Health

    async def pod(self, reference: PodReference) -> KnownPod | None:
        name, pods = (reference.namespace, reference.name), self.recall.pods
        held = pods.get(name)
        if held and pods.synced.is_set() and held.is_meant_by(reference):
            return held
        known = await self.recall.pod(reference)
        known = known if known and known.is_meant_by(reference) else None
        return await self._live(f"pod {reference}", name, self.live_pods, pods, known)

    async def definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None:
        found = _usable(await self._definition((namespace, name)))
        self.learner.learn_use((namespace, name), found)
        return found

    async def _definition(self, name: Name) -> Definition | None:
        definitions = self.recall.definitions
        held = definitions.get(name)
        if held and definitions.synced.is_set():
            return held
        known: Definition | None = await self.recall.definition(*name)
        what = f"net-attach-def {name[0]}/{name[1]}"
        return await self._live(what, name, self.live_definitions, definitions, known)

    async def _live(
        self, what: str, name: Name, look_up: LiveLookUp[T], store: Store[T], known: T | None
    ) -> T | None:
        """Return the object as it is now, or `known` when that can't be had in time; raise
        TryAgainLater when there is neither."""
        if known is not None and self.health.slow and not look_up.came_late(name):
            return _last_known(what, known, "the Kubernetes API is slow, and was not asked")
        try:
            seen = await look_up(name, look_up.timeout_s if known is None else PATIENCE_S)
        except Unanswered as exc:
            if known is None:
                raise TryAgainLater(f"{what} is not known: {exc}") from exc
            return _last_known(what, known, str(exc))
        if seen.value is not None:  # of a deletion the watch tells, and in order
            store.offer(name, seen)
        return seen.value


def _last_known(what: str, known: T, why: str) -> T:
    log.warning("last known copy used", extra={"object": what, "why": why})
    return known


def _usable(definition: Definition | None) -> NetworkAttachmentDefinition | None:
    if isinstance(definition, Malformed):
        raise InvalidNetworkConfig(definition.problem)
    return definition
