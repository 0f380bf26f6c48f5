"""What the API server says of devices that ResourceClaims (DRA, resource.k8s.io/v1) gave to a pod.

The claim says which request a device is for, the driver's ResourceSlices what the device is, the
pod how it names the claim. Nothing is watched: who has no claims pays nothing. Last known copies
serve while the server can't be asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from cachetools import LRUCache

from metaplugin.attachments.devices import ClaimedDevice, ResolvedDevice, cdi_device_id
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import ClusterAway, TryAgainLater
from metaplugin.commands.ports import Name
from metaplugin.k8s.calls import Calls
from metaplugin.k8s.claim_objects import (
    Attributes,
    Claim,
    DeviceName,
    PodClaims,
    claim_path,
    slices_path,
    slim_claim,
    slim_pod_claims,
    slim_slices,
)
from metaplugin.k8s.cluster import LiveLookUp, Unanswered
from metaplugin.k8s.health import PATIENCE_S, Health
from metaplugin.k8s.objects import pod_path

log = logging.getLogger(__name__)

REMEMBERED = 1000  # objects of each kind; slim, one takes a kilobyte or two

DEVICE_ID = "k8s.cni.cncf.io/deviceID"
RESOURCE_NAME = "k8s.cni.cncf.io/resourceName"
PCI_BUS_ID = "resource.kubernetes.io/pciBusID"

T = TypeVar("T")


class ApiClaims:
    """The port Claims over the API server."""

    def __init__(self, calls: Calls, health: Health, node_name: str, live_s: float) -> None:
        self._node_name = node_name
        self._claims = _LastKnown(LiveLookUp(calls, health, claim_path, slim_claim, live_s), health)
        self._pods = _LastKnown(
            LiveLookUp(calls, health, pod_path, slim_pod_claims, live_s), health
        )
        self._slices = _LastKnown(
            LiveLookUp(calls, health, slices_path, slim_slices, live_s), health
        )

    async def resolve(
        self, pod: PodReference, claimed: Sequence[ClaimedDevice]
    ) -> tuple[ResolvedDevice, ...]:
        """Return what is known of each, in their order; raise TryAgainLater when the claims can't
        be known, or are another pod's."""
        names = dict.fromkeys(each.claim for each in claimed)
        drivers = dict.fromkeys(each.driver for each in claimed)
        of_pod, claims, attributes = await asyncio.gather(
            self._pod_claims(pod),
            asyncio.gather(*(self._claim(pod, name) for name in names)),
            asyncio.gather(*(self._attributes(driver, claimed) for driver in drivers)),
        )
        by_name = dict(zip(names, claims, strict=True))
        by_driver = dict(zip(drivers, attributes, strict=True))
        return tuple(
            _resolved(each, by_name[each.claim], by_driver[each.driver], of_pod) for each in claimed
        )

    async def _pod_claims(self, pod: PodReference) -> PodClaims:
        found = await self._pods(f"pod {pod}", (pod.namespace, pod.name))
        if found is None:
            raise TryAgainLater(f"pod {pod} is not known to the cluster (yet)")
        if pod.uid and found.uid != pod.uid:
            raise TryAgainLater(
                f"pod {pod} has UID {found.uid}, the runtime asks for UID {pod.uid}",
                details="the pod was deleted and made again; the runtime's retry will fit",
            )
        return found

    async def _claim(self, pod: PodReference, name: str) -> Claim:
        what = f"ResourceClaim {pod.namespace}/{name}"
        found = await self._claims(what, (pod.namespace, name))
        if found is None:
            raise TryAgainLater(f"{what}, of which pod {pod} has devices, is not in the cluster")
        if pod.uid and pod.uid not in found.reserved_for:
            raise TryAgainLater(
                f"{what} is not reserved for pod {pod} with UID {pod.uid}: it is another pod's"
            )
        return found

    async def _attributes(
        self, driver: str, claimed: Sequence[ClaimedDevice]
    ) -> Mapping[DeviceName, Attributes]:
        """Return a driver's devices on this node, and those of no node if it takes them."""
        wanted = {(each.pool, each.device) for each in claimed if each.driver == driver}
        what = f"ResourceSlices of {driver} for node {self._node_name}"
        devices = await self._slices(what, (driver, self._node_name)) or {}
        if not wanted <= devices.keys():
            what = f"ResourceSlices of {driver} for all nodes"
            devices = {**(await self._slices(what, (driver, "")) or {}), **devices}
        return devices


def _resolved(
    claimed: ClaimedDevice,
    claim: Claim,
    devices: Mapping[DeviceName, Attributes],
    of_pod: PodClaims,
) -> ResolvedDevice:
    """Return what is known of a device; raise TryAgainLater where it isn't in the claim or in its
    driver's slices, which a driver that starts publishes anew: a guess might be another device."""
    name = f"device {claimed.driver}/{claimed.pool}/{claimed.device}"
    result = claim.results.get((claimed.driver, claimed.pool, claimed.device))
    if result is None:
        raise TryAgainLater(
            f"{name} is not allocated to ResourceClaim {claimed.claim}, which the kubelet says"
        )
    attributes = devices.get((claimed.pool, claimed.device))
    if attributes is None:
        raise TryAgainLater(f"{name} of ResourceClaim {claimed.claim} is in no ResourceSlice (yet)")
    of_request = of_pod.extended_resources.get((claimed.claim, claimed.container, result.request))
    device_id = attributes.get(DEVICE_ID) or attributes.get(PCI_BUS_ID) or cdi_device_id(claimed)
    return ResolvedDevice(
        claimed=claimed,
        id="" if result.admin_access else device_id,
        resource=attributes.get(RESOURCE_NAME) or of_request or "",
        pod_claim=of_pod.names.get(claimed.claim, ""),
        request=result.request,
        interface=result.interface,
    )


class _LastKnown(Generic[T]):
    """A look-up whose last answers serve while the server is away or slow."""

    def __init__(self, look_up: LiveLookUp[T], health: Health) -> None:
        self._look_up = look_up
        self._health = health
        self._known: LRUCache[Name, T] = LRUCache(maxsize=REMEMBERED)

    async def __call__(self, what: str, name: Name) -> T | None:
        """Return the object as it is now, or was; raise TryAgainLater where neither is known."""
        known = self._known.get(name)
        if known is not None and self._health.slow and not self._look_up.came_late(name):
            return known
        patience_s = self._look_up.timeout_s if known is None else PATIENCE_S
        try:
            seen = await self._look_up(name, patience_s)
        except Unanswered as exc:
            if known is None:
                raise ClusterAway(f"{what}: not known: {exc}") from exc
            log.warning("last known copy used", extra={"object": what, "why": str(exc)})
            return known
        if seen.value is None:
            self._known.pop(name, None)
        else:
            self._known[name] = seen.value
        return seen.value
