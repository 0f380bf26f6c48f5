"""What the metrics say of requests, and what they cost."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from metaplugin.attachments.calls import PluginCall
from metaplugin.attachments.devices import Allocation
from metaplugin.attachments.record import Failing, Record, StoredRecord
from metaplugin.attachments.runtime_conf import PodReference, Sandbox
from metaplugin.cni.errors import CNIError, DelegateError, TryAgainLater
from metaplugin.commands.ports import Caller, CallerGone
from metaplugin.daemon.metrics import MOST_PLUGINS, Metrics
from metaplugin.daemon.node_metrics import RecordCensus, node_metrics
from metaplugin.k8s.state import ApiState, WatchState
from metaplugin.wire.container import DamagedRecord
from metaplugin.wire.frames import Executed, Outcome, Stated, encode_environment

README = Path(__file__).parents[3] / "deploy" / "README.md"
AFFORDABLE_S = 50e-6  # a request, beside some 3 ms of its own


@dataclass
class Shim:
    """Runs nothing and answers as it is told."""

    ended: Executed = field(default_factory=lambda: Executed(Outcome.EXITED, 0, b"", b""))

    async def exec_plugin(self, call: PluginCall, deadline_s: float) -> Executed:
        return self.ended

    async def find_in_path(self, plugin_type: str) -> str:
        return ""

    async def save(self, name: str, content: bytes) -> None: ...

    async def append(self, name: str, content: bytes) -> None: ...

    async def forget(self, name: str) -> None: ...

    async def try_lock(self, container_id: str) -> bool:
        return True

    async def unlock(self) -> None: ...

    async def stat_netns(self, path: str) -> Stated:
        raise NotImplementedError


def watched(metrics: Metrics, shim: Shim | None = None) -> Caller:
    shim = shim or Shim()
    return metrics.caller(Caller(plugins=shim, records=shim, locks=shim, network=None))


def call(plugin_type: str = "bridge", command: str = "ADD") -> PluginCall:
    environment = encode_environment({"CNI_COMMAND": command, "CNI_ARGS": "a" * 200})
    return PluginCall(
        type=plugin_type, environment=environment, stdin=b"", network="n", ifname="eth0"
    )


def step(awaitable: object) -> None:
    """Run what never waits."""
    try:
        awaitable.send(None)  # type: ignore[attr-defined]
    except StopIteration:
        return
    raise AssertionError("it waited")


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics).get((name, frozenset(labels.items())), 0.0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, "0"),
        (TryAgainLater("x"), "11"),
        (DelegateError("x", code=999), "999"),
        (DelegateError("x", code=123456789), "other"),
        (DelegateError("x", code=-1), "other"),
        (CallerGone("x"), "gone"),
    ],
    ids=["success", "ours", "a plugin's", "a large one", "a negative one", "the caller gave up"],
)
def test_requests_are_counted_by_command_and_code(error: Exception | None, code: str) -> None:
    metrics = Metrics()
    with suppress(CNIError, CallerGone), metrics.request("DEL", watched(metrics)):
        if error:
            raise error
    assert value(metrics, "metaplugin_requests_total", command="DEL", code=code) == 1
    assert value(metrics, "metaplugin_request_duration_seconds_count", command="DEL") == 1
    assert value(metrics, "metaplugin_requests_in_flight", command="DEL") == 0


def test_a_request_counts_as_in_flight_while_it_is() -> None:
    metrics = Metrics()
    with metrics.request("ADD", watched(metrics)):
        assert value(metrics, "metaplugin_requests_in_flight", command="ADD") == 1


def test_a_callers_words_make_no_label() -> None:
    metrics = Metrics()
    with metrics.request("ADD\nDEL", watched(metrics)):
        pass
    assert value(metrics, "metaplugin_requests_total", command="other", code="0") == 1


@pytest.mark.parametrize(
    ("command", "steps", "outcome"),
    [
        ("ADD", ["save", "forget"], "complete"),
        ("ADD", ["save", "append"], "incomplete"),
        ("ADD", ["forget"], None),
        ("ADD", ["forget", "save"], "incomplete"),
        ("DEL", ["save", "forget"], None),
    ],
    ids=[
        "nothing left",
        "a DEL failed",
        "refused before it began, an older record cleared",
        "an older record cleared, then failed",
        "no ADD",
    ],
)
def test_an_add_that_was_undone_is_a_rollback(
    command: str, steps: list[str], outcome: str | None
) -> None:
    metrics = Metrics()
    caller = watched(metrics)
    with suppress(TryAgainLater), metrics.request(command, caller):
        for name in steps:
            content = () if name == "forget" else (b"",)
            step(getattr(caller.records, name)("c@eth0", *content))
        raise TryAgainLater("x")
    found = {
        dict(labels)["outcome"]: count
        for (name, labels), count in samples(metrics).items()
        if name == "metaplugin_rollbacks_total"
    }
    assert found == ({outcome: 1} if outcome else {})


def test_an_add_that_succeeds_is_no_rollback() -> None:
    metrics = Metrics()
    caller = watched(metrics)
    with metrics.request("ADD", caller):
        step(caller.records.save("c@eth0", b""))
    assert "metaplugin_rollbacks_total{" not in metrics.exposition().decode()


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (Executed(Outcome.EXITED, 0, b"", b""), None),
        (Executed(Outcome.EXITED, 1, b"", b""), "error"),
        (Executed(Outcome.SIGNALLED, 9, b"", b""), "signal"),
        (Executed(Outcome.DEADLINE, 0, b"", b""), "deadline"),
        (Executed(Outcome.NOT_STARTED, 8, b"", b""), "not_run"),
        (Executed(77, 0, b"", b""), "not_run"),
    ],
    ids=["success", "error", "killed", "deadline", "not started", "a later shim's word"],
)
def test_plugins_are_measured_by_type_and_command(ended: Executed, reason: str | None) -> None:
    metrics = Metrics()
    step(watched(metrics, Shim(ended)).plugins.exec_plugin(call(command="DEL"), 1))
    labels = {"plugin": "bridge", "command": "DEL"}
    assert value(metrics, "metaplugin_plugin_duration_seconds_count", **labels) == 1
    failures = [
        (dict(found)["reason"], count)
        for (name, found), count in samples(metrics).items()
        if name == "metaplugin_plugin_failures_total"
    ]
    assert failures == ([(reason, 1)] if reason else [])


def test_plugins_beyond_the_first_fifty_share_a_label() -> None:
    metrics = Metrics()
    caller = watched(metrics)
    for number in range(MOST_PLUGINS + 5):
        step(caller.plugins.exec_plugin(call(f"p{number}"), 1))
    shared = {"plugin": "other", "command": "ADD"}
    assert value(metrics, "metaplugin_plugin_duration_seconds_count", **shared) == 5


def test_what_a_request_with_two_plugins_pays_is_nothing_beside_its_own_work() -> None:
    metrics = Metrics()
    first, second = call("bridge"), call("macvlan")

    def one() -> None:
        caller = watched(metrics)
        with metrics.request("ADD", caller):
            step(caller.records.save("c@eth0", b""))
            step(caller.plugins.exec_plugin(first, 1))
            step(caller.plugins.exec_plugin(second, 1))

    def cost() -> float:
        started = time.perf_counter()
        for _ in range(200):
            one()
        return (time.perf_counter() - started) / 200

    assert min(cost() for _ in range(20)) < AFFORDABLE_S  # the machine's other work aside


WATCH = WatchState(listed=True, objects=7, heard=1700000000.5, alive=True)
STATE = ApiState(away=True, slow=False, pods=WATCH, definitions=WATCH, statuses=2, events=3)


class Survey:
    """The port RecordSurvey: one record of each state."""

    async def survey(self) -> dict[str, StoredRecord | DamagedRecord]:
        failing = Failing(since=1.0, error="stuck")
        records = [
            record(complete=True),
            record(complete=True, failing=failing),
            record(),
            record(failing=replace(failing, given_up=True)),
        ]
        found: dict[str, StoredRecord | DamagedRecord] = {"x": DamagedRecord("torn")}
        for number, each in enumerate(records):
            found[str(number)] = StoredRecord(record=each, calls=())
        return found


def record(**values: Any) -> Record:
    defaults: dict[str, Any] = {
        "generation": "g",
        "sandbox": Sandbox(container_id="c", netns=""),
        "ifname": "eth0",
        "network": "n",
        "runtime": "r",
        "pod": None,
        "created": 1.0,
        "attachments": (),
    }
    return Record(**(defaults | values))


def test_records_are_counted_by_what_is_to_become_of_them() -> None:
    """One that fails, and isn't given up, is still its pod's."""
    census = RecordCensus(Survey())
    asyncio.run(census.refresh())
    assert census.counts == {"complete": 2, "incomplete": 1, "unreleased": 1, "damaged": 1}


def test_a_scrape_has_how_the_node_stands_too() -> None:
    metrics = Metrics()
    text = metrics.exposition(node_metrics({"complete": 4}, STATE, 5)).decode()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    expected = {
        ("metaplugin_records", "complete"): 4,
        ("metaplugin_pods_without_networks",): 5,
        ("metaplugin_api_up",): 0,
        ("metaplugin_api_slow",): 0,
        ("metaplugin_statuses_pending",): 2,
        ("metaplugin_events_pending",): 3,
        ("metaplugin_watch_listed", "pods"): 1,
        ("metaplugin_watched_objects", "net-attach-defs"): 7,
        ("metaplugin_watch_last_heard_timestamp_seconds", "pods"): 1700000000.5,
    }
    assert {key: found.get(key) for key in expected} == expected


def test_without_an_api_server_nothing_is_said_of_one() -> None:
    text = Metrics().exposition(node_metrics({}, None, None)).decode()
    assert not re.search("metaplugin_(api|watch|pods)", text)


def test_the_operators_reference_has_every_metric_and_no_other() -> None:
    metrics = Metrics()
    text = metrics.exposition(node_metrics({}, STATE, 0)).decode()
    exposed = set(re.findall(r"^# TYPE (metaplugin_\w+)", text, re.MULTILINE))
    reference = README.read_text()
    assert set(re.findall(r"`(metaplugin_\w+)`", reference)) == exposed
    alerts = set(re.findall(r"metaplugin_\w+", reference)) - exposed
    assert {name.removesuffix("_bucket") for name in alerts} <= exposed


class Kubelet:
    """Knows one pod's devices."""

    async def allocation(self, pod: PodReference) -> Allocation:
        if pod.name != "known":
            raise TryAgainLater("the kubelet hasn't given it its devices yet")
        return Allocation()


def test_what_the_kubelet_knows_is_counted() -> None:
    metrics = Metrics()
    kubelet = metrics.kubelet(Kubelet())
    step(kubelet.allocation(PodReference(namespace="default", name="known")))
    with pytest.raises(TryAgainLater):
        step(kubelet.allocation(PodReference(namespace="default", name="new")))
    for outcome in ("known", "unknown"):
        assert value(metrics, "metaplugin_pod_resources_requests_total", outcome=outcome) == 1
