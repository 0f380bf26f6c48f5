"""HTTP/1.1 as far as the server needs it: requests, whole and chunked responses, breaking off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.apiserver.resources import Target, target_of

LINE_LIMIT = 1 << 20  # bytes; continue tokens and selectors are in the request line


@dataclass(frozen=True)
class Request:
    """What the server saw; verb and resource as RBAC spells them (`patch`, `pods/status`)."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # lower-case names
    body: Any = None
    at: float = field(default_factory=time.monotonic)

    @property
    def target(self) -> Target | None:
        return target_of(self.path)

    @property
    def watches(self) -> bool:
        return self.query.get("watch", "") in {"1", "true"}

    @property
    def verb(self) -> str:
        if self.method == "GET" and (target := self.target):
            return "get" if target.name else "watch" if self.watches else "list"
        return {"POST": "create", "PUT": "update"}.get(self.method, self.method.lower())

    @property
    def resource(self) -> str:
        """The path itself where it is no resource's."""
        if not (target := self.target):
            return self.path
        return "/".join(filter(None, (target.resource.name, target.subresource)))


class Connection:
    """A client's connection; every method but `reset` may raise ConnectionError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self) -> Request | None:
        """The next one; None when the client has closed."""
        line = await self._reader.readline()
        if not line:
            return None
        method, address, _ = line.decode().split(" ", 2)
        headers = {}
        while text := (await self._reader.readline()).decode().strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        split = urlsplit(address)
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        return Request(method, unquote(split.path), query, headers, _json_or_text(body))

    async def send(
        self, code: int, body: bytes, *, headers: Mapping[str, str] | None = None, only: int = -1
    ) -> None:
        """A response; with `only` that many bytes of its body, though the header announces all."""
        lengths = {"Content-Length": str(len(body)), **(headers or {})}
        self._writer.write(_head(code, lengths) + (body if only < 0 else body[:only]))
        await self._writer.drain()

    async def begin(self) -> None:
        """Opens a chunked response."""
        self._writer.write(_head(200, {"Transfer-Encoding": "chunked"}))
        await self._writer.drain()

    async def chunks(self, *pieces: bytes) -> None:
        """A chunk each, sent at once; an empty one ends the response."""
        self._writer.write(b"".join(b"%x\r\n%s\r\n" % (len(data), data) for data in pieces))
        await self._writer.drain()

    async def closed(self) -> None:
        """Returns when the client has closed; what it sends before is lost."""
        with contextlib.suppress(OSError):
            while await self._reader.read(1 << 16):
                pass

    async def close(self) -> None:
        """Lets the client have what was written, but waits for no slow reader."""
        self._writer.close()
        try:
            async with asyncio.timeout(0.5):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self.reset()

    def reset(self) -> None:
        """Drops the connection with an RST, and what was still to be sent."""
        if not self._writer.transport.is_closing():
            raw: socket.socket = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def _head(code: int, headers: Mapping[str, str]) -> bytes:
    fields = {"Content-Type": "application/json", **headers}
    lines = [
        f"HTTP/1.1 {code} {HTTPStatus(code).phrase}",
        *(f"{k}: {v}" for k, v in fields.items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def _json_or_text(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode(errors="replace")
