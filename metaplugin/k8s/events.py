"""Events on pods, for whoever reads `kubectl describe pod`: what was attached, or why not; and on
the node, of what concerns all of them.

Written in the background, some a second, oldest first; kept while the server is away, as many as
are worth reading. The same failure of a pod is told once in a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from cachetools import TTLCache

from metaplugin.attachments.record import MadeAttachment, Record
from metaplugin.attachments.runtime_conf import DEFAULT_NAMESPACE, PodReference
from metaplugin.cni.environment import Command
from metaplugin.cni.errors import CNIError, NetworkNotFound
from metaplugin.cni.raw import JSONObject
from metaplugin.commands.ports import KnownPod
from metaplugin.k8s.api import ApiAway, ApiRefused
from metaplugin.k8s.calls import Calls
from metaplugin.k8s.objects import events_path
from metaplugin.k8s.store import Store

log = logging.getLogger(__name__)

COMPONENT = "metaplugin"
KEPT = 1000
REPEATED_AFTER_S = 300
STALE_AFTER_S = 3600  # the server itself forgets events after an hour
INTERVAL_S = 0.1  # between two, once BURST have been written at once
BURST = 50
READS_ROLES_S = 10  # so long a server that has just started may refuse what it will allow
_NOT_ALLOWED = frozenset({401, 403})
TIMEOUT_S = 10
MESSAGE_LIMIT = 1024  # the server's own, in characters
_EVICTED = "evicted, so that its successor gets its networks (onMissing: evict)"
_REASONS = {Command.ADD: "FailedAddingInterface", Command.DEL: "FailedRemovingInterface"}


@dataclass(frozen=True, slots=True)
class _Waiting:
    event: JSONObject
    since: float


class ApiEvents:
    """The port PodEvents. Run `keep_writing` for as long as it is used."""

    def __init__(self, calls: Calls, pods: Store[KnownPod], node_name: str) -> None:
        self._calls = calls
        self._pods = pods
        self._node_name = node_name
        self._waiting: deque[_Waiting] = deque(maxlen=KEPT)
        self._wake = asyncio.Event()
        self._told: TTLCache[tuple[str, str, str], bool] = TTLCache(KEPT, REPEATED_AFTER_S)

    def attached(self, record: Record) -> None:
        if record.pod:
            for made in record.attachments:
                if made.planned.auxiliary:
                    continue
                self._add(record.pod, "Normal", "AddedInterface", _addition(made))
                if made.planned.unhonoured:
                    self._add(record.pod, "Warning", "CapabilityNotDeclared", _unhonoured(made))
                for words in made.planned.mistyped:
                    self._add(record.pod, "Warning", "SelectionKeyIgnored", words)

    def failed(self, command: Command, pod: PodReference, error: CNIError) -> None:
        reason = _REASONS.get(command)
        if reason is None:
            return
        if isinstance(error, NetworkNotFound):
            reason = "NoNetworkFound"
        message = f"{error.msg} ({error.details})" if error.details else error.msg
        key = (str(pod), pod.uid, message)
        if key not in self._told:
            self._told[key] = True
            self._add(pod, "Warning", reason, message)

    def given_up(self, record: Record) -> None:
        if record.pod:
            self._add(record.pod, "Warning", "NetworkNotReleased", _not_released(record))

    def unattached(self, pod: PodReference, lacking: Sequence[str]) -> None:
        """Tell that a running pod has never got these networks."""
        self._add(pod, "Warning", "NetworksNotAttached", _unattached(lacking))

    def evicted(self, pod: PodReference) -> None:
        """Tell why a pod was evicted."""
        self._add(pod, "Normal", "EvictedForNetworks", _EVICTED)

    @property
    def waiting(self) -> int:
        """How many are still to be written."""
        return len(self._waiting)

    def told(self, kind: str, reason: str, message: str) -> None:
        """Tell the reader of the node, once in a while."""
        key = ("", "", message)
        if key not in self._told:
            self._told[key] = True
            self._append(self._node_event(kind, reason, message))

    async def keep_writing(self) -> None:
        """Write what waits; runs until it is cancelled."""
        credit, refilled = float(BURST), time.monotonic()
        while True:
            await self._wake.wait()
            now = time.monotonic()
            credit, refilled = min(BURST, credit + (now - refilled) / INTERVAL_S), now
            if credit < 1:
                await asyncio.sleep(INTERVAL_S)
                continue
            credit -= 1
            await self._write_first()

    async def _write_first(self) -> None:
        """Write the oldest event; keep it where the server can't take it now."""
        await self._calls.here.wait()
        waiting = self._waiting[0]
        if time.monotonic() - waiting.since < STALE_AFTER_S:
            path = events_path(waiting.event["metadata"]["namespace"])
            try:
                await self._calls.call("POST", path, timeout_s=TIMEOUT_S, body=waiting.event)
            except ApiAway:
                return
            except ApiRefused as exc:
                log.warning("event refused", extra={"why": str(exc)})
                just_back = time.monotonic() - self._calls.returned_at < READS_ROLES_S
                if exc.is_overload or (exc.status in _NOT_ALLOWED and just_back):
                    await asyncio.sleep(exc.retry_after or 1)
                    return
        if self._waiting[0] is waiting:  # else so many came meanwhile that it was given up
            self._waiting.popleft()
        if not self._waiting:
            self._wake.clear()

    def _add(self, pod: PodReference, kind: str, reason: str, message: str) -> None:
        known = self._pods.get((pod.namespace, pod.name))
        uid = known.uid if known and known.is_meant_by(pod) else pod.uid
        involved = {"namespace": pod.namespace, "name": pod.name, **({"uid": uid} if uid else {})}
        involved |= {"apiVersion": "v1", "kind": "Pod"}
        self._append(self._event(involved, pod.namespace, kind, reason, message))

    def _append(self, event: JSONObject) -> None:
        self._waiting.append(_Waiting(event, time.monotonic()))
        self._wake.set()

    def _node_event(self, kind: str, reason: str, message: str) -> JSONObject:
        """Return an event on this node, which kubectl looks for by its name in place of its UID, as
        the kubelet writes it; events on what has no namespace are in `default`."""
        name = self._node_name
        involved = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": name}
        return self._event(involved, DEFAULT_NAMESPACE, kind, reason, message)

    def _event(
        self, involved: JSONObject, namespace: str, kind: str, reason: str, message: str
    ) -> JSONObject:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": _event_name(involved["name"])},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message[:MESSAGE_LIMIT],
            "source": {"component": COMPONENT, "host": self._node_name},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node_name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def _event_name(involved: str) -> str:
    """Return a name that is no other event's; an object's has at most 253 characters."""
    return f"{involved[:236].rstrip('-.')}.{uuid.uuid4().hex[:16]}"


def _not_released(record: Record) -> str:
    error = record.failing.error if record.failing else ""
    return (
        f"the pod goes, but its networks could not be released: {error}. This is tried again and "
        f"again for as long as this node has record {record.file_name}"
    )


def _unattached(lacking: Sequence[str]) -> str:
    return (
        "the pod runs without the networks that it is to have, since it started when metaplugin "
        "was not yet in place on this node. Delete the pod, and its successor gets them. It "
        f"lacks: {', '.join(lacking)}"
    )


def _unhonoured(made: MadeAttachment) -> str:
    return (
        f"{made.planned.ifname}: no plugin of network {made.planned.name} declares "
        f"{', '.join(made.planned.unhonoured)}; that was asked for and may not have been done"
    )


def _addition(made: MadeAttachment) -> str:
    """Return the words that Multus's users look for."""
    addresses = " ".join(ip.address for ip in made.result.ips) if made.result else ""
    return f"Add {made.planned.ifname} [{addresses}] from {made.planned.name}"
