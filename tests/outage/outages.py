"""The outages of the API server: how each begins and ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.controlplane.cluster import Cluster
from tests.controlplane.proxy import FaultProxy

SLOW_S = 5


@dataclass(frozen=True)
class Outage:
    """`direct`: the daemon asks the server itself, so that the kernel answers for what is gone;
    else by the proxy. `away`: there is no answer at all, so the breaker opens."""

    name: str
    begin: Callable[[Cluster, FaultProxy], None]
    direct: bool = False
    away: bool = True

    def end(self, cluster: Cluster, proxy: FaultProxy) -> None:
        """Return when the server is there and ready."""
        if self.direct:
            cluster.kill()  # as a kubelet does with what it has asked to end
            cluster.start()
        else:
            proxy.heal()


def _stop(cluster: Cluster, proxy: FaultProxy) -> None:
    """Ask the server to end: it refuses who connects, and keeps its watches open for a minute."""
    cluster.api.terminate()
    while _accepts(cluster.port):
        time.sleep(0.02)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


OUTAGES = (
    Outage("stopped", _stop, direct=True),
    Outage("killed", lambda cluster, proxy: cluster.kill(), direct=True),
    Outage("slow", lambda cluster, proxy: proxy.slow(SLOW_S), away=False),
    Outage("500", lambda cluster, proxy: proxy.answer(500), away=False),
    Outage("429", lambda cluster, proxy: proxy.answer(429, retry_after=1), away=False),
    Outage("dropped", lambda cluster, proxy: proxy.drop()),
)
