"""Metrics of how a node stands at the moment of a scrape: records, the API server, its pods."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from metaplugin.attachments.record import StoredRecord
from metaplugin.cni.errors import CNIError
from metaplugin.commands.unattached import RecordSurvey
from metaplugin.k8s.state import ApiState

SURVEY_S = 30  # every record is read: some 0.2 ms each


class RecordCensus:
    """How many records there are, by state, as of SURVEY_S ago at most."""

    def __init__(self, records: RecordSurvey) -> None:
        self._records = records
        self._counted_at = float("-inf")
        self.counts: dict[str, int] = {}

    async def refresh(self) -> None:
        """Count anew when it is time; none can be told where the folder can't be read."""
        now = time.monotonic()
        if now - self._counted_at < SURVEY_S:
            return
        self._counted_at, self.counts = now, {}
        try:
            found = (await self._records.survey()).values()
        except CNIError:
            return
        self.counts = dict.fromkeys(("complete", "incomplete", "unreleased", "damaged"), 0)
        for stored in found:
            self.counts[_record_state(stored)] += 1


def _record_state(stored: object) -> str:
    if not isinstance(stored, StoredRecord):
        return "damaged"
    if stored.record.given_up:
        return "unreleased"
    return "complete" if stored.record.complete else "incomplete"


def node_metrics(
    records_by_state: Mapping[str, int], api: ApiState | None, unattached: int | None
) -> Iterator[Metric]:
    """Yield what a scrape finds; `unattached` is None where no pods are watched."""
    records = GaugeMetricFamily(
        "metaplugin_records",
        "Sandboxes' records on disk: complete, incomplete (an ADD that runs or was given up), "
        "unreleased (the DEL fails for ever, and the pod went without it), damaged.",
        labels=["state"],
    )
    for state, count in records_by_state.items():
        records.add_metric([state], count)
    yield records
    if unattached is not None:
        yield GaugeMetricFamily(
            "metaplugin_pods_without_networks",
            "Running pods of this node that started without the networks they are to have.",
            value=unattached,
        )
    if api is not None:
        yield from _api_metrics(api)


def _api_metrics(state: ApiState) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "metaplugin_api_up",
        "Whether the API server answers; 0: last known copies serve.",
        value=not state.away,
    )
    yield GaugeMetricFamily(
        "metaplugin_api_slow",
        "Whether the API server is slow or overloaded, and isn't waited for.",
        value=state.slow,
    )
    yield GaugeMetricFamily(
        "metaplugin_statuses_pending",
        "Pods whose network-status is not what it should be yet.",
        value=state.statuses,
    )
    yield GaugeMetricFamily(
        "metaplugin_events_pending", "Events that wait to be written.", value=state.events
    )
    yield from _watch_metrics(state)


def _watch_metrics(state: ApiState) -> Iterator[Metric]:
    watches = (("pods", state.pods), ("net-attach-defs", state.definitions))
    listed = GaugeMetricFamily(
        "metaplugin_watch_listed",
        "Whether a collection has been listed since the daemon's start.",
        labels=["resource"],
    )
    objects = GaugeMetricFamily(
        "metaplugin_watched_objects", "Objects held of a collection.", labels=["resource"]
    )
    heard = GaugeMetricFamily(
        "metaplugin_watch_last_heard_timestamp_seconds",
        "When the API server last said something of a collection; a bookmark comes every minute. "
        "0: never.",
        labels=["resource"],
    )
    for resource, watch in watches:
        listed.add_metric([resource], watch.listed)
        objects.add_metric([resource], watch.objects)
        heard.add_metric([resource], watch.heard)
    yield listed
    yield objects
    yield heard
