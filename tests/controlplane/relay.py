"""One client's connection through the proxy: HTTP/1.1 in TLS, one request after another."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.controlplane.request import Request

_LIMIT = 1 << 20  # bytes; the longest head
_RESET = struct.pack("ii", 1, 0)  # linger for no time: the peer gets a RST


@dataclass(frozen=True)
class Fault:
    """What happens to the requests that `matches` picks: an answer of our own, or a late one."""

    delay: float = 0.0  # seconds before the answer; the server has the request at once
    status: int = 0  # answer this, and don't ask the server
    retry_after: int | None = None
    matches: Callable[[Request], bool] = lambda request: True


@dataclass(frozen=True)
class Route:
    """What connections share: both ends' TLS, the server's port, what is done to requests."""

    tls: ssl.SSLContext
    port: int
    server_tls: ssl.SSLContext
    flowing: asyncio.Event
    decide: Callable[[Request], Fault]


class Relay:
    """Serves a client until either side ends, or `reset` does."""

    def __init__(self, client: socket.socket, route: Route) -> None:
        self._client, self._route = client, route
        self._transports: list[asyncio.WriteTransport] = []
        self._writer: asyncio.StreamWriter | None = None  # to the client
        self.watching = False

    def reset(self) -> None:
        """End it as a broken connection ends: no end of TLS, no end of a chunked body."""
        if self._client.fileno() >= 0:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for transport in self._transports:
            transport.abort()

    def inject(self, data: bytes) -> None:
        """Send the client of an open watch what the server didn't."""
        if self.watching and self._writer is not None:
            self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def close(self) -> None:
        self.reset()
        if not self._transports:  # else the client's socket is the first one's
            self._client.close()

    async def serve(self) -> None:
        """Relay requests; raise OSError or EOFError when a side has gone."""
        await self._route.flowing.wait()
        reader, writer = await self._accept()
        self._writer = writer
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while head := await _head(reader):
            method, target, _ = head.decode("latin-1").split(" ", 2)
            request = Request(method, target, time.monotonic())
            fault = self._route.decide(request)
            if fault.status:
                await self._body(reader, None, head)
                await self._write(writer, _own_answer(fault))
                continue
            server = server or await self._connect()
            await self._write(server[1], head)
            await self._body(reader, server[1], head)
            await self._answer(request, server[0], writer, fault.delay)

    async def _accept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LIMIT)
        protocol = _Client(reader, self.reset)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, self._client, ssl=self._route.tls
        )
        self._transports.append(transport)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._route.port, ssl=self._route.server_tls, limit=_LIMIT
        )
        self._transports.append(writer.transport)
        return reader, writer

    async def _answer(
        self,
        request: Request,
        server: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        delay: float,
    ) -> None:
        head = await _head(server)
        if not head:
            raise EOFError
        await asyncio.sleep(delay)
        status = int(head.split(b" ", 2)[1])
        self.watching = request.verb == "watch" and status < 300
        await self._write(writer, head)
        if status not in {204, 304}:
            await self._body(server, writer, head)
        self.watching = False

    async def _body(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, head: bytes
    ) -> None:
        """Relay what follows a head; to nowhere without a writer."""
        headers = _headers(head)
        if headers.get("transfer-encoding") == "chunked":
            while line := await reader.readline():
                size = int(line.split(b";")[0], 16)
                await self._write(writer, line + await reader.readexactly(size + 2))
                if not size:
                    return
            raise EOFError
        left = int(headers.get("content-length", "0"))
        while left:
            data = await reader.read(min(left, 65536))
            if not data:
                raise EOFError
            left -= len(data)
            await self._write(writer, data)

    async def _write(self, writer: asyncio.StreamWriter | None, data: bytes) -> None:
        if writer is not None:
            await self._route.flowing.wait()
            writer.write(data)
            await writer.drain()


class _Client(asyncio.StreamReaderProtocol):
    """Tells at once that the client went away, also while a watch has nothing to relay."""

    def __init__(self, reader: asyncio.StreamReader, gone: Callable[[], None]) -> None:
        super().__init__(reader)
        self._gone = gone

    def eof_received(self) -> bool | None:
        super().eof_received()
        self._gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone()


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Return start line and headers, or nothing where the peer ended between two of them."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return b""


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.lower(): value.strip().lower() for name, _, value in pairs}


def _own_answer(fault: Fault) -> bytes:
    """Return an error in the API's form."""
    status = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": fault.status,
        "message": "the proxy was told to answer this",
    }
    body = json.dumps(status).encode()
    headers = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if fault.retry_after is not None:
        headers.append(f"Retry-After: {fault.retry_after}")
    lines = [f"HTTP/1.1 {fault.status} Fault", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
