"""HTTP/1.1 on a unix socket, for root alone: h11 reads and writes the protocol, asyncio the bytes.

One request of a connection is under way at a time; sizes, times and connections are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import h11

from metaplugin.wire.frames import MAX_STREAM

log = logging.getLogger(__name__)

IDLE_S = 300  # between requests; a client that comes later connects anew
REQUEST_S = 30  # from a request's first byte to its last
WRITE_S = 10
MAX_CONNECTIONS = 64
MAX_BODY = 2 * MAX_STREAM  # a configuration of 16 MiB in base64, and an envelope
_HEADER_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """An answer; `undo` is run where it doesn't reach the client."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    undo: Callable[[], Awaitable[None]] | None = None


class _BadRequest(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


Respond = Callable[[HttpRequest], Awaitable[HttpResponse]]


@dataclass(slots=True, kw_only=True)
class HttpServer:
    """Answers requests on a listening socket by `respond`, until it is closed."""

    respond: Respond
    _listener: asyncio.Server | None = None
    _busy: set[asyncio.Task[None]] = field(default_factory=set)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, listener: socket.socket) -> None:
        self._listener = await asyncio.start_unix_server(self._connected, sock=listener)

    async def close(self, limit_s: float) -> None:
        """Accept nothing more, and wait for the answers under way, at most `limit_s`."""
        if self._listener:
            self._listener.close()
        if self._busy:
            await asyncio.wait(self._busy, timeout=limit_s)
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS or _peer_uid(writer) != 0:
            log.error("refused an HTTP client: it isn't root, or one too many")
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._serve(_Connection(reader, writer), task)
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError) as exc:
            log.debug("HTTP connection ended", extra={"error": repr(exc)})
        except Exception:
            log.exception("defect")
        finally:
            self._busy.discard(task)
            self._connections.discard(task)
            writer.close()

    async def _serve(self, connection: _Connection, task: asyncio.Task[None]) -> None:
        while (request := await self._received(connection)) is not None:
            self._busy.add(task)
            response = await self.respond(request)
            try:
                await connection.send(response)
            except (OSError, TimeoutError):
                if response.undo:
                    await response.undo()
                raise
            self._busy.discard(task)
            if not connection.start_next():
                return

    async def _received(self, connection: _Connection) -> HttpRequest | None:
        try:
            return await connection.receive()
        except _BadRequest as exc:
            refusal = HttpResponse(status=exc.status, body=f"{exc}\n".encode())
            with contextlib.suppress(h11.LocalProtocolError):
                await connection.send(refusal)
            return None


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER_LIMIT)

    async def receive(self) -> HttpRequest | None:
        """Return the next request, None when there is none to come; raise _BadRequest."""
        try:
            async with asyncio.timeout(IDLE_S):
                head = await self._event()
            if not isinstance(head, h11.Request):
                return None
            async with asyncio.timeout(REQUEST_S):
                body = await self._body()
        except h11.RemoteProtocolError as exc:
            raise _BadRequest(exc.error_status_hint, str(exc)) from exc
        path = head.target.decode(errors="replace").partition("?")[0]
        return HttpRequest(method=head.method.decode(), path=path, body=body)

    async def send(self, response: HttpResponse) -> None:
        """Send an answer; raise OSError or TimeoutError where it can't be delivered."""
        headers = [
            ("Content-Length", str(len(response.body))),
            ("Content-Type", response.content_type),
        ]
        events = (
            h11.Response(status_code=response.status, headers=headers),
            h11.Data(data=response.body),
            h11.EndOfMessage(),
        )
        for event in events:
            self._writer.write(self._h11.send(event) or b"")
        async with asyncio.timeout(WRITE_S):
            await asyncio.sleep(0)  # lets a failed write be known to drain
            await self._writer.drain()

    def start_next(self) -> bool:
        """Say whether the connection is good for another request, and make it ready."""
        if self._h11.our_state is h11.MUST_CLOSE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def _body(self) -> bytes:
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise _BadRequest(413, f"a body may have {MAX_BODY} bytes")
        if not isinstance(event, h11.EndOfMessage):
            raise EOFError("the client closed within its request")
        return bytes(body)

    async def _event(self) -> object:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if self._h11.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._h11.send(go_on) or b"")
            self._h11.receive_data(await self._reader.read(1 << 16))
        return event


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    peer = writer.get_extra_info("socket")
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])
