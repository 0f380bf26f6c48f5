"""What the daemon's metrics and probes are told of the API server."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metaplugin.k8s.state import ApiState
from tests.apiserver.faults import Answer, on
from tests.apiserver.server import ApiServer
from tests.k8s.side import WITHIN_S, Side, definition, pod, record, reference


def wait_for(side: Side, condition: Callable[[ApiState], bool]) -> ApiState:
    deadline = time.monotonic() + WITHIN_S
    while not condition(state := side.call(side.connection.state)):
        assert time.monotonic() < deadline, state
        time.sleep(0.02)
    return state


def test_what_is_held_and_when_it_was_heard_of(server: ApiServer, kubeconfig: Path) -> None:
    server.put_all([pod("a"), pod("b", node="elsewhere"), definition("lan"), definition("wan")])
    with Side(kubeconfig) as side:
        state = wait_for(side, lambda state: state.pods.listed and state.definitions.listed)
        assert (state.away, state.slow) == (False, False)
        assert (state.pods.objects, state.definitions.objects) == (1, 2)
        assert (state.pods.alive, state.definitions.alive) == (True, True)
        heard = state.pods.heard
        assert abs(time.time() - heard) < WITHIN_S
        server.wait_for(lambda: len(server.open_watches()) == 2)
        server.send_bookmarks()
        wait_for(side, lambda state: state.pods.heard > heard)


def test_a_server_that_is_away_is_told(server: ApiServer, kubeconfig: Path) -> None:
    with Side(kubeconfig) as side:
        wait_for(side, lambda state: state.pods.listed)
        server.stop()
        state = wait_for(side, lambda state: state.away)
        assert state.pods.listed  # what is known is known
        assert state.pods.alive


def test_what_was_never_listed_is_told(server: ApiServer, kubeconfig: Path) -> None:
    server.inject(Answer(403), on(verb="list", resource="pods"))
    with Side(kubeconfig) as side:
        state = wait_for(side, lambda state: state.definitions.listed)
        assert not state.pods.listed
        assert state.pods.heard == 0
        assert side.call(side.connection.pods) == {}


def test_what_waits_to_be_written_is_counted(server: ApiServer, kubeconfig: Path) -> None:
    server.put(pod("a", uid="u"))
    refusal = server.inject(Answer(500), on(verb="patch"))
    events = server.inject(Answer(500), on(verb="create"))
    with Side(kubeconfig) as side:
        wait_for(side, lambda state: state.pods.listed)
        side.publish(record("a", "u"))
        side.call(side.connection.events.unattached, reference("a", "u"), ("default/lan",))
        state = wait_for(side, lambda state: state.statuses == 1 and state.events == 1)
        assert not state.away
        refusal.clear()
        events.clear()
        wait_for(side, lambda state: state.statuses == 0 and state.events == 0)


@pytest.mark.parametrize(
    ("status", "spec", "metadata", "attached", "replaced"),
    [
        ({"phase": "Running", "podIP": "10.1.1.1"}, {}, {}, True, False),
        ({"phase": "Pending", "podIP": "10.1.1.1"}, {}, {}, True, False),
        ({"phase": "Pending"}, {}, {}, False, False),
        ({"phase": "Succeeded", "podIP": "10.1.1.1"}, {}, {}, False, False),
        ({"phase": "Failed", "podIP": "10.1.1.1"}, {}, {}, False, False),
        ({"phase": "Running", "podIP": "10.1.1.1"}, {"hostNetwork": True}, {}, False, False),
        (
            {"phase": "Running", "podIP": "10.1.1.1"},
            {},
            {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            False,
            False,
        ),
        ({}, {}, {"ownerReferences": [{"kind": "ReplicaSet", "controller": True}]}, False, True),
        ({}, {}, {"ownerReferences": [{"kind": "Node", "controller": True}]}, False, False),
        ({}, {}, {"ownerReferences": [{"kind": "Foo"}]}, False, False),
    ],
    ids=[
        "running",
        "init containers run",
        "no sandbox yet",
        "done",
        "failed",
        "the node's network",
        "going",
        "of a controller",
        "a static pod's mirror",
        "owned by what controls nothing",
    ],
)
def test_what_is_kept_of_a_pods_life(
    server: ApiServer,
    kubeconfig: Path,
    status: dict[str, str],
    spec: dict[str, bool],
    metadata: dict[str, object],
    *,
    attached: bool,
    replaced: bool,
) -> None:
    item = pod("a", uid="u")
    item["status"] = status
    item["spec"] |= spec
    item["metadata"] |= metadata
    server.put(item)
    with Side(kubeconfig) as side:
        wait_for(side, lambda state: state.pods.objects == 1 and state.pods.listed)
        [known] = side.call(side.connection.pods).values()
    assert (known.attached, known.replaced) == (attached, replaced)
