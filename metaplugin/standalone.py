"""The flows in one short-lived process: the composition root for where no daemon runs.

The shim starts it and is its only client, over a socket it was born with; so delegates, locks and
records are the same program's as ever, and whoever holds the sandbox's lock is the only one at
work.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from concurrent.futures import Executor, ThreadPoolExecutor

from metaplugin.daemon.app import device_info_folder, tidy_up, wire
from metaplugin.daemon.cluster import ClusterSide, MemoryAlone, cluster_side
from metaplugin.daemon.config import ConfigurationError, DaemonConfig
from metaplugin.daemon.server import ReapSchedule, Shims
from metaplugin.state.database import StateSnapshot
from metaplugin.state.records import RecordFolder

log = logging.getLogger(__name__)


async def run_standalone(config: DaemonConfig, descriptor: int) -> None:
    """Answer the request of the shim at the other end of the socket `descriptor`, which is closed.

    Left-over records are left to a daemon, and so is the database: it is only read.
    """
    memory = StateSnapshot(config.state_dir / "state.db")
    await memory.open()
    with (
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="disk") as disk,
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink") as netlink,
    ):
        records = RecordFolder(config.state_dir, disk)
        side = _side(config, memory, disk)
        await tidy_up(
            records, side, device_info_folder(config, disk)
        )  # first: this process ends with the shim
        shims = Shims(
            node=wire(config, side, records, disk),
            netlink=netlink,
            reaping=ReapSchedule(interval_s=math.inf, last=time.monotonic()),
        )
        await shims.serve(socket.socket(fileno=descriptor))
    await memory.close()


def _side(config: DaemonConfig, memory: StateSnapshot, disk: Executor) -> ClusterSide:
    """Return the configured cluster; without usable credentials, what a daemon has remembered of
    it: nothing above the node may keep a pod from starting."""
    try:
        return cluster_side(config, memory, disk)
    except ConfigurationError as exc:
        log.warning("the cluster can't be asked", extra={"error": str(exc)})
        return MemoryAlone(memory, str(exc))
