"""List once, watch for ever: what a server may do to a watch, and that nothing is lost by it."""

from __future__ import annotations

import pytest

from metaplugin.k8s import objects, reflector
from tests.apiserver.faults import (
    Answer,
    Cut,
    Fault,
    Garbage,
    HalfLine,
    Reset,
    Silence,
    StreamFault,
    later_pages,
    on,
)
from tests.apiserver.server import ApiServer
from tests.k8s.conftest import Sides
from tests.k8s.side import NETWORKS, NODE, Side, definition, pod

LISTS = on(verb="list", resource="pods")


def put(server: ApiServer, name: str, uid: str = "u") -> None:
    server.put(pod(name, uid=uid))


def seen(side: Side, name: str, uid: str = "u") -> None:
    side.memory.wait_for(lambda: side.memory.knows_pod(name, uid))


def last_watch_of_pods(server: ApiServer) -> str:
    watches = [r for r in server.requests if (r.verb, r.resource) == ("watch", "pods")]
    return watches[-1].query["resourceVersion"] if watches else ""


def test_a_list_comes_in_pages_and_only_this_nodes_pods_are_asked_for(
    server: ApiServer, connect: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PODS_PAGE", 10)
    server.put_all(pod(f"p{i}", uid=f"u{i}") for i in range(35))
    put(server, "last")
    server.put(pod("elsewhere", node="other"))
    side = connect().synced()
    assert len(side.memory.pods) == 36
    assert server.count("list", "pods") == 4
    asked = [r.query for r in server.requests if r.resource == "pods"]
    assert {query["fieldSelector"] for query in asked} == {f"spec.nodeName={NODE}"}


def test_a_page_that_has_expired_begins_the_list_anew(
    server: ApiServer, connect: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PODS_PAGE", 10)
    server.put_all(pod(f"p{i}", uid=f"u{i}") for i in range(35))
    server.inject(Answer(410), lambda r: LISTS(r) and later_pages(r), times=1)
    side = connect().synced()
    assert len(side.memory.pods) == 35
    assert server.count("list", "pods") == 2 + 4


def test_what_changes_is_told_by_the_watch(server: ApiServer, side: Side) -> None:
    put(server, "a")
    seen(side, "a")
    server.put(definition("lan"))
    side.memory.wait_for(lambda: ("default", "lan") in side.memory.definitions)
    server.delete("Pod", "default", "a")
    side.memory.wait_for(lambda: not side.memory.pods)
    assert server.tally() == {
        "list pods": 1,
        "watch pods": 1,
        f"list {NETWORKS}": 1,
        f"watch {NETWORKS}": 1,
    }


def test_fifty_cuts_cost_no_second_list(server: ApiServer, side: Side) -> None:
    """The acceptance of issue 4: no relist storm over 50 watch cuts."""
    for number in range(50):
        put(server, "a", f"u{number}")
        seen(side, "a", f"u{number}")
        server.cut_watches(cleanly=number % 2 == 0)
    put(server, "a", "last")
    seen(side, "a", "last")
    assert server.count("list") == 2
    assert server.count("watch", "pods") == 51


def test_a_bookmark_moves_the_version_on(server: ApiServer, side: Side) -> None:
    """So that a watch of a quiet node isn't too old for the server after a cut."""
    server.wait_for(lambda: len(server.open_watches()) == 2)
    server.put_all(pod(f"p{i}", node="other") for i in range(10))
    server.send_bookmarks()
    server.compact()
    server.cut_watches(cleanly=True)
    server.wait_for(lambda: last_watch_of_pods(server) == str(server.version))
    put(server, "a")
    seen(side, "a")
    assert server.count("list") == 2


@pytest.mark.parametrize("in_stream", [True, False], ids=["as an event", "by HTTP"])
def test_a_version_too_old_to_watch_from_is_listed_again(
    server: ApiServer, side: Side, in_stream: bool
) -> None:
    server.api.gone_in_stream = in_stream
    server.wait_for(lambda: server.open_watches("pods"))
    server.put(pod("elsewhere", node="other"))
    server.compact()
    server.cut_watches(resource="pods")
    server.wait_for(lambda: server.count("list", "pods") == 2 and server.open_watches("pods"))
    put(server, "a")
    seen(side, "a")
    assert server.count("list", "pods") == 2


@pytest.mark.parametrize("compacted", [False, True], ids=["told by the watch", "by the list"])
def test_what_was_deleted_while_the_server_was_away_is_forgotten(
    server: ApiServer, side: Side, compacted: bool
) -> None:
    put(server, "gone")
    put(server, "there")
    seen(side, "there")
    server.stop()
    server.delete("Pod", "default", "gone")
    if compacted:
        server.compact()
    server.start()
    side.memory.wait_for(lambda: set(side.memory.pods) == {("default", "there")})
    assert server.count("list", "pods") == 1 + compacted


def test_a_restarted_server_is_watched_on_from_where_it_was(server: ApiServer, side: Side) -> None:
    for number in range(3):
        server.stop()
        server.put(pod("a", uid=f"u{number}"))
        server.start()
        seen(side, "a", f"u{number}")
    assert server.count("list", "pods") == 1


@pytest.mark.parametrize(
    ("fault", "lists"),
    [
        (Answer(410), 2),
        (Answer(429), 1),
        (Answer(500), 1),
        (Garbage(), 2),
        (Garbage(b"[]\n"), 2),
        (Garbage(b'{"type": "ADDED"}\n'), 2),
        (Garbage(b'{"type": "ADDED", "object": {"metadata": {"name": 7}}}\n'), 2),
        (HalfLine(), 1),
        (HalfLine(cleanly=True), 1),
        (Reset(), 1),
        (Silence(), 1),
    ],
    ids=repr,
)
def test_nothing_is_lost_by_a_disturbed_watch(
    server: ApiServer,
    connect: Sides,
    monkeypatch: pytest.MonkeyPatch,
    fault: StreamFault,
    lists: int,
) -> None:
    """After an idle time a silent watch is a half-open connection."""
    if isinstance(fault, Silence):
        monkeypatch.setattr(reflector, "WATCH_IDLE_S", 0.3)
    side = connect().synced()
    server.wait_for(lambda: server.open_watches("pods"))
    server.disturb_watches(fault, resource="pods")
    put(server, "a")
    seen(side, "a")
    server.wait_for(lambda: server.count("list", "pods") == lists)
    server.wait_for(lambda: server.open_watches("pods"))
    put(server, "b")
    seen(side, "b")


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    "fault",
    [
        Answer(500),
        Answer(503, text="upstream connect error"),
        Answer(403),
        Answer(404, text="404 page not found\n"),
        Garbage(),
        Garbage(b"[]"),
        Garbage(b"{}"),
        Garbage(b'{"metadata": {}, "items": [7]}'),
        Garbage(b'{"metadata": {}, "items": [{"metadata": {}}]}'),
        Reset(),
        Cut(after=5),
    ],
    ids=repr,
)
def test_a_list_that_fails_is_tried_until_it_succeeds(
    server: ApiServer, connect: Sides, fault: Fault, times: int
) -> None:
    put(server, "a")
    server.inject(fault, LISTS, times=times)
    side = connect().synced()
    assert side.memory.knows_pod("a", "u")
    assert server.count("list", "pods") == times + 1


def test_retry_after_is_honoured(server: ApiServer, connect: Sides) -> None:
    server.inject(Answer(429, retry_after=1), LISTS, times=1)
    connect().synced()
    first, second = [r.at for r in server.requests if LISTS(r)]
    assert second - first >= 1


def test_an_hours_retry_after_is_not_waited_for(
    server: ApiServer, connect: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaplugin.k8s.api.LONGEST_RETRY_AFTER_S", 0.1)
    server.inject(Answer(429, retry_after=3600), LISTS, times=1)
    connect().synced()


def test_ten_thousand_events_at_once_all_arrive(server: ApiServer, side: Side) -> None:
    server.wait_for(lambda: server.open_watches(NETWORKS))
    server.put_all(definition(f"n{i}") for i in range(10_000))
    side.memory.wait_for(lambda: len(side.memory.definitions) == 10_000)
    assert server.count("list", NETWORKS) == 1


def test_definitions_of_some_namespaces_are_followed_there_alone(
    server: ApiServer, connect: Sides
) -> None:
    """What lies elsewhere is asked for each time: nobody would tell that it has changed."""
    for namespace in ("a", "b", "c"):
        server.put(definition("lan", {"type": "first"}, namespace))
    side = connect(namespaces=("a", "b")).synced()
    assert set(side.memory.definitions) == {("a", "lan"), ("b", "lan")}
    assert server.count("list", NETWORKS) == 2
    for kind in ("second", "third"):
        server.put(definition("lan", {"type": kind}, "c"))
        found = side.definition("lan", "c")
        assert found is not None
        assert kind in found.config
    assert server.count("get", NETWORKS) == 2


def test_a_list_of_one_namespace_leaves_the_others(server: ApiServer, connect: Sides) -> None:
    for namespace in ("a", "b"):
        server.put(definition("lan", None, namespace))
    side = connect(namespaces=("a", "b")).synced()
    server.wait_for(lambda: len(server.open_watches(NETWORKS)) == 2)
    server.delete("NetworkAttachmentDefinition", "a", "lan")
    side.memory.wait_for(lambda: set(side.memory.definitions) == {("b", "lan")})
    server.disturb_watches(Answer(410), resource=NETWORKS)
    server.wait_for(lambda: server.count("list", NETWORKS) == 4)
    server.put(definition("new", None, "a"))
    side.memory.wait_for(lambda: set(side.memory.definitions) == {("b", "lan"), ("a", "new")})
