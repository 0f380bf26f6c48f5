"""What the kubelet says of pods: by its pod-resources service, else by its checkpoint.

The service knows pods by name, and may mean a later one of that name; the checkpoint knows them by
UID. So what the service says is held against the checkpoint where that can be read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metaplugin.attachments.devices import Allocation
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import TryAgainLater
from metaplugin.kubelet.checkpoint import Checkpoint, CheckpointUnreadable

if TYPE_CHECKING:
    from metaplugin.kubelet.inquiry import Inquiry, Listed

log = logging.getLogger(__name__)

Answers = Mapping[PodReference, Allocation | Exception]


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletPlaces:
    """Where this node's kubelet is asked, and how long a question may take."""

    socket: Path
    checkpoint: Path
    timeout_s: float


class KubeletAnswers:
    """Answers one question at a time, blocking: it belongs into a thread."""

    def __init__(self, places: KubeletPlaces) -> None:
        self._places = places
        self._inquiry: Inquiry | None = None

    def about(self, pods: Sequence[PodReference]) -> Answers:
        """Return each pod's allocation, or a TryAgainLater that tells all that was tried."""
        tried: list[str] = []
        listed = self._asking().ask(pods, tried)
        checkpoint = Checkpoint(self._places.checkpoint)  # read after the service has answered
        answers: dict[PodReference, Allocation | Exception] = {}
        for pod in pods:
            found = listed.get((pod.namespace, pod.name))
            try:
                if found is None:
                    answers[pod] = self._from_checkpoint(pod, checkpoint, tried)
                else:
                    answers[pod] = self._held_against(checkpoint, pod, found)
            except TryAgainLater as exc:
                answers[pod] = exc
        return answers

    def _asking(self) -> Inquiry:
        if self._inquiry is None:
            # grpc costs 17 MB, which only who uses devices pays.
            from metaplugin.kubelet.inquiry import Inquiry  # noqa: PLC0415

            self._inquiry = Inquiry(self._places.socket, self._places.timeout_s)
        return self._inquiry

    def _held_against(self, checkpoint: Checkpoint, pod: PodReference, found: Listed) -> Allocation:
        """Return what the service said; raise TryAgainLater where the checkpoint says otherwise."""
        if not pod.uid:
            return found.allocation
        try:
            kept = checkpoint.devices(pod.uid)
        except CheckpointUnreadable as exc:
            log.debug("checkpoint not compared", extra={"pod": str(pod), "error": str(exc)})
            return found.allocation
        said = {(d.container, d.resource, d.id) for d in found.allocation.devices}
        own = {(d.container, d.resource, d.id) for d in kept if d.container in found.containers}
        where = f"devices of pod {pod} are not known: {found.allocation.source} has"
        its_checkpoint = f"the kubelet's checkpoint {self._places.checkpoint}, for UID {pod.uid}"
        if said - own:
            container, resource, device = min(said - own)
            raise TryAgainLater(
                f"{where} {resource} {device} for container {container}, which isn't in "
                f"{its_checkpoint}: it is another pod's of that name",
                details="the pod was deleted and made again; the runtime's retry will fit",
            )
        if own - said:
            container, resource, device = min(own - said)
            raise TryAgainLater(
                f"{where} no {resource} {device} for container {container}, which is in "
                f"{its_checkpoint}",
                details="a kubelet that has just started lists pods before it has read it",
            )
        return found.allocation

    def _from_checkpoint(
        self, pod: PodReference, checkpoint: Checkpoint, tried: Sequence[str]
    ) -> Allocation:
        """Return what the checkpoint says of the pod; raise TryAgainLater where that is nothing."""
        path = self._places.checkpoint
        problem = f"has no devices for UID {pod.uid}"
        try:
            if not pod.uid:
                problem = "not asked: it knows pods by UID, and the runtime gave none"
            elif devices := checkpoint.devices(pod.uid):
                source = f"checkpoint {path}"
                return Allocation(devices=devices, source=source)
        except CheckpointUnreadable as exc:
            problem = str(exc)
        raise TryAgainLater(
            f"devices of pod {pod} are not known: the kubelet at {self._places.socket}: "
            f"{'; '.join(tried)}; its checkpoint {path}: {problem}",
            details="paths: kubelet.socket and kubelet.checkpoint in the daemon's file",
        )
