"""HTTP/1.1 on a listening socket: h11 reads and writes the protocol, asyncio the bytes.

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
    query: str = ""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may take. With `sheds_busy` one too many is let in even at the cost of an
    answer that is under way: for answers that need no undoing."""

    body: int = MAX_BODY
    idle_s: float = IDLE_S
    sheds_busy: bool = False


@dataclass(slots=True, kw_only=True)
class HttpServer:
    """Answers requests on a listening socket by `respond`, until it is closed. A unix socket is
    root's alone. A client too many is let in at the cost of who has been idle for longest."""

    respond: Respond
    limits: Limits = Limits()
    _listener: asyncio.Server | None = None
    _busy: set[asyncio.Task[None]] = field(default_factory=set)
    _connections: dict[asyncio.Task[None], None] = field(default_factory=dict)  # oldest first

    async def start(self, listener: socket.socket) -> None:
        start = (
            asyncio.start_unix_server if listener.family == socket.AF_UNIX else asyncio.start_server
        )
        self._listener = await start(self._connected, sock=listener)

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
        if task is None or not _is_admitted(writer) or not self._has_room():
            log.error("refused an HTTP client: it isn't root, or one too many")
            writer.close()
            return
        self._connections[task] = None
        try:
            await self._serve(_Connection(reader, writer, self.limits), task)
            writer.close()
            async with asyncio.timeout(WRITE_S):
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError) as exc:
            log.debug("HTTP connection ended", extra={"error": repr(exc)})
        except Exception:
            log.exception("defect")
        finally:
            self._busy.discard(task)
            self._connections.pop(task, None)
            writer.transport.abort()  # what a client doesn't read would keep it for ever

    def _has_room(self) -> bool:
        """Say whether one more can be served, having closed the oldest idle connection for it."""
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        candidates = [task for task in self._connections if task not in self._busy]
        if self.limits.sheds_busy:
            candidates += self._connections
        oldest = next(iter(candidates), None)
        if oldest is None:
            return False
        del self._connections[oldest]
        oldest.cancel()
        return True

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
            if task in self._connections:
                self._connections[task] = self._connections.pop(task)

    async def _received(self, connection: _Connection) -> HttpRequest | None:
        try:
            return await connection.receive()
        except _BadRequest as exc:
            refusal = HttpResponse(status=exc.status, body=f"{exc}\n".encode())
            with contextlib.suppress(h11.LocalProtocolError):
                await connection.send(refusal)
            return None


class _Connection:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits
    ) -> None:
        self._limits = limits
        self._reader = reader
        self._writer = writer
        self._bodiless = False  # the answer to a HEAD
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER_LIMIT)

    async def receive(self) -> HttpRequest | None:
        """Return the next request, None when there is none to come; raise _BadRequest."""
        try:
            async with asyncio.timeout(self._limits.idle_s):
                head = await self._event()
            if not isinstance(head, h11.Request):
                return None
            self._bodiless = head.method == b"HEAD"
            async with asyncio.timeout(REQUEST_S):
                body = await self._body()
        except h11.RemoteProtocolError as exc:
            raise _BadRequest(exc.error_status_hint, str(exc)) from exc
        path, _, query = head.target.decode(errors="replace").partition("?")
        return HttpRequest(method=head.method.decode(), path=path, body=body, query=query)

    async def send(self, response: HttpResponse) -> None:
        """Send an answer; raise OSError or TimeoutError where it can't be delivered."""
        headers = [
            ("Content-Length", str(len(response.body))),
            ("Content-Type", response.content_type),
        ]
        events = (
            h11.Response(status_code=response.status, headers=headers),
            h11.Data(data=b"" if self._bodiless else response.body),
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
            if len(body) > self._limits.body:
                raise _BadRequest(413, f"a body may have {self._limits.body} bytes")
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


def _is_admitted(writer: asyncio.StreamWriter) -> bool:
    """Say whether the peer is root; over TCP, where that can't be told, everybody is let in."""
    peer = writer.get_extra_info("socket")
    if peer.family != socket.AF_UNIX:
        return True
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid) == 0
