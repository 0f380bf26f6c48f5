"""Where the daemon's HTTP listens."""

from __future__ import annotations

import asyncio
import socket

import pytest

from metaplugin.daemon.config import Address
from metaplugin.daemon.monitoring import Monitoring
from metaplugin.daemon.probes import Probes


async def scrape() -> bytes:
    return b""


async def probed(listen: Address, port: int) -> bytes:
    monitoring = Monitoring(listen, Probes(live={}, ready={}), scrape)
    monitoring.start()
    await asyncio.sleep(0.05)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
        line = await reader.readline()
        writer.close()
    finally:
        await monitoring.close()
    return line


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_the_kubelets_probes_of_loopback_are_answered(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    line = asyncio.run(probed(Address(host, port), port))
    assert line.startswith(b"HTTP/1.1 200")
