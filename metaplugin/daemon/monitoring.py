"""The daemon's own HTTP: `/metrics`, `/healthz`, `/readyz`, for the kubelet and Prometheus.

Nothing in it is secret, and nothing can be changed by it. That its port is taken, as by the daemon
that this one replaces, is no reason not to serve pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from metaplugin.daemon.config import Address
from metaplugin.daemon.http import HttpRequest, HttpResponse, HttpServer, Limits
from metaplugin.daemon.probes import Probes

log = logging.getLogger(__name__)

RETRY_S = 10
BACKLOG = 32
# Prometheus asks every 15 to 60 s, over one connection; whoever takes all keeps no probe out.
_LIMITS = Limits(body=0, idle_s=120, sheds_busy=True)

Scrape = Callable[[], Awaitable[bytes]]


class Monitoring:
    """The listener. `start` returns at once; a port that is taken is tried again."""

    def __init__(self, address: Address, probes: Probes, scrape: Scrape) -> None:
        self._address = address
        self._probes = probes
        self._scrape = scrape
        self._http = HttpServer(respond=self.respond, limits=_LIMITS)
        self._starting: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._starting = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._starting:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._starting
        await self._http.close(0)

    async def respond(self, request: HttpRequest) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(status=405, body=b"there is only GET\n")
        if request.path == "/metrics":
            return HttpResponse(
                status=200, body=await self._scrape(), content_type=CONTENT_TYPE_PLAIN_0_0_4
            )
        unknown = HttpResponse(status=404, body=b"there are /metrics, /healthz and /readyz\n")
        return self._probes.respond(request) or unknown

    async def _listen(self) -> None:
        complaint = ""
        while True:
            try:
                await self._http.start(_bound(self._address))
            except OSError as exc:
                if str(exc) != complaint:
                    complaint = str(exc)
                    log.error(
                        "no metrics and probes: the address can't be had, and is tried again",
                        extra={"listen": str(self._address), "error": complaint},
                    )
                await asyncio.sleep(RETRY_S)
            else:
                log.info("metrics and probes", extra={"listen": str(self._address)})
                return


def _bound(address: Address) -> socket.socket:
    listener = socket.create_server(
        (address.host, address.port),
        family=socket.AF_INET6 if ":" in address.host else socket.AF_INET,
        dualstack_ipv6=address.host == "::" and socket.has_dualstack_ipv6(),
        backlog=BACKLOG,
    )
    listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return listener
