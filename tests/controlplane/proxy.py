"""A proxy before the API server, with faults on demand; it counts what is asked.

It ends TLS with the server's own certificate, so clients that trust the cluster's authority trust
it. An event loop in a thread of its own serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.controlplane.cluster import Cluster, free_port
from tests.controlplane.relay import Fault, Relay, Route
from tests.controlplane.request import Request

T = TypeVar("T")


class FaultProxy:
    """`with FaultProxy(cluster) as proxy:` then use `proxy.url`; `heal()` ends every fault."""

    def __init__(self, cluster: Cluster) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*cluster.server_certificate)
        self._flowing = asyncio.Event()
        self._route = Route(
            tls, cluster.port, cluster.authority.client_context(), self._flowing, self._decide
        )
        self._port = free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self._fault = Fault()
        self._dropping = False
        self._requests: list[Request] = []
        self._relays: set[Relay] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self.heal()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pass_packets()
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- what was asked

    @property
    def requests(self) -> list[Request]:
        return list(self._requests)

    def count(self, verb: str = "", resource: str = "") -> int:
        """Return how many requests there were, since `forget`, of a verb and a resource."""
        return sum(
            verb in {"", request.verb} and resource in {"", request.resource}
            for request in self.requests
        )

    def forget(self) -> None:
        self._requests.clear()

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return sum(relay.watching for relay in list(self._relays))

    # --- faults

    def heal(self) -> None:
        """End every fault; what was frozen goes on."""
        self._fault = Fault()
        self._pass_packets()
        self._run(self._listen())

    def _pass_packets(self) -> None:
        if self._dropping:
            self._filter_packets("-D")
            self._dropping = False

    def slow(
        self, seconds: float, matches: Callable[[Request], bool] = lambda request: True
    ) -> None:
        """Hold each answer back for a while; the server gets the request at once."""
        self._fault = Fault(delay=seconds, matches=matches)

    def answer(
        self,
        status: int,
        retry_after: int | None = None,
        matches: Callable[[Request], bool] = lambda request: True,
    ) -> None:
        """Answer with an error, without asking the server; watches that are open stay."""
        self._fault = Fault(status=status, retry_after=retry_after, matches=matches)

    def refuse(self) -> None:
        """Refuse new connections, and reset those that are open."""
        self._run(self._refuse())

    def freeze(self) -> None:
        """Nothing moves in either direction, and who connects is never answered; but TCP is."""
        self._run(self._freeze())

    def drop(self) -> None:
        """Drop every packet between clients and proxy in the kernel, as a dead network does."""
        self._filter_packets("-I")
        self._dropping = True

    def _filter_packets(self, action: str) -> None:
        for end in ("--dport", "--sport"):
            rule = ["INPUT", "-p", "tcp", end, str(self._port), "-j", "DROP"]
            subprocess.run(["iptables", "-w", action, *rule], check=True)

    def cut(self) -> int:
        """Reset every open connection; return how many there were."""
        return self._run(self._cut(lambda relay: True))

    def cut_watches(self) -> int:
        """Reset the connections on which a watch is open; return how many there were."""
        return self._run(self._cut(lambda relay: relay.watching))

    def inject(self, data: bytes) -> int:
        """Send the data on each open watch, between two events; return how many there were."""
        return self._run(self._inject(data))

    # --- in the loop

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _decide(self, request: Request) -> Fault:
        self._requests.append(request)
        fault = self._fault
        return fault if fault.matches(request) else Fault()

    async def _listen(self) -> None:
        self._flowing.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port), backlog=512)
            self._listener.setblocking(False)
            self._accepting = self._loop.create_task(self._accept(self._listener))

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            task = self._loop.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        relay = Relay(client, self._route)
        self._relays.add(relay)
        try:
            await relay.serve()
        except (OSError, EOFError):
            pass  # either side went away, or a fault cut it
        finally:
            relay.close()
            self._relays.discard(relay)

    async def _refuse(self) -> None:
        if self._listener is not None and self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
            self._listener.close()
            self._listener = None
        await self._cut(lambda relay: True)

    async def _freeze(self) -> None:
        self._flowing.clear()

    async def _cut(self, chosen: Callable[[Relay], bool]) -> int:
        doomed = [relay for relay in self._relays if chosen(relay)]
        for relay in doomed:
            relay.reset()
        return len(doomed)

    async def _inject(self, data: bytes) -> int:
        watching = [relay for relay in self._relays if relay.watching]
        for relay in watching:
            relay.inject(data)
        return len(watching)

    async def _close(self) -> None:
        await self._refuse()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
