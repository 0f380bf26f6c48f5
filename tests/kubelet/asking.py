"""The daemon's side of a kubelet, on an event loop of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from metaplugin.attachments.devices import AllocatedDevice, Allocation
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import TryAgainLater
from metaplugin.kubelet.answers import KubeletPlaces
from metaplugin.kubelet.connection import KubeletConnection
from tests.kubelet.podresources import FakeKubelet

NIC = "vendor.example/nic"

T = TypeVar("T")


class Asking:
    """A connection to a kubelet, from `with` on."""

    def __init__(self, *, socket: Path, checkpoint: Path, timeout_s: float = 5) -> None:
        places = KubeletPlaces(socket=socket, checkpoint=checkpoint, timeout_s=timeout_s)
        self.connection = KubeletConnection(places)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.__exit__(kind, error, trace)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def allocation(self, pod: PodReference) -> Allocation:
        return self.run(self.connection.allocation(pod))

    def allocations(self, *pods: PodReference) -> list[Allocation | BaseException]:
        """Return what is said of pods that ask at the same moment."""

        async def ask() -> list[Allocation | BaseException]:
            asked = (self.connection.allocation(pod) for pod in pods)
            return await asyncio.gather(*asked, return_exceptions=True)

        return self.run(ask())

    def refusal(self, pod: PodReference) -> str:
        """Return why nothing is known of a pod."""
        found = self.allocations(pod)[0]
        assert isinstance(found, TryAgainLater), found
        assert found.code == 11
        return found.msg


def pod(name: str = "p", uid: str = "u") -> PodReference:
    return PodReference(namespace="default", name=name, uid=uid)


def device(
    device_id: str, *numa_nodes: int, resource: str = NIC, container: str = "app"
) -> AllocatedDevice:
    return AllocatedDevice(
        id=device_id, resource=resource, container=container, numa_nodes=numa_nodes
    )


def asking_of(kubelet: FakeKubelet, *, timeout_s: float = 5) -> Asking:
    return Asking(socket=kubelet.socket, checkpoint=kubelet.checkpoint, timeout_s=timeout_s)
