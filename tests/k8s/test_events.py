"""Events on pods, in the words that their readers know; bounded, and never in an ADD's way."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from metaplugin.attachments.record import Failing
from metaplugin.cni.environment import Command
from metaplugin.cni.errors import CNIError, InvalidNetworkConfig, NetworkNotFound, TryAgainLater
from metaplugin.k8s import events
from tests.apiserver.faults import Answer, Cut, Fault, Reset, Silence, on
from tests.apiserver.server import ApiServer
from tests.k8s.conftest import Sides
from tests.k8s.side import NODE, Side, pod, record, reference

POSTS = on(verb="create", resource="events")


def attached(side: Side, name: str = "a", uid: str = "u") -> None:
    side.call(side.connection.events.attached, record(name, uid))


def failed(
    side: Side, error: CNIError, command: Command = Command.ADD, *, name: str = "a", uid: str = "u"
) -> None:
    side.call(side.connection.events.failed, command, reference(name, uid), error)


def told(server: ApiServer, count: int) -> list[dict[str, Any]]:
    """Wait for so many events and return them in the order in which they were written."""
    server.wait_for(lambda: len(server.objects("Event")) >= count)
    found = server.objects("Event")
    assert len(found) == count
    return sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))


def test_each_attachment_is_told_as_users_know_it(server: ApiServer, side: Side) -> None:
    """MULTUS-24."""
    server.put(pod("a", uid="u"))
    attached(side)
    events = told(server, 2)
    assert [(e["type"], e["reason"], e["message"]) for e in events] == [
        ("Normal", "AddedInterface", "Add eth0 [10.1.1.2/24] from cbr0"),
        ("Normal", "AddedInterface", "Add net1 [10.1.1.3/24] from default/lan"),
    ]
    assert events[0]["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "default",
        "name": "a",
        "uid": "u",
    }
    assert events[0]["source"] == {"component": "metaplugin", "host": NODE}


def test_a_pod_that_goes_without_being_released_is_told_why(server: ApiServer, side: Side) -> None:
    server.put(pod("a", uid="u"))
    failing = Failing(since=1.0, error="network lan: no master", given_up=True)
    side.call(side.connection.events.given_up, replace(record("a", "u"), failing=failing))
    (event,) = told(server, 1)
    assert (event["type"], event["reason"]) == ("Warning", "NetworkNotReleased")
    assert "network lan: no master" in event["message"]
    assert "record c-a-u@eth0" in event["message"]


def test_what_concerns_the_node_is_told_on_it_once(server: ApiServer, side: Side) -> None:
    """As kubectl describe node looks for it: in `default`, the name as UID."""
    for _ in range(2):
        side.call(side.connection.events.told, "Warning", "CNIConfigurationRestored", "again")
    [event] = told(server, 1)
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Node",
        "name": NODE,
        "uid": NODE,
    }
    assert (event["type"], event["message"]) == ("Warning", "again")


def test_requests_that_were_let_pass_are_told(server: ApiServer, side: Side) -> None:
    """NPWG-12, NPWG-15: whoever asked for an address reads that it may be another."""
    server.put(pod("a", uid="u"))
    whole = record("a", "u", extra=False)
    [made] = whole.attachments
    planned = replace(made.planned, unhonoured=("ips", "mac"))
    side.call(
        side.connection.events.attached,
        replace(whole, attachments=(replace(made, planned=planned),)),
    )
    added, warning = told(server, 2)
    assert added["reason"] == "AddedInterface"
    assert (warning["type"], warning["reason"]) == ("Warning", "CapabilityNotDeclared")
    assert warning["message"].startswith("eth0: no plugin of network cbr0 declares ips, mac;")


def test_a_key_that_may_be_mistyped_is_told(server: ApiServer, side: Side) -> None:
    """NPWG-7: the interface is there, but not as its pod's author meant it."""
    server.put(pod("a", uid="u"))
    whole = record("a", "u", extra=False)
    [made] = whole.attachments
    planned = replace(made.planned, mistyped=("networks[0]: the key 'ip' is ignored",))
    side.call(
        side.connection.events.attached,
        replace(whole, attachments=(replace(made, planned=planned),)),
    )
    _, warning = told(server, 2)
    assert (warning["type"], warning["reason"]) == ("Warning", "SelectionKeyIgnored")
    assert warning["message"] == "networks[0]: the key 'ip' is ignored"


@pytest.mark.parametrize(
    ("command", "error", "reason", "message"),
    [
        (
            Command.ADD,
            NetworkNotFound("networks[0]: there is no net-attach-def 'x'", details="create it"),
            "NoNetworkFound",
            "networks[0]: there is no net-attach-def 'x' (create it)",
        ),
        (
            Command.ADD,
            InvalidNetworkConfig("net-attach-def default/x: no type"),
            "FailedAddingInterface",
            "net-attach-def default/x: no type",
        ),
        (
            Command.DEL,
            TryAgainLater("plugin noop failed", details="try again"),
            "FailedRemovingInterface",
            "plugin noop failed (try again)",
        ),
    ],
    ids=["no network", "ADD", "DEL"],
)
def test_a_failure_is_told_with_its_remedy(
    server: ApiServer, side: Side, command: Command, error: CNIError, reason: str, message: str
) -> None:
    """MULTUS-24."""
    failed(side, error, command)
    (event,) = told(server, 1)
    assert (event["type"], event["reason"], event["message"]) == ("Warning", reason, message)


@pytest.mark.parametrize("command", [Command.CHECK, Command.GC, Command.STATUS])
def test_what_is_not_the_pods_is_not_told_on_it(
    server: ApiServer, side: Side, command: Command
) -> None:
    failed(side, TryAgainLater("first"), command)
    failed(side, TryAgainLater("second"))
    assert [event["message"] for event in told(server, 1)] == ["second"]


def test_a_static_pods_events_are_on_its_mirror(server: ApiServer, side: Side) -> None:
    server.put(pod("a", uid="mirror-uid", **{"kubernetes.io/config.mirror": "hash"}))
    side.memory.wait_for(lambda: side.memory.pods)
    failed(side, TryAgainLater("x"), uid="hash")
    (event,) = told(server, 1)
    assert event["involvedObject"]["uid"] == "mirror-uid"


def test_a_pod_made_again_gets_no_events_of_the_one_before(server: ApiServer, side: Side) -> None:
    server.put(pod("a", uid="new"))
    side.memory.wait_for(lambda: side.memory.pods)
    failed(side, TryAgainLater("x"), uid="old")
    (event,) = told(server, 1)
    assert event["involvedObject"]["uid"] == "old"


def test_a_repeated_failure_is_told_once(server: ApiServer, side: Side) -> None:
    """The kubelet tries every 15 seconds; the reader needs it once, and for each pod."""
    for _ in range(100):
        failed(side, TryAgainLater("the same"))
    failed(side, TryAgainLater("another"))
    failed(side, TryAgainLater("the same"), name="b")
    failed(side, TryAgainLater("the same"), uid="made again")
    messages = [
        (e["involvedObject"]["name"], e["involvedObject"]["uid"], e["message"])
        for e in told(server, 4)
    ]
    assert messages == [
        ("a", "u", "the same"),
        ("a", "u", "another"),
        ("b", "u", "the same"),
        ("a", "made again", "the same"),
    ]


def test_what_is_told_during_an_outage_is_written_on_return(server: ApiServer, side: Side) -> None:
    server.stop()
    side.run(side.connection._calls.gone.wait())
    attached(side)
    failed(side, TryAgainLater("meanwhile"), name="b")
    server.start()
    assert [event["message"] for event in told(server, 3)] == [
        "Add eth0 [10.1.1.2/24] from cbr0",
        "Add net1 [10.1.1.3/24] from default/lan",
        "meanwhile",
    ]


@pytest.mark.parametrize("fault", [Answer(429), Answer(500), Reset(), Cut(after=5)], ids=repr)
def test_an_event_whose_writing_fails_is_written_all_the_same_and_once(
    server: ApiServer, side: Side, fault: Fault
) -> None:
    server.inject(fault, POSTS, times=1)
    failed(side, TryAgainLater("first"))
    failed(side, TryAgainLater("second"))
    assert [event["message"] for event in told(server, 2)] == ["first", "second"]


def test_a_refused_event_is_given_up(server: ApiServer, side: Side) -> None:
    """No right to write events is no reason to write none to others' pods."""
    server.inject(Answer(403), POSTS, times=1)
    failed(side, TryAgainLater("first"))
    failed(side, TryAgainLater("second"))
    assert [event["message"] for event in told(server, 1)] == ["second"]


def test_what_waits_is_bounded_and_the_newest_stays(
    server: ApiServer, connect: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEPT", 20)
    side = connect().synced()
    server.stop()
    side.run(side.connection._calls.gone.wait())
    for number in range(50):
        failed(side, TryAgainLater(f"failure {number}"))
    server.start()
    messages = [event["message"] for event in told(server, 20)]
    assert messages == [f"failure {number}" for number in range(30, 50)]


def test_a_burst_is_followed_by_some_a_second(
    server: ApiServer, connect: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BURST", 5)
    monkeypatch.setattr(events, "INTERVAL_S", 0.05)
    side = connect().synced()
    for number in range(20):
        failed(side, TryAgainLater(f"failure {number}"))
    told(server, 20)
    times = [request.at for request in server.requests if POSTS(request)]
    assert times[-1] - times[0] >= 14 * 0.05


def test_telling_never_waits(server: ApiServer, side: Side) -> None:
    """Nothing is delayed by a server that takes a POST and says nothing."""
    server.inject(Silence(), POSTS)
    started = time.monotonic()
    for number in range(500):
        failed(side, TryAgainLater(f"failure {number}"))
        attached(side)
    assert time.monotonic() - started < 10
    server.wait_for(lambda: server.count("create", "events") == 1)


@pytest.mark.parametrize("name", ["a" * 253, "a" * 235 + "." + "b" * 17, "a" * 235 + "-" + "b"])
def test_an_events_name_is_valid_whatever_the_pods(
    server: ApiServer, side: Side, name: str
) -> None:
    failed(side, TryAgainLater("x" * 5000), name=name)
    (event,) = told(server, 1)
    given = event["metadata"]["name"]
    assert len(given) <= 253
    assert all(label[0].isalnum() and label[-1].isalnum() for label in given.split("."))
    assert len(event["message"]) <= 1024


def test_an_event_says_when_it_happened(server: ApiServer, side: Side) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    failed(side, TryAgainLater("x"))
    (event,) = told(server, 1)
    assert event["firstTimestamp"] == event["lastTimestamp"]
    happened = datetime.strptime(event["firstTimestamp"], "%Y-%m-%dT%H:%M:%S%z")
    assert before <= happened <= datetime.now(UTC)
