"""A cluster that is remembered: what it last said is used when it can't be asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from metaplugin.attachments.devices import ClaimedDevice, ResolvedDevice
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import ClusterAway, TryAgainLater
from metaplugin.commands.ports import ClaimMemory, Claims, Cluster, KnownPod, Memory
from metaplugin.npwg.definition import NetworkAttachmentDefinition

log = logging.getLogger(__name__)


class RememberedCluster:
    """The port Cluster over another one and a memory.

    A pod's last copy is used only if its UID fits: under one name there may be another pod by now.
    """

    def __init__(self, cluster: Cluster, memory: Memory) -> None:
        self._cluster = cluster
        self._memory = memory

    async def pod(self, reference: PodReference) -> KnownPod | None:
        try:
            return await self._cluster.pod(reference)
        except TryAgainLater:
            known = await self._memory.pod(reference)
            if known is None or not known.is_meant_by(reference):
                raise
            log.warning("cluster away: last known pod used")
            return known

    async def definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None:
        try:
            return await self._cluster.definition(namespace, name)
        except TryAgainLater:
            known = await self._memory.definition(namespace, name)
            if known is None:
                raise
            log.warning("cluster away: last known definition used", extra={"network": name})
            return known


class RememberedClaims:
    """The port Claims over another one and a memory: a pod keeps its claims' devices for as long
    as it lives, so that what was once said of them is true after a daemon's restart as well."""

    def __init__(self, claims: Claims, memory: ClaimMemory) -> None:
        self._claims = claims
        self._memory = memory

    async def resolve(
        self, pod: PodReference, claimed: Sequence[ClaimedDevice]
    ) -> tuple[ResolvedDevice, ...]:
        try:
            resolved = await self._claims.resolve(pod, claimed)
        except ClusterAway:
            known = {each.claimed: each for each in await self._memory.claimed_devices(pod)}
            if not known.keys() >= set(claimed):
                raise
            log.warning("cluster away: last known devices of claims used")
            return tuple(known[each] for each in claimed)
        self._memory.learn_claimed_devices(pod, resolved)
        return resolved
