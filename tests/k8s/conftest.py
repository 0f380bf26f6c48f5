"""A server with faults, and a node's side of it whose patience is short: fractions of the real
times, in the real proportions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from metaplugin.k8s import calls, cluster, reflector, status
from tests.apiserver.server import ApiServer
from tests.k8s.side import Side

Sides = Callable[..., Side]


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, seconds in (
        (reflector, "FIRST_DELAY_S", 0.02),
        (reflector, "LONGEST_DELAY_S", 0.2),
        (reflector, "REFUSED_DELAY_S", 0.2),
        (calls, "FIRST_PROBE_S", 0.02),
        (calls, "LONGEST_PROBE_S", 0.2),
        (cluster, "FIRST_DELAY_S", 0.02),
        (cluster, "BACK_WITHIN_S", 5),
        (status, "FIRST_DELAY_S", 0.02),
        (status, "LONGEST_DELAY_S", 0.2),
        (status, "FORBIDDEN_DELAY_S", 0.2),
    ):
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can do without an answer waits for it 0.2 s, and an outage is one at once."""
    for module in (calls, cluster, status):
        monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    monkeypatch.setattr(cluster, "BACK_WITHIN_S", 0.1)


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(server.kubeconfig()))
    return path


@pytest.fixture
def connect(kubeconfig: Path) -> Iterator[Sides]:
    """Return what makes a node's side; it is closed after the test."""
    with ExitStack() as stack:

        def connected(**values: Any) -> Side:
            return stack.enter_context(Side(kubeconfig, **values))

        yield connected


@pytest.fixture
def side(connect: Sides) -> Side:
    """A side that has listed all there is."""
    return connect().synced()
