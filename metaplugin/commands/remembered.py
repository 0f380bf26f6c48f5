"""A cluster that is remembered: what it last said is used when it can't be asked."""

from __future__ import annotations

import logging

from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import TryAgainLater
from metaplugin.commands.ports import Cluster, KnownPod, Memory
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
