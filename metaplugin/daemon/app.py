"""The daemon's wiring and life: made from its configuration, serving until SIGTERM, draining then.

Records and configuration stay when it ends; the next daemon, or the shim alone, goes on from them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import NamedTuple

from metaplugin.attachments.record import StoredRecord
from metaplugin.cni.errors import CNIError
from metaplugin.commands.ports import Node
from metaplugin.daemon.cluster import ClusterSide, cluster_side
from metaplugin.daemon.config import DaemonConfig, KubeletConfig
from metaplugin.daemon.server import ReapSchedule, Server, Shims
from metaplugin.daemon.surroundings import RuntimePlace
from metaplugin.folder.configurations import ConfigurationFiles
from metaplugin.folder.connection import FolderConnection
from metaplugin.folder.status import StatusFolder
from metaplugin.install.default_network import DefaultNetwork
from metaplugin.install.keeping import Keeper
from metaplugin.kubelet.answers import KubeletPlaces
from metaplugin.kubelet.connection import KubeletConnection
from metaplugin.state.database import StateDatabase
from metaplugin.state.records import RecordFolder

log = logging.getLogger(__name__)

TIDY_INTERVAL_S = 3600
TRIM_S = 60
LISTED_S = 10  # a server that is well has listed everything in less
API_CLOSE_S = 5  # for answers of shims that have been served


def wire(config: DaemonConfig, side: ClusterSide, records: RecordFolder, disk: Executor) -> Node:
    """Return the node that a configuration describes; blocking work goes to `disk`."""
    return Node(
        settings=config.settings(),
        cluster=side.cluster,
        recall=side.recall,
        configurations=ConfigurationFiles(disk),
        records=records,
        status=side.status,
        events=side.events,
        kubelet=_kubelet(config.kubelet),
        claims=side.claims,
    )


def _kubelet(config: KubeletConfig) -> KubeletConnection:
    # Once imported, grpc's core would write lines of its own into our log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    places = KubeletPlaces(
        socket=config.socket, checkpoint=config.checkpoint, timeout_s=config.timeout_seconds
    )
    return KubeletConnection(places)


async def run_daemon(config: DaemonConfig) -> None:
    """Serve until SIGTERM or SIGINT; raise OSError if the socket or folders can't be made,
    ConfigurationError for credentials that can't be used."""
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
        records = RecordFolder(config.state_dir, disk)
        side = cluster_side(config, database, disk)
        side.start([stored.record for stored in await records.read_all()])
        await side.settle()
        tidying = asyncio.create_task(_keep_tidy(records, side))
        await _serve(config, wire(config, side, records, disk), side, Pools(disk, netlink), stop)
        tidying.cancel()
        await side.close()
    await database.close()


class Pools(NamedTuple):
    """The threads for what blocks."""

    disk: Executor
    netlink: Executor


async def _serve(
    config: DaemonConfig, node: Node, side: ClusterSide, pools: Pools, stop: asyncio.Event
) -> None:
    gc.freeze()  # what has been imported stays: no collection looks through it again
    shims = Shims(
        node=node,
        netlink=pools.netlink,
        reaping=ReapSchedule(config.reap_interval_seconds),
        place=RuntimePlace() if config.delegate_api else None,
    )
    server = Server(path=config.run_dir / "daemon.sock", shims=shims)
    if node.cluster is None:
        log.warning(
            "no cluster: neither kubernetes nor manifests is configured, so pods get none of "
            "the networks that only their objects name"
        )
    async with _delegate_api(config), _installation(config, node, side, server, pools.disk):
        log.info("serving", extra={"socket": str(server.path)})
        await server.serve(stop)
        await server.drain(config.deadlines.drain_seconds)
    log.info("stopped")


@asynccontextmanager
async def _delegate_api(config: DaemonConfig) -> AsyncIterator[None]:
    """Offer hot-plug while the block runs, where that is configured."""
    if config.delegate_api is None:
        yield
        return
    # The HTTP parser costs what only who uses it pays.
    from metaplugin.daemon.delegate_api import DelegateApi  # noqa: PLC0415

    api = DelegateApi(config.delegate_api)
    await api.start()
    yield
    await api.close(API_CLOSE_S)


@asynccontextmanager
async def _installation(
    config: DaemonConfig, node: Node, side: ClusterSide, server: Server, disk: Executor
) -> AsyncIterator[None]:
    """Keep the runtime's CNI configuration while the block runs, where that is configured; it stays
    afterwards."""
    if config.installation is None:
        yield
        return
    installation = config.installation
    keeper = Keeper(
        path=installation.cni_conf_dir / installation.file_name,
        wanted=DefaultNetwork(node, installation.network_name).configuration,
        events=side.events,
        disk=disk,
        beside_multus=installation.beside_multus,
    )
    keeping = asyncio.create_task(_keep_when_usable(keeper, side, server))
    yield
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


async def _keep_when_usable(keeper: Keeper, side: ClusterSide, server: Server) -> None:
    """Keep the CNI configuration once pods can be served. Where the cluster can't say what there is
    a pod that is told to try again is better than one without its networks."""
    await server.listening.wait()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(side.listed(), LISTED_S)
    await keeper.keep()


async def tidy_up(records: RecordFolder, side: ClusterSide) -> None:
    """Remove what has outlived its record: old tombstones, and the status files of pods that a shim
    deleted without a daemon; never raise."""
    try:
        await records.drop_old_tombstones()
        if isinstance(side, FolderConnection):
            await _drop_orphans(records, side.status)
    except (CNIError, OSError) as exc:
        log.error("not tidied up", extra={"error": str(exc)})


async def _drop_orphans(records: RecordFolder, status: StatusFolder) -> None:
    written = await status.written()
    survey = (await records.survey()).values()
    live = [stored.record for stored in survey if isinstance(stored, StoredRecord)]
    if len(live) == len(survey):  # a damaged record doesn't say whose it is
        await status.drop_all_but(live, written)


async def _keep_tidy(records: RecordFolder, side: ClusterSide) -> None:
    while True:
        await tidy_up(records, side)
        for _ in range(TIDY_INTERVAL_S // TRIM_S):
            await asyncio.sleep(TRIM_S)
            gc.collect()
            _trim_memory()


def _trim_memory() -> None:
    """Have the C library give free memory back: by itself it does so at its heap's end only, and a
    daemon grows by 2 KB a pod. Other C libraries than glibc have no need."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
