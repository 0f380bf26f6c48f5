"""A running API server, a client of it, and watches that are closed in the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.client import (
    PODS,
    Client,
    Watch,
)
from tests.apiserver.server import ApiServer


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def client(server: ApiServer) -> Iterator[Client]:
    client = Client(server)
    yield client
    client.close()


@pytest.fixture
def watches(server: ApiServer) -> Iterator[Any]:
    opened: list[Watch] = []

    def watch(path: str = PODS, **query: object) -> Watch:
        opened.append(Watch(server, path, **query))
        return opened[-1]

    yield watch
    for one in opened:
        one.close()
