"""The network-status annotation on pods: level-triggered, one PATCH where it isn't what a record
says.

A record's status is wanted on its pod for as long as the record lives. Whatever happens to the pod,
to the server or to us, the difference is looked at again; nobody else's annotation is touched.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable

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
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 4.0
FORBIDDEN_DELAY_S = 60  # an operator has to act
_OTHER_POD = frozenset({404, 409, 422})  # gone, or another of that name: the watch will tell


class ApiStatus:
    """The port StatusPublisher over the API server; `pods_changed` has to be told it."""

    def __init__(self, calls: Calls, health: Health, pods: Store[KnownPod]) -> None:
        self._calls = calls
        self._health = health
        self._pods = pods
        self._wanted: dict[Name, Record] = {}
        self._tasks: dict[Name, asyncio.Task[None]] = {}

    async def publish(self, record: Record) -> None:
        """Want the status; wait for it where the pod has more than its default network."""
        name = _name(record)
        if name is None:
            return
        self._wanted[name] = record
        task = self._begin(name)
        unhurried = len(record.attachments) > 1 and not self._health.away and not self._health.slow
        if task and unhurried:
            await self._calls.answers(task, PATIENCE_S)

    async def withdraw(self, record: Record) -> None:
        """Want it no more; the annotation goes with the pod, and a newer sandbox's stays."""
        name = _name(record)
        held = self._wanted.get(name) if name else None
        if name and held and held.generation == record.generation:
            del self._wanted[name]

    def resume(self, records: Iterable[Record]) -> None:
        """Want the statuses of an earlier process's records, once the pods have been listed."""
        for record in sorted(records, key=lambda record: record.created):
            if record.complete and (name := _name(record)):
                self._wanted[name] = record

    def pods_changed(self, changes: Iterable[Name]) -> None:
        """Look again at the wanted statuses of these pods, which are there."""
        for name in changes:
            if name in self._wanted and self._pods.synced.is_set():
                self._begin(name)

    def look_at_all(self) -> None:
        """Look at every wanted status: after the pods have been listed, or the server is back."""
        self.pods_changed(list(self._wanted))

    def _begin(self, name: Name) -> asyncio.Task[None] | None:
        """Return the task that brings a status about, None when there is nothing to do now."""
        task = self._tasks.get(name)
        if (task is None or task.done()) and self._target(name) is not None:
            task = self._tasks[name] = asyncio.create_task(self._bring_about(name))
            task.add_done_callback(lambda done: self._forget(name, done))
        return task

    def _forget(self, name: Name, done: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is done:
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

    async def _bring_about(self, name: Name) -> None:
        delay = FIRST_DELAY_S
        while (uid := self._target(name)) is not None and not self._health.away:
            record, pod = self._wanted[name], self._pods.get(name)
            try:
                written = await self._patch(name, uid, record.status)
                if self._target(name) is None or self._is_settled(name, record, written):
                    return
                pause = delay
            except ApiRefused as exc:
                log.warning(
                    "network-status refused", extra={"pod": "/".join(name), "why": str(exc)}
                )
                if exc.status in _OTHER_POD and self._is_settled(name, record, pod):
                    return
                pause = FORBIDDEN_DELAY_S if exc.status == 403 else exc.retry_after or delay
            except ApiAway as exc:
                log.warning("network-status waits", extra={"pod": "/".join(name), "why": str(exc)})
                pause = delay
            await asyncio.sleep(pause * random.uniform(1, 1.3))  # noqa: S311 - apart from others
            delay = min(delay * 2, LONGEST_DELAY_S)

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


def _name(record: Record) -> Name | None:
    pod = record.pod
    return (pod.namespace, pod.name) if pod else None
