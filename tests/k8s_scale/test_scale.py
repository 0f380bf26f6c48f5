"""What holds for 10,000 net-attach-defs and 500 pods on a machine of any speed.

`make bench-k8s` has the times.
"""

from __future__ import annotations

import json
import queue
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from metaplugin.commands.ports import KnownPod
from metaplugin.k8s import reflector
from metaplugin.k8s.api import Api
from metaplugin.k8s.health import Health
from metaplugin.k8s.objects import Definition, definitions_of, pods_of_node
from metaplugin.k8s.reflector import Batch, Reflector
from tests.apiserver.server import ApiServer
from tests.k8s_scale import fleet
from tests.k8s_scale.follower import Follower
from tests.k8s_scale.upstream import Double

T = TypeVar("T")

ABOVE_EMPTY_MB = 25  # bench-k8s finds 18
COMPLETE_MB = 105
ONE_LIST_EACH = {
    "list network-attachment-definitions": 20,  # pages
    "list pods": 5,
    "watch network-attachment-definitions": 1,
    "watch pods": 1,
}


@dataclass(frozen=True)
class Loaded:
    """A daemon that has all, after two starts: one with an empty cluster, one with a full one."""

    upstream: Double
    follower: Follower
    empty_mb: float
    asked: Counter[str]


@pytest.fixture(scope="module")
def loaded() -> Iterator[Loaded]:
    with ApiServer() as server:
        upstream = Double(server)
        follower = Follower(upstream)
        try:
            yield load(upstream, follower)
        finally:
            follower.close()


def load(upstream: Double, follower: Follower) -> Loaded:
    follower.start()
    follower.wait_for(lambda: follower.synced and upstream.watches() == 2)
    empty_mb = follower.memory_mb()
    follower.stop()
    upstream.create(fleet.definitions(fleet.DEFINITIONS))
    upstream.create(fleet.pods(fleet.PODS))
    upstream.tally()
    follower.start()
    wait_until_remembered(follower)
    follower.wait_for(lambda: upstream.watches() == 2)
    return Loaded(upstream, follower, empty_mb, upstream.tally())


def wait_until_remembered(follower: Follower) -> None:
    follower.wait_for(lambda: follower.remembered("pod") == fleet.PODS)
    follower.wait_for(lambda: follower.remembered("definition") == fleet.DEFINITIONS)


def test_all_definitions_and_pods_take_little_memory(loaded: Loaded) -> None:
    """Issue 4, scale: 25 MB above idle, 105 MB in all."""
    memory = loaded.follower.memory_mb()
    assert memory - loaded.empty_mb < ABOVE_EMPTY_MB
    assert memory < COMPLETE_MB


def test_a_start_lists_once(loaded: Loaded) -> None:
    """Issue 4, scale: one list per restart."""
    assert loaded.asked == ONE_LIST_EACH


def test_ten_thousand_changes_at_once_are_taken_without_a_list(loaded: Loaded) -> None:
    """Issue 4, bad input and scale: 10,000 events at once."""
    loaded.upstream.tally()
    loaded.upstream.create([fleet.definition(n, 7) for n in range(fleet.DEFINITIONS)])
    last = f": {fleet.MTU + 7}"
    loaded.follower.wait_for(lambda: loaded.follower.remembers(last, fleet.DEFINITIONS))
    assert loaded.upstream.tally() == {}
    assert loaded.follower.memory_mb() < COMPLETE_MB


def changed(waiting: queue.Queue[Batch[T]]) -> str:
    """Return the name of the object that the next batch is of."""
    ((_, name),) = waiting.get(timeout=10).changes
    return name


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as started:
        yield started


def test_fifty_cuts_of_the_watches_cause_no_list(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 4, scale: no relist storm over 50 watch cuts; and nothing is missed."""
    monkeypatch.setattr(reflector, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(reflector, "LONGEST_DELAY_S", 0.01)
    (tmp_path / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
    api, health = Api(tmp_path / "kubeconfig"), Health(lambda: None)
    definitions: queue.Queue[Batch[Definition]] = queue.Queue()
    pods: queue.Queue[Batch[KnownPod]] = queue.Queue()
    followers = (
        Reflector(api, health, definitions_of(())[0], definitions.put),
        Reflector(api, health, pods_of_node(fleet.NODE_NAME), pods.put),
    )
    for follower in followers:
        follower.start()
    for waiting in (definitions, pods):
        assert waiting.get(timeout=10).complete
    for number in range(50):
        server.wait_for(lambda: len(server.open_watches()) == 2)
        server.cut_watches(cleanly=number % 2 == 0)
        server.put_all([fleet.definition(number), fleet.pod(number)])
        assert changed(definitions) == f"network-{number:05}"
        assert changed(pods) == f"pod-{number:03}"
        server.wait_for(lambda: len(server.open_watches()) == 2)
    for follower in followers:
        follower.stop()
    assert server.count("list") == 2
    assert server.count("watch") == 102
