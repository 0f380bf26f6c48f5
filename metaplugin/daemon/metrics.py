"""Prometheus metrics: what requests and plugins did, watched from beside the flows.

Labels have few values: no pod, no network, no container is one. What needs a name is in events and
log.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from metaplugin import __version__
from metaplugin.attachments.calls import PluginCall
from metaplugin.attachments.devices import Allocation
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.environment import Command
from metaplugin.cni.errors import CNIError
from metaplugin.commands.ports import Caller, CallerGone, Kubelet, PluginRunner, RecordWriter
from metaplugin.wire.frames import Executed, Outcome

# Without extra networks an ADD takes some 10 ms beside its plugins; the kubelet gives it 240 s.
REQUEST_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 240)
PLUGIN_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90)
MOST_PLUGINS = 50  # types with a label of their own: net-attach-defs name them
MOST_CODES = 1000
_OTHER = "other"
_COMMANDS = frozenset(command.value for command in Command)


class Metrics:
    """The port Observer, and the registry of all that is measured."""

    def __init__(self) -> None:
        # a second series for each, which nobody looks at
        disable_created_metrics()  # type: ignore[no-untyped-call] # the library's own
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._plugin_types: set[str] = set()
        self._make_instruments()

    def _make_instruments(self) -> None:
        registry = self.registry
        build = Gauge(
            "metaplugin_build_info",
            "1, with the release that runs.",
            ["version"],
            registry=registry,
        )
        build.labels(__version__).set(1)
        self._requests = Counter(
            "metaplugin_requests_total",
            "Runtimes' requests by CNI command and the answer's code: 0 for success, gone where "
            "the runtime gave up.",
            ["command", "code"],
            registry=registry,
        )
        self._durations = Histogram(
            "metaplugin_request_duration_seconds",
            "From a request read to its answer made.",
            ["command"],
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self._running = Gauge(
            "metaplugin_requests_in_flight",
            "Requests being answered.",
            ["command"],
            registry=registry,
        )
        self._plugins = Histogram(
            "metaplugin_plugin_duration_seconds",
            "Plugins' runs by type, start to end as the daemon sees it.",
            ["plugin", "command"],
            buckets=PLUGIN_BUCKETS_S,
            registry=registry,
        )
        self._plugin_failures = Counter(
            "metaplugin_plugin_failures_total",
            "Plugins' runs that ended in an error, by reason: error (its own), deadline, signal, "
            "not_run.",
            ["plugin", "command", "reason"],
            registry=registry,
        )
        self._rollbacks = Counter(
            "metaplugin_rollbacks_total",
            "ADDs that were undone: complete, incomplete (the runtime's DEL goes on), undelivered "
            "(the result reached nobody).",
            ["outcome"],
            registry=registry,
        )
        self._reaped = Counter(
            "metaplugin_reaped_records_total",
            "Records released because their sandbox vanished without a DEL.",
            registry=registry,
        )
        self._kubelet = Counter(
            "metaplugin_pod_resources_requests_total",
            "Pods whose devices were asked of the kubelet: known, unknown (it is tried again).",
            ["outcome"],
            registry=registry,
        )
        self._evictions = Counter(
            "metaplugin_evictions_total",
            "Evictions of pods without their networks (onMissing: evict): accepted, refused.",
            ["outcome"],
            registry=registry,
        )

    def exposition(self, others: Iterable[Metric] = ()) -> bytes:
        """Return all in Prometheus's text format, and others' after it: some 10 ms, in any
        thread."""
        return generate_latest(_Together(self.registry, tuple(others)))

    def caller(self, caller: Caller) -> Caller:
        plugins = _WatchedPlugins(caller.plugins, self)
        return replace(caller, plugins=plugins, records=_WatchedRecords(caller.records))

    @contextmanager
    def request(self, command: str, caller: Caller) -> Iterator[None]:
        name = command if command in _COMMANDS else _OTHER
        started, code = time.perf_counter(), "0"
        running = self._running.labels(name)
        running.inc()
        try:
            yield
        except CallerGone:
            code = "gone"
            raise
        except CNIError as exc:
            code = str(exc.code) if 0 <= exc.code < MOST_CODES else _OTHER
            raise
        finally:
            running.dec()
            self._requests.labels(name, code).inc()
            self._durations.labels(name).observe(time.perf_counter() - started)
            if command == Command.ADD and code != "0":
                self._note_rollback(caller.records)

    def undelivered(self) -> None:
        self._rollbacks.labels("undelivered").inc()

    def reaped(self, records: int) -> None:
        self._reaped.inc(records)

    def kubelet(self, kubelet: Kubelet) -> Kubelet:
        """Return the kubelet with its answers counted."""
        return _WatchedKubelet(kubelet, self._kubelet)

    def evicted(self, *, going: bool) -> None:
        self._evictions.labels("accepted" if going else "refused").inc()

    def plugin_ran(self, call: PluginCall, seconds: float, ended: Executed) -> None:
        """Note a plugin's run."""
        plugin = self._plugin_label(call.type)
        command = call.command
        self._plugins.labels(plugin, command).observe(seconds)
        if reason := _failure(ended):
            self._plugin_failures.labels(plugin, command, reason).inc()

    def _plugin_label(self, plugin_type: str) -> str:
        if plugin_type not in self._plugin_types:
            if len(self._plugin_types) >= MOST_PLUGINS:
                return _OTHER
            self._plugin_types.add(plugin_type)
        return plugin_type

    def _note_rollback(self, records: RecordWriter) -> None:
        if isinstance(records, _WatchedRecords) and records.saved:
            outcome = "complete" if records.forgotten else "incomplete"
            self._rollbacks.labels(outcome).inc()


@dataclass(frozen=True, slots=True)
class _Together(Collector):
    registry: CollectorRegistry
    others: tuple[Metric, ...]

    def collect(self) -> Iterator[Metric]:
        yield from self.registry.collect()
        yield from self.others


@dataclass(frozen=True, slots=True)
class _WatchedPlugins:
    """The port PluginRunner, each run measured."""

    inner: PluginRunner
    metrics: Metrics

    async def exec_plugin(self, call: PluginCall, deadline_s: float) -> Executed:
        started = time.perf_counter()
        ended = await self.inner.exec_plugin(call, deadline_s)
        self.metrics.plugin_ran(call, time.perf_counter() - started, ended)
        return ended

    async def find_in_path(self, plugin_type: str) -> str:
        return await self.inner.find_in_path(plugin_type)


@dataclass(frozen=True, slots=True)
class _WatchedKubelet:
    """The port Kubelet, each answer counted."""

    inner: Kubelet
    answers: Counter

    async def allocation(self, pod: PodReference) -> Allocation:
        try:
            found = await self.inner.allocation(pod)
        except CNIError:
            self.answers.labels("unknown").inc()
            raise
        self.answers.labels("known").inc()
        return found


@dataclass(slots=True)
class _WatchedRecords:
    """The port RecordWriter: a failed ADD whose record was saved is one that was undone, and the
    record is forgotten only if nothing is left."""

    inner: RecordWriter
    saved: bool = False
    forgotten: bool = False

    async def save(self, name: str, content: bytes) -> None:
        await self.inner.save(name, content)
        self.saved, self.forgotten = True, False

    async def append(self, name: str, content: bytes) -> None:
        await self.inner.append(name, content)

    async def forget(self, name: str) -> None:
        await self.inner.forget(name)
        self.forgotten = True


def _failure(ended: Executed) -> str:
    if ended.outcome == Outcome.EXITED:
        return "error" if ended.status else ""
    reasons = {Outcome.SIGNALLED: "signal", Outcome.DEADLINE: "deadline"}
    try:
        return reasons.get(Outcome(ended.outcome), "not_run")
    except ValueError:
        return "not_run"
