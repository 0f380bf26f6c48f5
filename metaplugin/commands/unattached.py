"""Pods that run without the networks that they are to have, since they started before metaplugin
was in place: found, told, and, where that is wanted, evicted one after the other.

They are never touched otherwise: only a new sandbox can get networks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from metaplugin.attachments.record import StoredRecord
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import CNIError
from metaplugin.cni.raw import load_value
from metaplugin.commands.facts import default_element, selected_elements
from metaplugin.commands.ports import KnownPod, Name, Settings
from metaplugin.wire.container import DamagedRecord

log = logging.getLogger(__name__)

# An API server's word on a pod may be older than what has become of its sandbox: after a node's
# crash the kubelet is only about to make it anew.
GRACE_S = 30
REFUSED_S = 60  # before the same pod's eviction is tried again


class RecordSurvey(Protocol):
    """All records, for who has to know of each."""

    async def survey(self) -> Mapping[str, StoredRecord | DamagedRecord]:
        """Return every record by name, or why it can't be read; raise IOFailure."""


class UnattachedEvents(Protocol):
    """Tells the pod's reader that it lacks networks; never waits, never raises."""

    def unattached(self, pod: PodReference, lacking: tuple[str, ...]) -> None: ...


class Evictor(Protocol):
    """Has pods go as their disruption budgets allow."""

    async def evict(self, pod: PodReference) -> bool:
        """Say whether the pod goes or is gone; False is for now. Never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unattached:
    """A pod, and the networks that it lacks."""

    pod: PodReference
    lacking: tuple[str, ...]
    replaced: bool


@dataclass(slots=True, kw_only=True)
class UnattachedPods:
    """This node's; `found` is what the last look has found for at least GRACE_S."""

    pods: Callable[[], Mapping[Name, KnownPod]]
    settings: Settings
    records: RecordSurvey
    events: UnattachedEvents
    found: tuple[Unattached, ...] = ()
    _since: dict[str, float] = field(default_factory=dict)  # by UID
    _told: set[str] = field(default_factory=set)
    _refused: dict[str, float] = field(default_factory=dict)
    _before: frozenset[str] = frozenset()  # UIDs of pods that may have started before

    async def look(self, now: float) -> None:
        """Find them, and tell each once; never raise."""
        pods = self.pods()
        candidates = [
            Unattached(pod=_reference(name, pod), lacking=lacking, replaced=pod.replaced)
            for name, pod in pods.items()
            if (lacking := self._lacking(name, pod))
        ]
        lasting = await self._without_record(candidates, pods) if candidates else []
        self._since = {each.pod.uid: self._since.get(each.pod.uid, now) for each in lasting}
        self._told &= self._since.keys()
        self.found = tuple(e for e in lasting if now - self._since[e.pod.uid] >= GRACE_S)
        for each in self.found:
            if each.pod.uid not in self._told:
                self._told.add(each.pod.uid)
                self._tell(each)

    async def evict_one(self, evictor: Evictor, now: float) -> bool | None:
        """Have one go that a controller replaces; say whether it does, None where there is none to
        try now.

        Pods that come after the first call stay: where the runtime doesn't use what is installed,
        each successor would lack its networks, too, and evictions would never end.
        """
        if not self._before:
            self._before = frozenset(pod.uid for pod in self.pods().values())
        for each in self.found:
            uid = each.pod.uid
            if not each.replaced or uid not in self._before:
                continue
            if now - self._refused.get(uid, float("-inf")) >= REFUSED_S:
                going = await evictor.evict(each.pod)
                self._refused[uid] = now  # one that goes may take its time
                return going
        self._refused = {uid: at for uid, at in self._refused.items() if uid in self._since}
        return None

    def interrupted(self) -> None:
        """Take it that pods start without their networks for now, until the next eviction."""
        self._before = frozenset()

    def _tell(self, each: Unattached) -> None:
        lacking = ", ".join(each.lacking)
        log.warning("a pod lacks its networks", extra={"pod": str(each.pod), "networks": lacking})
        self.events.unattached(each.pod, each.lacking)

    def _lacking(self, name: Name, pod: KnownPod) -> tuple[str, ...]:
        """Return what a pod is to have and has no sign of."""
        if not pod.attached or _has_status(pod):
            return ()
        return wanted_networks(_reference(name, pod), pod, self.settings)

    async def _without_record(
        self, candidates: Iterable[Unattached], pods: Mapping[Name, KnownPod]
    ) -> list[Unattached]:
        """Return those that no record is of; none where one can't be read: it may be anyone's."""
        try:
            survey = (await self.records.survey()).values()
        except CNIError as exc:
            log.warning("pods without networks not looked for", extra={"why": exc.msg})
            return []
        recorded: set[Name] = set()
        for stored in survey:
            if isinstance(stored, DamagedRecord):
                return []
            if reference := stored.record.pod:
                name = (reference.namespace, reference.name)
                if (pod := pods.get(name)) and pod.is_meant_by(reference):
                    recorded.add(name)
        return [e for e in candidates if (e.pod.namespace, e.pod.name) not in recorded]


def wanted_networks(reference: PodReference, pod: KnownPod, settings: Settings) -> tuple[str, ...]:
    """Return the networks that a pod gets beside the node's default network, by name; () also where
    its annotations can't be used: its successor would not start."""
    try:
        chosen = default_element(pod.annotations, namespace=settings.system_namespace)
        elements = selected_elements(reference, pod.annotations)
    except CNIError:
        return ()
    system = reference.namespace in settings.system_namespaces
    always = () if system else settings.default_networks
    selected = [*([chosen] if chosen else []), *elements]
    return (*always, *(f"{each.namespace}/{each.name}" for each in selected))


def _reference(name: Name, pod: KnownPod) -> PodReference:
    return PodReference(namespace=name[0], name=name[1], uid=pod.uid)


def _has_status(pod: KnownPod) -> bool:
    """Say whether a meta-plugin, ours or another, has told what the pod is attached to. What it
    calls the networks differs by release, so it isn't compared."""
    try:
        status = load_value(pod.network_status.encode(errors="replace"), what="network-status")
    except CNIError:
        return False
    return bool(status) and isinstance(status, list)
