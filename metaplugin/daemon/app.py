"""The daemon's wiring and life: made from its configuration, serving until SIGTERM, draining then.

Records and configuration stay when it ends; the next daemon, or the shim alone, goes on from them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from metaplugin.attachments.record import Record
from metaplugin.cni.errors import CNIError
from metaplugin.commands.ports import Cluster, Memory, Node
from metaplugin.commands.remembered import RememberedCluster
from metaplugin.daemon.config import DaemonConfig
from metaplugin.daemon.server import ReapSchedule, Server, Shims
from metaplugin.folder.configurations import ConfigurationFolder
from metaplugin.folder.manifests import ManifestFolder
from metaplugin.folder.status import StatusFolder
from metaplugin.state.database import StateDatabase
from metaplugin.state.records import RecordFolder

log = logging.getLogger(__name__)

TOMBSTONE_SWEEP_S = 3600


class Unpublished:
    """The port StatusPublisher where no cluster is configured: there is no pod to write to."""

    async def publish(self, record: Record) -> None:
        """Drop `record`."""

    async def withdraw(self, record: Record) -> None:
        """Drop `record`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """A node's parts, and those of them that have a life of their own."""

    node: Node
    records: RecordFolder
    status: StatusFolder | None


def wire(config: DaemonConfig, memory: Memory, disk: Executor) -> Wiring:
    """Return the node that a configuration describes; blocking work goes to `disk`."""
    records = RecordFolder(config.state_dir, disk)
    cluster, status = _cluster(config, memory, disk)
    node = Node(
        settings=config.settings(),
        cluster=cluster,
        configurations=ConfigurationFolder(config.conf_dir, disk),
        records=records,
        status=status or Unpublished(),
        planning=asyncio.Semaphore(config.planning_limit),
    )
    return Wiring(node=node, records=records, status=status)


async def run_daemon(config: DaemonConfig) -> None:
    """Serve until SIGTERM or SIGINT; raise OSError if the socket or folders can't be made."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = StateDatabase(config.state_dir / "state.db")
    await database.open()
    with (
        ThreadPoolExecutor(max_workers=4, thread_name_prefix="disk") as disk,
        ThreadPoolExecutor(max_workers=4, thread_name_prefix="netlink") as netlink,
    ):
        wiring = wire(config, database, disk)
        background = [asyncio.create_task(_sweep_tombstones(wiring.records))]
        if wiring.status:
            wiring.status.resume(stored.record for stored in await wiring.records.read_all())
            background.append(asyncio.create_task(wiring.status.keep_writing()))
        await _serve(config, wiring.node, netlink, stop)
        await _end(background)
    await database.close()


def _cluster(
    config: DaemonConfig, memory: Memory, disk: Executor
) -> tuple[Cluster | None, StatusFolder | None]:
    manifests = config.manifests
    if manifests is None:
        return None, None
    cluster = RememberedCluster(ManifestFolder(manifests.folder, disk), memory)
    return cluster, StatusFolder(manifests.status_folder, disk)


async def _serve(
    config: DaemonConfig, node: Node, netlink: ThreadPoolExecutor, stop: asyncio.Event
) -> None:
    gc.freeze()  # what has been imported stays: no collection looks through it again
    server = Server(
        path=config.run_dir / "daemon.sock",
        shims=Shims(node=node, netlink=netlink, reaping=ReapSchedule(config.reap_interval_seconds)),
    )
    log.info("serving", extra={"socket": str(server.path)})
    await server.serve(stop)
    await server.drain(config.deadlines.drain_seconds)
    log.info("stopped")


async def _sweep_tombstones(records: RecordFolder) -> None:
    while True:
        try:
            await records.drop_old_tombstones()
        except CNIError as exc:
            log.error("tombstones not swept", extra={"error": exc.msg})
        await asyncio.sleep(TOMBSTONE_SWEEP_S)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
