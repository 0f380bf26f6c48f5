"""All that the daemon does for whoever runs it, beside serving shims: metrics, probes, pods that
lack their networks, the startup taint."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaplugin.commands.unattached import RecordSurvey, UnattachedPods
from metaplugin.daemon.config import DaemonConfig, KubernetesConfig
from metaplugin.daemon.metrics import Metrics
from metaplugin.daemon.monitoring import Monitoring
from metaplugin.daemon.node_metrics import RecordCensus, node_metrics
from metaplugin.daemon.probes import Check, PoolCheck, Probes
from metaplugin.daemon.server import Server
from metaplugin.k8s.state import ApiState

if TYPE_CHECKING:
    from metaplugin.k8s.connection import ApiConnection

log = logging.getLogger(__name__)

LOOK_S = 15  # also the pace of evictions: one a look
READY_S = 1  # between two looks whether the startup taint can go
# Beyond a request's own time: the DEL of an ADD whose result reached nobody has as much, then
# comes the shim that was lent, and a plugin that it runs to its deadline.
STUCK_MARGIN_S = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Overseen:
    """What is watched; `pools` are the daemon's threads by what they do, `api` is None where there
    is no API server, `installed` where nobody keeps the runtime's CNI configuration in place."""

    server: Server
    records: RecordSurvey
    pools: Mapping[str, Executor]
    api: ApiConnection | None
    installed: Check | None = None


class Oversight:
    """Runs from `start` to `close`; nothing in it keeps a shim from being served."""

    def __init__(self, config: DaemonConfig, overseen: Overseen, metrics: Metrics) -> None:
        self._kubernetes = config.kubernetes or KubernetesConfig()
        self._metrics = metrics
        self._api = api = overseen.api
        self._census = RecordCensus(overseen.records)
        self._scraping = asyncio.Lock()
        self.probes = Probes(live=_live(config, overseen), ready=_ready(overseen))
        self._unattached = None
        if api:
            self._unattached = UnattachedPods(
                pods=api.pods,
                settings=overseen.server.shims.node.settings,
                records=overseen.records,
                events=api.events,
            )
        address = config.metrics.address
        self._monitoring = Monitoring(address, self.probes, self._scrape) if address else None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        if self._monitoring:
            self._monitoring.start()
        if self._api and self._unattached:
            self._begin(self._watch_unattached(self._api, self._unattached))
        if self._api and (key := self._kubernetes.startup_taint):
            self._begin(self._remove_taint(self._api, key))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._monitoring:
            await self._monitoring.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _watch_unattached(self, api: ApiConnection, unattached: UnattachedPods) -> None:
        while True:
            try:
                await unattached.look(time.monotonic())
                if self._kubernetes.on_missing == "evict":
                    await self._evict_one(api, unattached)
            except Exception:  # a task's root: what it looks for was made by others
                log.exception("defect")
            await asyncio.sleep(LOOK_S)

    async def _evict_one(self, api: ApiConnection, unattached: UnattachedPods) -> None:
        if not self.probes.is_ready():  # the successor would lack its networks too
            unattached.interrupted()
            return
        going = await unattached.evict_one(api.evictor, time.monotonic())
        if going is not None:
            self._metrics.evicted(going=going)

    async def _remove_taint(self, api: ApiConnection, key: str) -> None:
        try:
            while not self.probes.is_ready():  # noqa: ASYNC110 - files and other hosts tell no event
                await asyncio.sleep(READY_S)
            await api.startup_taint(key).remove()
        except Exception:  # a task's root
            log.exception("defect")

    async def _scrape(self) -> bytes:
        async with self._scraping:  # whoever may connect gets no more than one thread's time
            await self._census.refresh()
            found = None if self._unattached is None else len(self._unattached.found)
            api = self._api.state() if self._api else None
            now = tuple(node_metrics(self._census.counts, api, found))
            # beside the event loop, on which pods wait
            return await asyncio.to_thread(self._metrics.exposition, now)


def _live(config: DaemonConfig, overseen: Overseen) -> dict[str, Check]:
    server, api = overseen.server, overseen.api
    limit = 2 * config.deadlines.request_seconds + STUCK_MARGIN_S

    def requests() -> str:
        oldest = server.oldest_s()
        return f"a request has been under way for {oldest:.0f} s" if oldest > limit else ""

    def socket() -> str:
        # one that another daemon has put in its place is the readiness check's concern
        return "" if server.draining or server.path.exists() else f"{server.path} is gone"

    def watches() -> str:
        state = api.state() if api else None
        alive = state is None or (state.pods.alive and state.definitions.alive)
        return "" if alive else "a thread that follows the API server has ended"

    pools: dict[str, Check] = {name: PoolCheck(pool) for name, pool in overseen.pools.items()}
    return {"requests": requests, "socket": socket, "watches": watches, **pools}


def _ready(overseen: Overseen) -> dict[str, Check]:
    server, api = overseen.server, overseen.api

    def serving() -> str:
        return "draining" if server.draining else server.socket_problem()

    def cluster() -> str:
        return _unlisted(api.state()) if api else ""

    installed = {"cni-configuration": overseen.installed} if overseen.installed else {}
    return {"serving": serving, "cluster": cluster, **installed}


def _unlisted(state: ApiState) -> str:
    """Return what isn't known of the cluster. While the server is away last known copies serve, and
    no restart or waiting would help."""
    watches = {"pods": state.pods, "net-attach-defs": state.definitions}
    missing = [name for name, watch in watches.items() if not watch.listed]
    return "" if state.away or not missing else f"not listed yet: {', '.join(missing)}"
