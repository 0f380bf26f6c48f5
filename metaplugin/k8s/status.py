"""The network-status annotation on pods: level-triggered, one PATCH where it isn't what a record
says.

A record's status is wanted on its pod for as long as the record lives. Whatever happens to the pod,
to the server or to us, the difference is looked at again; nobody else's annotation is touched: a
record without status (one of Multus's, one of a pod that is hot-plugged) leaves it to its writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass

from metaplugin.attachments.record import Record
from metaplugin.cni.raw import JSONObject
from metaplugin.commands.ports import KnownPod, Name
from metaplugin.k8s.api import ApiAway, ApiRefused
from metaplugin.k8s.calls import Calls
from metaplugin.k8s.health import PATIENCE_S, Health
from metaplugin.k8s.objects import pod_path, slim_pod
from metaplugin.k8s.reflector import Seen, version_of
from metaplugin.k8s.store import Store
from metaplugin.npwg.status import STATUS_ANNOTATION

log = logging.getLogger(__name__)

PATCH_TIMEOUT_S = 20
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 3.0  # the longest bounds how late a return is noticed
FORBIDDEN_DELAY_S = 60  # an operator has to act; but a server that just started also says 403
_OTHER_POD = frozenset({404, 409, 422})  # gone, or another of that name: the watch will tell


@dataclass(frozen=True, slots=True)
class _Task:
    """What brings a status about; `tried` is done once the server has been asked for the first
    time, whatever it said."""

    running: asyncio.Task[None]
    tried: asyncio.Future[None]


class ApiStatus:
    """The port StatusPublisher over the API server; `pods_changed` has to be told it."""

    def __init__(self, calls: Calls, health: Health, pods: Store[KnownPod]) -> None:
        self._calls = calls
        self._health = health
        self._pods = pods
        self._wanted: dict[Name, Record] = {}
        self._tasks: dict[Name, _Task] = {}

    async def publish(self, record: Record) -> None:
        """Want the status; wait for the first attempt where the pod has more than its default
        network."""
        name = _name(record)
        if name is None:
            return
        if not record.status:
            self._wanted.pop(name, None)
            return
        self._wanted[name] = record
        task = self._begin(name)
        unhurried = len(record.attachments) > 1 and not self._health.away and not self._health.slow
        if task and unhurried:
            await self._calls.answers(task.tried, PATIENCE_S)

    async def withdraw(self, record: Record) -> None:
        """Want it no more; the annotation goes with the pod, and a newer sandbox's stays."""
        name = _name(record)
        held = self._wanted.get(name) if name else None
        if name and held and held.generation == record.generation:
            del self._wanted[name]

    def resume(self, records: Iterable[Record]) -> None:
        """Want the statuses of an earlier process's records, once the pods have been listed."""
        for record in sorted(records, key=lambda record: record.created):
            if record.complete and record.status and (name := _name(record)):
                self._wanted[name] = record

    def pods_changed(self, changes: Iterable[Name]) -> None:
        """Look again at the wanted statuses of these pods, which are there."""
        for name in changes:
            if name in self._wanted and self._pods.synced.is_set():
                self._begin(name)

    def missing(self) -> int:
        """Return how many wanted statuses aren't on their pods (yet)."""
        return sum(self._target(name) is not None for name in self._wanted)

    def look_at_all(self) -> None:
        """Look at every wanted status: after the pods have been listed, or the server is back."""
        self.pods_changed(list(self._wanted))

    def _begin(self, name: Name) -> _Task | None:
        """Return the task that brings a status about, None when there is nothing to do now."""
        task = self._tasks.get(name)
        if (task is None or task.running.done()) and self._target(name) is not None:
            tried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            running = asyncio.create_task(self._bring_about(name, tried))
            task = self._tasks[name] = _Task(running, tried)
            running.add_done_callback(lambda done: self._forget(name, done))
        return task

    def _forget(self, name: Name, done: asyncio.Task[None]) -> None:
        task = self._tasks.get(name)
        if task and task.running is done:
            del self._tasks[name]

    def _target(self, name: Name) -> str | None:
        """Return the UID of the pod to write to ("" when there is none to say), None when the
        status is there, or its pod isn't (any more)."""
        record = self._wanted.get(name)
        if record is None or record.pod is None:
            return None
        pod = self._pods.get(name)
        if pod is None:
            return record.pod.uid
        wanting = pod.is_meant_by(record.pod) and pod.network_status != record.status
        return pod.uid if wanting else None

    async def _bring_about(self, name: Name, tried: asyncio.Future[None]) -> None:
        """Write the status until it is there or can't be; `tried` is done after the first time."""
        delay = FIRST_DELAY_S
        try:
            while (uid := self._target(name)) is not None and not self._health.away:
                pause = await self._attempt(name, uid, delay)
                if pause is None:
                    return
                _finish(tried)
                await self._rest(pause)
                delay = min(delay * 2, FORBIDDEN_DELAY_S)
        finally:
            _finish(tried)

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until the server is away: its return begins anew."""
        jitter = random.uniform(1, 1.3)  # noqa: S311 - apart from others
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._calls.gone.wait(), seconds * jitter)

    async def _attempt(self, name: Name, uid: str, delay: float) -> float | None:
        """Write the annotation once; return how long to wait before the next time, None when
        there is nothing to repeat."""
        fields = {"pod": "/".join(name)}
        record, pod = self._wanted[name], self._pods.get(name)
        patch = asyncio.create_task(self._patch(name, uid, record.status))
        try:
            if await self._calls.answers(patch, PATCH_TIMEOUT_S):
                settled = self._is_settled(name, record, patch.result())
                if settled or self._target(name) is None:
                    return None
            else:
                patch.cancel()  # its connection may be dead; the server's return must not wait
                log.warning("network-status waits", extra={**fields, "why": "no answer"})
        except ApiRefused as exc:
            log.warning("network-status refused", extra={**fields, "why": str(exc)})
            if exc.status in _OTHER_POD and self._is_settled(name, record, pod):
                return None
            if exc.status == 403:
                return delay
            return exc.retry_after or min(delay, LONGEST_DELAY_S)
        except ApiAway as exc:
            log.warning("network-status waits", extra={**fields, "why": str(exc)})
        return min(delay, LONGEST_DELAY_S)

    def _is_settled(self, name: Name, record: Record, pod: KnownPod | None) -> bool:
        """Say whether nothing was told meanwhile: whoever told it found us busy."""
        return self._wanted.get(name) is record and self._pods.get(name) is pod

    async def _patch(self, name: Name, uid: str, status: str) -> KnownPod | None:
        """Write the annotation, and only to the pod of that UID; return what it is then."""
        metadata: JSONObject = {"annotations": {STATUS_ANNOTATION: status}}
        if uid:
            metadata["uid"] = uid
        written = await self._calls.call(
            "PATCH",
            pod_path(name, "/status"),
            timeout_s=PATCH_TIMEOUT_S,
            body={"metadata": metadata},
        )
        pod = Seen(version_of(written), slim_pod(written))
        self._pods.offer(name, pod)
        return pod.value


def _finish(tried: asyncio.Future[None]) -> None:
    if not tried.done():
        tried.set_result(None)


def _name(record: Record) -> Name | None:
    pod = record.pod
    return (pod.namespace, pod.name) if pod and not record.hot_plugged else None
