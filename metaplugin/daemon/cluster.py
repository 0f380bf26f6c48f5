"""The cluster that the configuration names: the API server, a folder of manifests, or none."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Union

from metaplugin.attachments.devices import ClaimedDevice, ResolvedDevice
from metaplugin.attachments.record import Record
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.environment import Command
from metaplugin.cni.errors import ClusterAway, CNIError, TryAgainLater
from metaplugin.commands.ports import Claims, Cluster, KnownPod
from metaplugin.commands.remembered import RememberedClaims, RememberedCluster
from metaplugin.daemon.config import ConfigurationError, DaemonConfig, KubernetesConfig
from metaplugin.folder.connection import FolderConnection
from metaplugin.npwg.definition import NetworkAttachmentDefinition
from metaplugin.state.database import StateDatabase

if TYPE_CHECKING:
    from metaplugin.k8s.connection import ApiConnection


class Unpublished:
    """The ports StatusPublisher and PodEvents where there is nobody to tell."""

    async def publish(self, record: Record) -> None:
        """Drop `record`."""

    async def withdraw(self, record: Record) -> None:
        """Drop `record`."""

    def attached(self, record: Record) -> None:
        """Drop `record`."""

    def failed(self, command: Command, pod: PodReference, error: CNIError) -> None:
        """Drop `error`: the runtime has it."""

    def given_up(self, record: Record) -> None:
        """Drop `record`: the log has it."""

    def told(self, kind: str, reason: str, message: str) -> None:
        """Drop `message`: the log has it."""


class NoCluster:
    """The side of a node that has no cluster: no pods, no definitions, nobody to tell."""

    cluster: Cluster | None = None
    recall: Cluster | None = None
    claims: Claims | None = None
    status = events = Unpublished()

    def start(self, records: Iterable[Record]) -> None:
        """Do nothing."""

    async def settle(self) -> None:
        """Do nothing."""

    async def listed(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


class MemoryAlone(NoCluster):
    """The side of a node whose cluster can't be asked: what is remembered of it."""

    def __init__(self, memory: StateDatabase, problem: str) -> None:
        away = _Away(problem)
        self.claims: Claims = RememberedClaims(away, memory)
        self.cluster = self.recall = RememberedCluster(away, memory)


class _Away:
    def __init__(self, problem: str) -> None:
        self._problem = problem

    async def pod(self, reference: PodReference) -> KnownPod | None:
        raise TryAgainLater(f"pod {reference} is not known: {self._problem}")

    async def definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None:
        raise TryAgainLater(f"net-attach-def {namespace}/{name} is not known: {self._problem}")

    async def resolve(
        self, pod: PodReference, claimed: Sequence[ClaimedDevice]
    ) -> tuple[ResolvedDevice, ...]:
        names = ", ".join(sorted({each.claim for each in claimed}))
        raise ClusterAway(f"ResourceClaims of pod {pod}: {names}: not known: {self._problem}")


ClusterSide = Union["ApiConnection", FolderConnection, NoCluster]


def cluster_side(config: DaemonConfig, database: StateDatabase, disk: Executor) -> ClusterSide:
    """Return the cluster that the configuration names; raise ConfigurationError where there are no
    credentials for it."""
    if manifests := config.manifests:
        return FolderConnection(manifests.folder, manifests.status_folder, disk, database)
    if kubernetes := config.kubernetes:
        return _api_connection(kubernetes, database, config.deadlines.live_seconds)
    return NoCluster()


_OUTSIDE_PODS = (
    "outside a pod, kubernetes.kubeconfig names them; for the runtime that the installer puts on "
    "the node, installation.fallbackKubeconfig"
)


def _api_connection(
    kubernetes: KubernetesConfig, database: StateDatabase, live_s: float
) -> ApiConnection:
    # The client costs 0.2 s and 40 MB, which only who uses it pays.
    from metaplugin.k8s.api import ApiUnconfigured  # noqa: PLC0415
    from metaplugin.k8s.connection import ApiConnection  # noqa: PLC0415

    try:
        return ApiConnection(
            kubeconfig=kubernetes.kubeconfig,
            node_name=kubernetes.node_name or os.environ.get("NODE_NAME") or socket.gethostname(),
            definition_namespaces=kubernetes.definition_namespaces,
            memory=database,
            learner=database,
            claim_memory=database,
            live_s=live_s,
        )
    except ApiUnconfigured as exc:
        hint = "" if kubernetes.kubeconfig else f"; {_OUTSIDE_PODS}"
        raise ConfigurationError(f"kubernetes: no usable credentials: {exc}{hint}") from exc
