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
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from metaplugin.attachments.record import StoredRecord
from metaplugin.cni.errors import CNIError
from metaplugin.commands.ports import Node
from metaplugin.daemon.cluster import ClusterSide, NoCluster, cluster_side
from metaplugin.daemon.config import DaemonConfig, KubeletConfig
from metaplugin.daemon.observation import Unobserved
from metaplugin.daemon.server import ReapSchedule, Server, Shims
from metaplugin.daemon.surroundings import RuntimePlace
from metaplugin.folder.configurations import ConfigurationFiles
from metaplugin.folder.connection import FolderConnection
from metaplugin.folder.device_info import DeviceInfoFolder
from metaplugin.folder.status import StatusFolder
from metaplugin.install.default_network import DefaultNetwork
from metaplugin.install.keeping import Keeper
from metaplugin.kubelet.answers import KubeletPlaces
from metaplugin.kubelet.connection import KubeletConnection
from metaplugin.state.database import StateDatabase
from metaplugin.state.records import RecordFolder

if TYPE_CHECKING:
    from metaplugin.daemon.metrics import Metrics

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
        device_info=device_info_folder(config, disk),
        kubelet=_kubelet(config.kubelet),
        claims=side.claims,
    )


def device_info_folder(config: DaemonConfig, disk: Executor) -> DeviceInfoFolder:
    return DeviceInfoFolder(Path(config.device_info_dir), disk)


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
        information = device_info_folder(config, disk)
        tidying = asyncio.create_task(_keep_tidy(records, side, information))
        parts = _Parts(
            config=config,
            node=wire(config, side, records, disk),
            records=records,
            side=side,
            pools={"disk": disk, "netlink": netlink},
        )
        await _serve(parts, stop)
        tidying.cancel()
        await side.close()
    await database.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What the daemon is made of; `pools` are its threads by what they do."""

    config: DaemonConfig
    node: Node
    records: RecordFolder
    side: ClusterSide
    pools: Mapping[str, Executor]


async def _serve(parts: _Parts, stop: asyncio.Event) -> None:
    # The metrics' library costs what the one short-lived request of standalone need not pay.
    from metaplugin.daemon.metrics import Metrics  # noqa: PLC0415

    config, node, metrics = parts.config, parts.node, Metrics()
    if node.kubelet:
        node = replace(node, kubelet=metrics.kubelet(node.kubelet))
    shims = Shims(
        node=node,
        netlink=parts.pools["netlink"],
        reaping=ReapSchedule(config.reap_interval_seconds),
        observer=metrics if config.metrics.address else Unobserved(),
        place=RuntimePlace() if config.delegate_api else None,
    )
    server = Server(path=config.run_dir / "daemon.sock", shims=shims)
    if node.cluster is None:
        log.warning(
            "no cluster: neither kubernetes nor manifests is configured, so pods get none of "
            "the networks that only their objects name"
        )
    async with (
        _installation(parts, server) as keeper,
        _oversight(parts, server, metrics, keeper),
        _delegate_api(config),
    ):
        gc.freeze()  # what has been imported stays: no collection looks through it again
        log.info("serving", extra={"socket": str(server.path)})
        await server.serve(stop)
        await server.drain(config.deadlines.drain_seconds)
    log.info("stopped")


@asynccontextmanager
async def _oversight(
    parts: _Parts, server: Server, metrics: Metrics, keeper: Keeper | None
) -> AsyncIterator[None]:
    """Watch over the daemon, for whoever runs it, while the block runs."""
    from metaplugin.daemon.oversight import Overseen, Oversight  # noqa: PLC0415 - as Metrics

    api = None if isinstance(parts.side, FolderConnection | NoCluster) else parts.side
    oversight = Oversight(
        parts.config,
        Overseen(
            server=server,
            records=parts.records,
            pools=parts.pools,
            api=api,
            installed=keeper.problem if keeper else None,
        ),
        metrics,
    )
    oversight.start()
    yield
    await oversight.close()


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
async def _installation(parts: _Parts, server: Server) -> AsyncIterator[Keeper | None]:
    """Keep the runtime's CNI configuration while the block runs, where that is configured; it stays
    afterwards."""
    installation, side = parts.config.installation, parts.side
    if installation is None:
        yield None
        return
    keeper = Keeper(
        path=installation.cni_conf_dir / installation.file_name,
        wanted=DefaultNetwork(parts.node, installation.network_name).configuration,
        events=side.events,
        disk=parts.pools["disk"],
        beside_multus=installation.beside_multus,
    )
    keeping = asyncio.create_task(_keep_when_usable(keeper, side, server))
    yield keeper
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


async def tidy_up(records: RecordFolder, side: ClusterSide, information: DeviceInfoFolder) -> None:
    """Remove what has outlived its record: old tombstones, device information, and the status files
    of pods that a shim deleted without a daemon; never raise."""
    try:
        await records.drop_old_tombstones()
        written = await information.written()  # before the records: those are there earlier
        await information.drop_all_but(await records.survey(), written)
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


async def _keep_tidy(
    records: RecordFolder, side: ClusterSide, information: DeviceInfoFolder
) -> None:
    while True:
        await tidy_up(records, side, information)
        for _ in range(TIDY_INTERVAL_S // TRIM_S):
            await asyncio.sleep(TRIM_S)
            gc.collect()
            _trim_memory()


def _trim_memory() -> None:
    """Have the C library give free memory back: by itself it does so at its heap's end only, and a
    daemon grows by 2 KB a pod. Other C libraries than glibc have no need."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
