"""Questions to the pod-resources service: Get for one pod, List for several or where there is no
Get. Whoever imports this imports grpc."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaplugin.attachments.devices import Allocation
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.kubelet.allocations import allocation_of
from metaplugin.kubelet.service import Failure, PodResourcesService, Unanswered

FIRST_PAUSE_S = 0.05  # the kubelet's limit lets a call through each 10 ms

WITHOUT_GET_S = 600  # a kubelet that has just started may refuse a pod to Get and list it

Name = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What the service says of a pod; `containers` also has those without devices."""

    allocation: Allocation
    containers: frozenset[str]


class Inquiry:
    """One question at a time, blocking. That this kubelet has no Get is remembered for a while, and
    until the socket is another one, as it is after each start of a kubelet."""

    def __init__(self, socket: Path, timeout_s: float) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._without_get: tuple[int, int] | None = None
        self._without_get_until = 0.0

    def ask(self, pods: Sequence[PodReference], tried: list[str]) -> dict[Name, Listed]:
        """Return what the service says of those of these pods that it knows, at most `timeout_s`
        later; `tried` gets what else was answered."""
        try:
            status = self._socket.stat()
            with PodResourcesService(self._socket) as service:
                return self._answer(service, pods, (status.st_ino, status.st_ctime_ns), tried)
        except OSError as exc:
            tried.append(f"no socket: {exc.strerror}")
        except Unanswered as exc:
            tried.append(str(exc))
        return {}

    def _answer(
        self,
        service: PodResourcesService,
        pods: Sequence[PodReference],
        identity: tuple[int, int],
        tried: list[str],
    ) -> dict[Name, Listed]:
        names, last = (
            {(pod.namespace, pod.name) for pod in pods},
            time.monotonic() + self._timeout_s,
        )
        is_without_get = identity == self._without_get and last < self._without_get_until
        is_getting = len(pods) == 1 and not is_without_get
        if is_getting:
            try:
                answer = _patiently(lambda s: service.get(pods[0], s), last)
                return self._chosen([answer], names, "Get", tried)
            except Unanswered as exc:
                if exc.failure is not Failure.REFUSED:
                    raise
                tried.append(str(exc))
        found = self._chosen(_patiently(service.list, last), names, "List", tried)
        if is_getting and found:  # so it isn't the pod that was unknown to Get
            self._without_get = identity
            self._without_get_until = last + WITHOUT_GET_S
        return found

    def _chosen(
        self, listed: Iterable[Any], names: Collection[Name], method: str, tried: list[str]
    ) -> dict[Name, Listed]:
        source = f"{method} at {self._socket}"
        found = {
            (pod.namespace, pod.name): Listed(
                allocation=allocation_of(pod, source),
                containers=frozenset(container.name for container in pod.containers),
            )
            for pod in listed
            if (pod.namespace, pod.name) in names
        }
        if len(found) < len(names):
            tried.append(f"{method}: the answer doesn't have the pod")
        return found


def _patiently(call: Callable[[float], Any], last: float) -> Any:
    """Return what `call` answers by the moment `last`, in spite of the kubelet's limit; raise
    Unanswered."""
    pause = FIRST_PAUSE_S
    busy: Unanswered | None = None
    while True:
        now = time.monotonic()
        try:
            return call(max(last - now, 0))
        except Unanswered as exc:
            if exc.failure is Failure.LATE and busy:
                raise busy from None  # which says more
            if exc.failure is not Failure.BUSY or now + pause > last:
                raise
            busy = exc
        time.sleep(pause)
        pause *= 2
