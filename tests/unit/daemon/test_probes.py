"""What makes a daemon unfit to live: only what a restart would cure."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from metaplugin.daemon import probes
from metaplugin.daemon.config import DaemonConfig
from metaplugin.daemon.http import HttpRequest, HttpResponse
from metaplugin.daemon.metrics import Metrics
from metaplugin.daemon.oversight import STUCK_MARGIN_S, Overseen, Oversight
from metaplugin.daemon.probes import Check, PoolCheck, Probes
from metaplugin.daemon.server import Server
from metaplugin.k8s.state import ApiState, WatchState
from metaplugin.state.records import RecordFolder

LISTED = WatchState(listed=True, objects=1, heard=1.0, alive=True)
UNLISTED = WatchState(listed=False, objects=0, heard=0.0, alive=True)
DEAD = WatchState(listed=True, objects=1, heard=1.0, alive=False)


class Api:
    """Stands as it is told; nothing else of it is asked."""

    def __init__(self, *, away: bool, pods: WatchState, definitions: WatchState) -> None:
        self._state = ApiState(
            away=away, slow=False, pods=pods, definitions=definitions, statuses=0, events=0
        )
        self.events = self.pods = None

    def state(self) -> ApiState:
        return self._state


SHIMS = SimpleNamespace(node=SimpleNamespace(settings=None))  # the probes ask nothing of them


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A server whose socket is there and its own."""
    path = tmp_path / "daemon.sock"
    path.touch()
    server = Server(path=path, shims=cast("Any", SHIMS))
    server._identity = path.stat().st_ino
    return server


def probed(
    server: Server,
    pool: ThreadPoolExecutor,
    api: Api | None = None,
    installed: Check | None = None,
) -> Probes:
    overseen = Overseen(
        server=server,
        records=RecordFolder(server.path.parent, pool),
        pools={"disk": pool},
        api=cast("Any", api),
        installed=installed,
    )
    config = DaemonConfig.model_validate({"metrics": {"listen": ""}})
    return Oversight(config, overseen, Metrics()).probes


def ask(probes: Probes, path: str) -> tuple[int, str]:
    response = probes.respond(HttpRequest(method="GET", path=path, body=b""))
    assert isinstance(response, HttpResponse)
    return response.status, response.body.decode()


@pytest.mark.parametrize(
    ("age", "status"), [(0, 200), (200, 200), (400, 200), (400 + STUCK_MARGIN_S + 5, 503)]
)
def test_a_request_is_stuck_when_no_deadline_has_ended_it(
    server: Server, pool: ThreadPoolExecutor, age: float, status: int
) -> None:
    """An ADD's 200 s, the DEL of one whose result reached nobody, and the lent shim's work."""
    server._tasks = cast("Any", {object(): time.monotonic() - age, object(): time.monotonic()})
    found, text = ask(probed(server, pool), "/healthz")
    assert found == status
    assert ("a request has been under way for" in text) == (status == 503)


def test_threads_that_take_no_work_are_told_after_a_while(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()
    pool.submit(hanging.wait)
    check = PoolCheck(pool)
    assert check() == ""
    assert check() == ""
    monkeypatch.setattr(probes, "STUCK_S", 0)
    assert "no thread has been free" in check()
    hanging.set()
    pool.submit(int).result(10)
    assert check() == ""


@pytest.mark.parametrize(
    ("api", "alive", "ready"),
    [
        (None, 200, 200),
        (Api(away=False, pods=LISTED, definitions=LISTED), 200, 200),
        (Api(away=False, pods=LISTED, definitions=UNLISTED), 200, 503),
        (Api(away=True, pods=UNLISTED, definitions=UNLISTED), 200, 200),
        (Api(away=True, pods=LISTED, definitions=LISTED), 200, 200),
        (Api(away=False, pods=DEAD, definitions=LISTED), 503, 200),
    ],
    ids=[
        "no API server",
        "all listed",
        "no CRD, or no right to list",
        "away from the start",
        "gone away",
        "a watch's thread ended",
    ],
)
def test_an_api_server_that_is_away_makes_nobody_unfit(
    server: Server, pool: ThreadPoolExecutor, api: Api | None, alive: int, ready: int
) -> None:
    probes = probed(server, pool, api)
    assert (ask(probes, "/healthz")[0], ask(probes, "/readyz")[0]) == (alive, ready)
    assert probes.is_ready() == (ready == 200)


def test_what_is_missing_is_named(server: Server, pool: ThreadPoolExecutor) -> None:
    api = Api(away=False, pods=LISTED, definitions=UNLISTED)
    _, text = ask(probed(server, pool, api), "/readyz")
    assert text == "[-] cluster: not listed yet: net-attach-defs\nfailed\n"


def test_pods_get_no_networks_before_the_runtime_has_our_configuration(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    problems = ["it isn't written yet", ""]
    probes = probed(server, pool, installed=lambda: problems[0])
    assert ask(probes, "/readyz") == (503, "[-] cni-configuration: it isn't written yet\nfailed\n")
    assert ask(probes, "/healthz")[0] == 200
    del problems[0]
    assert ask(probes, "/readyz")[0] == 200
