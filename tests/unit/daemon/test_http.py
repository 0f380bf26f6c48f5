"""Clients of the daemon's HTTP that take what they can get, and read nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from metaplugin.daemon import http
from metaplugin.daemon.http import (
    MAX_CONNECTIONS,
    HttpRequest,
    HttpResponse,
    HttpServer,
    Limits,
)

GET = b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n"


async def respond(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=200, body=b"x" * 40_000 if request.path == "/metrics" else b"ok")


def greedy(port: int) -> socket.socket:
    """Return a client that asks for much and reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    client.send(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n" * 300)
    return client


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the kernel tells no event
            await asyncio.sleep(0.02)


def serve(limits: Limits, test: Callable[[int], Awaitable[None]]) -> None:
    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=2 * MAX_CONNECTIONS)
        listener.setblocking(False)
        server = HttpServer(respond=respond, limits=limits)
        await server.start(listener)
        await test(listener.getsockname()[1])
        await server.close(0)

    asyncio.run(run())


def test_who_reads_nothing_keeps_nothing_once_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Descriptors that never come back would be missing where shims connect."""
    monkeypatch.setattr(http, "WRITE_S", 0.2)

    async def test(port: int) -> None:
        before = descriptors()
        clients = [greedy(port) for _ in range(30)]
        await until(lambda: descriptors() >= before + 2 * len(clients))
        await until(lambda: descriptors() <= before + len(clients))
        for client in clients:
            client.close()

    serve(Limits(body=0), test)


def test_who_takes_every_connection_keeps_no_probe_out() -> None:
    """Any process of the node reaches loopback, and a kubelet ends a daemon that doesn't answer."""

    async def test(port: int) -> None:
        clients = [greedy(port) for _ in range(MAX_CONNECTIONS)]
        await asyncio.sleep(0.5)  # until their answers are stuck
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            async with asyncio.timeout(5):
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        for client in clients:
            client.close()

    serve(Limits(body=0, sheds_busy=True), test)
