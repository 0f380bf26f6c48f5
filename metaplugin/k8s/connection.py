"""The API server as the flows' ports, put together: what is watched, asked, written, remembered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from metaplugin.attachments.record import Record
from metaplugin.cni.errors import CNIError
from metaplugin.commands.ports import ClaimMemory, KnownPod, Learner, Memory, Name
from metaplugin.commands.remembered import RememberedClaims
from metaplugin.k8s.api import Api
from metaplugin.k8s.calls import Calls
from metaplugin.k8s.claims import ApiClaims
from metaplugin.k8s.cluster import LIVE_TIMEOUT_S, ApiCluster, LiveLookUp, Recall
from metaplugin.k8s.events import ApiEvents
from metaplugin.k8s.eviction import ApiEvictor
from metaplugin.k8s.health import Health
from metaplugin.k8s.objects import (
    Definition,
    definition_path,
    definitions_of,
    pod_path,
    pods_of_node,
    slim_definition,
    slim_pod,
)
from metaplugin.k8s.reflector import Reflector
from metaplugin.k8s.state import ApiState, WatchState
from metaplugin.k8s.status import ApiStatus
from metaplugin.k8s.store import Store
from metaplugin.k8s.taint import StartupTaint
from metaplugin.npwg.definition import NetworkAttachmentDefinition

log = logging.getLogger(__name__)

T = TypeVar("T")

SETTLE_S = 0.5  # a server that is well lists in less


class ApiConnection:
    """All of a node's dealings with the API server. `start` follows it; without that only single
    requests are made, as a short-lived process does."""

    def __init__(
        self,
        *,
        kubeconfig: Path | None,
        node_name: str,
        definition_namespaces: tuple[str, ...],
        memory: Memory,
        learner: Learner,
        claim_memory: ClaimMemory,
        live_s: float = LIVE_TIMEOUT_S,
    ) -> None:
        """Read the credentials, nothing more; raise ApiUnconfigured."""
        self._learner = learner
        self._loop = asyncio.get_running_loop()
        api = Api(kubeconfig)
        health = Health(self._note_health)
        self._health = health
        self._calls = Calls(api, health)
        pods = pods_of_node(node_name)
        definitions = definitions_of(definition_namespaces)
        self._pods: Store[KnownPod] = Store((pods,), self._pods_changed)
        self._definitions: Store[Definition] = Store(definitions, self._definitions_changed)
        self._pod_reflector = Reflector(api, health, pods, partial(self._pods.deliver, pods))
        self._definition_reflectors = [
            Reflector(api, health, each, partial(self._definitions.deliver, each))
            for each in definitions
        ]
        self._reflectors: list[Reflector[KnownPod] | Reflector[Definition]] = [
            self._pod_reflector,
            *self._definition_reflectors,
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._taught: dict[Name, KnownPod] = {}
        self.recall = Recall(pods=self._pods, definitions=self._definitions, memory=memory)
        self.cluster = ApiCluster(
            recall=self.recall,
            learner=learner,
            live_pods=LiveLookUp(self._calls, health, pod_path, slim_pod, live_s),
            live_definitions=LiveLookUp(
                self._calls, health, definition_path, slim_definition, live_s
            ),
            health=health,
        )
        claims = ApiClaims(self._calls, health, node_name, live_s)
        self.claims = RememberedClaims(claims, claim_memory)
        self.status = ApiStatus(self._calls, health, self._pods)
        self.events = ApiEvents(self._calls, self._pods, node_name)
        self.evictor = ApiEvictor(self._calls, self.events)
        self._node_name = node_name

    def start(self, records: Iterable[Record]) -> None:
        """Follow the server from now on, and take up the statuses of live records."""
        records = tuple(records)
        self.status.resume(records)
        self._tasks = [
            asyncio.create_task(self.events.keep_writing()),
            asyncio.create_task(self._remember_pods()),
            asyncio.create_task(self._remember_definitions(_definitions_of(records))),
        ]
        for reflector in self._reflectors:
            reflector.start()

    def pods(self) -> Mapping[Name, KnownPod]:
        """Return this node's pods, none before they have been listed."""
        return self._pods.all() if self._pods.synced.is_set() else {}

    def startup_taint(self, key: str) -> StartupTaint:
        """Return this node's taints of that key."""
        return StartupTaint(self._calls, self._node_name, key)

    def state(self) -> ApiState:
        """Say how things stand now."""
        return ApiState(
            away=self._health.away,
            slow=self._health.slow,
            pods=_watch_state(self._pods, [self._pod_reflector]),
            definitions=_watch_state(self._definitions, self._definition_reflectors),
            statuses=self.status.missing(),
            events=self.events.waiting,
        )

    async def settle(self) -> None:
        """Give the server a moment to say what there is, so that the first pods need no last known
        copies; none if it is away. Without an answer it is slow: they won't wait for it."""
        waiting = [asyncio.create_task(wait()) for wait in (self.listed, self._calls.gone.wait)]
        await asyncio.wait(waiting, timeout=SETTLE_S, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        if not self._health.heard:
            self._health.waited_in_vain()
            self._calls.suspect()

    async def listed(self) -> None:
        """Return once it is known which pods and net-attach-defs there are."""
        for store in (self._pods, self._definitions):
            await store.synced.wait()

    async def close(self) -> None:
        """Follow no more; what waits to be written is lost, but for the records' statuses."""
        for reflector in self._reflectors:
            reflector.stop()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _remember_pods(self) -> None:
        """Once all are known: remember them whole, and look at what the records want."""
        await self._pods.synced.wait()
        self._taught = self._pods.all()
        self._learner.learn_all_pods(self._taught)
        self.status.look_at_all()

    async def _remember_definitions(self, in_use: Collection[Name]) -> None:
        """Once all are known: remember them whole, and look at each that pods use. One that isn't
        listed is asked for: it may be of a namespace that isn't followed."""
        await self._definitions.synced.wait()
        known = _well_formed(self._definitions.all()).items()
        self._learner.learn_all_definitions({name: found for name, found in known if found})
        for namespace, name in {*in_use, *await self._learner.used_definitions()}:
            try:
                await self.cluster.definition(namespace, name)
            except CNIError as exc:
                log.info("used definition not looked at", extra={"error": exc.msg})

    def _pods_changed(self, changes: Mapping[Name, KnownPod | None]) -> None:
        if self._pods.synced.is_set():
            self._teach(changes)
        self.status.pods_changed(name for name, pod in changes.items() if pod)

    def _teach(self, changes: Mapping[Name, KnownPod | None]) -> None:
        """Have remembered what ADD would ask for: most changes are of a pod's other parts."""
        news = {n: pod for n, pod in changes.items() if not _same(pod, self._taught.get(n))}
        if news:
            self._learner.learn_pods(news)
        for name, pod in news.items():
            if pod is None:
                self._taught.pop(name, None)
            else:
                self._taught[name] = pod

    def _definitions_changed(self, changes: Mapping[Name, Definition | None]) -> None:
        if self._definitions.synced.is_set():
            self._learner.learn_definitions(_well_formed(changes))

    def _note_health(self) -> None:
        """Have the loop see to it: called in whatever thread found out."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._health_changed)

    def _health_changed(self) -> None:
        self._calls.note_health()
        if self._calls.gone.is_set():
            log.warning("the Kubernetes API is away: last known copies serve")
        else:
            log.info("the Kubernetes API answers again")
            self.status.look_at_all()


def _watch_state(store: Store[T], reflectors: Sequence[Reflector[T]]) -> WatchState:
    """Return how a collection stands, by the worst of its parts."""
    return WatchState(
        listed=store.synced.is_set(),
        objects=store.count,
        heard=min(reflector.heard for reflector in reflectors),
        alive=all(reflector.alive for reflector in reflectors),
    )


def _definitions_of(records: Iterable[Record]) -> set[Name]:
    """Return the definitions that the records' attachments were made by: no other network's name
    has a slash."""
    networks = (made.planned.name for record in records for made in record.attachments)
    parts = (name.partition("/") for name in networks)
    return {(namespace, name) for namespace, slash, name in parts if slash}


def _same(new: KnownPod | None, old: KnownPod | None) -> bool:
    if new is None or old is None:
        return new is old
    return (new.uid, new.annotations) == (old.uid, old.annotations)


def _well_formed(
    definitions: Mapping[Name, Definition | None],
) -> dict[Name, NetworkAttachmentDefinition | None]:
    """Return what can be used of them; an older form of a malformed one is no more its last
    copy."""
    return {
        name: known if isinstance(known, NetworkAttachmentDefinition) else None
        for name, known in definitions.items()
    }
