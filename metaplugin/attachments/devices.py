"""The devices that a pod was given, as the kubelet reports them, and which of its networks gets
which.

A network whose net-attach-def names a resource takes one device of it. Elements that say which one
are served first, the others in the order of the allocation; no device is given twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from metaplugin.cni.errors import CNIError, InvalidNetworkConfig, TryAgainLater

_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
Identity = tuple[str, str]

_SHOWN = 40  # devices in an error's message, which ends as an Event of at most 1024 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatedDevice:
    """A device plugin's device, for one container; `numa_nodes` is () where the kubelet knows
    none."""

    id: str
    resource: str
    container: str
    numa_nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDevice:
    """A device of a ResourceClaim (DRA), for one container. `claim` is the ResourceClaim object's
    name; `cdi` are the CDI device names, qualified (`vendor/class=name`)."""

    claim: str
    container: str
    driver: str
    pool: str
    device: str
    cdi: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """All that a pod was given, in the kubelet's order; `source` says where that was learnt, for
    people."""

    devices: tuple[AllocatedDevice, ...] = ()
    claimed: tuple[ClaimedDevice, ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedDevice:
    """A claimed device with what the cluster says of it. `id` is what plugins get as deviceID,
    `resource` the network resource's name as a net-attach-def has it, `pod_claim` the claim's name
    in the pod (`spec.resourceClaims[].name`), `request` the claim's (`name`, or `name/subrequest`),
    `interface` the one that the driver reports to have made; each "" where nobody says one. No
    network gets a device without id, or whose driver has made the interface itself."""

    claimed: ClaimedDevice
    id: str
    resource: str = ""
    pod_claim: str = ""
    request: str = ""
    interface: str = ""


def cdi_device_id(claimed: ClaimedDevice) -> str:
    """Return the name of the device's first CDI device, `name` of `vendor/class=name`, "" where it
    has none: what stands for an id where no attribute says one."""
    names = (name for _, equals, name in (cdi.partition("=") for cdi in claimed.cdi) if equals)
    return next((name for name in names if name and "=" not in name), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """What an attachment needs: a device of `resource`, or the one that its element names. `where`
    is that element's place, for people."""

    where: str
    network: str
    resource: str = ""
    device_id: str = ""
    container: str = ""
    claim: str = ""
    request: str = ""

    @property
    def is_named_only(self) -> bool:
        """Say whether it is an id that nobody has promised: passed on as it is, as Multus does."""
        return bool(self.device_id) and not self.resource

    def __str__(self) -> str:
        named = self.device_id or (f"of container {self.container}" if self.container else "")
        if self.claim:
            request = f", request {self.request}" if self.request else ""
            named = f"of claim {self.claim}{request}"
        resource = f"a device of {self.resource}" if self.resource else "a device"
        return f"{resource} ({named})" if named else resource


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignedDevice:
    """The device that an attachment has. `resource` and `claim` say who promised it, both "" where
    nobody did; `claim` is the ResourceClaim object's name."""

    id: str
    resource: str = ""
    container: str = ""
    claim: str = ""

    @property
    def is_promised(self) -> bool:
        return bool(self.resource or self.claim)

    @property
    def identity(self) -> Identity:
        """What two of the same physical device have in common: a PCI address is a device's own,
        other ids mean something within their resource alone."""
        address = _pci_address(self.id)
        return ("pci", address) if address else (self.resource or self.claim, self.id)

    def is_rival_of(self, other: AssignedDevice) -> bool:
        """Say whether it is the same device, and promised to one of both: what nobody promised is
        not ours to judge."""
        promised = self.is_promised or other.is_promised
        return promised and self.identity == other.identity


def _pci_address(device_id: str) -> str:
    """Return the id as the kernel writes a PCI address, in small letters; "" if it is none."""
    address = device_id.lower()
    return address if _PCI.fullmatch(address) else ""


def _is_same_id(one: str, other: str) -> bool:
    return (_pci_address(one) or one) == (_pci_address(other) or other)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """A device that the pod has, for one or several of its containers: an init container's is given
    again to a later one."""

    device: AssignedDevice
    containers: tuple[str, ...]
    claims: tuple[str, ...] = ()
    request: str = ""

    def fits(self, asked: DeviceRequest) -> bool:
        if asked.claim:
            of_request = not asked.request or f"{self.request}/".startswith(f"{asked.request}/")
            return asked.claim in self.claims and of_request and self._is_of(asked.resource)
        if asked.container and asked.container not in self.containers:
            return False
        if asked.device_id and not _is_same_id(asked.device_id, self.device.id):
            return False
        return self.device.resource == asked.resource

    def _is_of(self, resource: str) -> bool:
        """A driver need not say which resource its device is of; the claim is named, so be it."""
        return not resource or self.device.resource in ("", resource)

    def __str__(self) -> str:
        origin = f"claim {self.device.claim}" if self.device.claim else self.device.resource
        return f"{origin} {self.device.id} ({', '.join(self.containers)})"


_Offers = Mapping[Identity, Sequence[_Offer]]


def assign_devices(
    requests: Sequence[DeviceRequest | None],
    allocation: Allocation,
    resolved: Sequence[ResolvedDevice] = (),
) -> tuple[AssignedDevice | None, ...]:
    """Return for each request its device, None for None; the same allocation gives the same
    devices.

    The order is the allocation's, so it must read the same at each retry. Raise
    InvalidNetworkConfig where a promised device isn't there, TryAgainLater where the kubelet
    reports none at all for the pod.
    """
    offers = _offers(allocation, resolved)
    owners: dict[Identity, int] = {}  # by device, the request that has it
    found: list[AssignedDevice | None] = [None] * len(requests)
    for position in sorted(range(len(requests)), key=lambda place: _rank(requests[place])):
        asked = requests[position]
        if asked is None:
            continue
        if asked.is_named_only:
            found[position] = _named(asked)
            owners.setdefault(_named(asked).identity, position)
        elif not _search(position, requests, offers, owners, set()):
            raise _absent(asked, offers, allocation)
    for device, position in owners.items():
        asked = requests[position]
        if asked and not asked.is_named_only:
            found[position] = next(o.device for o in offers.get(device, ()) if o.fits(asked))
    _refuse_twice(requests, found)
    return tuple(found)


def _named(asked: DeviceRequest) -> AssignedDevice:
    return AssignedDevice(id=asked.device_id, resource=asked.resource)


def _rank(asked: DeviceRequest | None) -> int:
    """The more an element says, the earlier it is served."""
    if asked is None:
        return 5
    said = (asked.device_id, asked.claim and asked.request, asked.claim, asked.container)
    return next((rank for rank, word in enumerate(said) if word), len(said))


def _search(
    position: int,
    requests: Sequence[DeviceRequest | None],
    offers: _Offers,
    owners: dict[Identity, int],
    seen: set[Identity],
) -> bool:
    """Give a request the first free device that fits; where none is free, move an earlier request
    to another that fits that one as well. Return whether there is one; `seen` were tried."""
    asked = requests[position]
    if asked is None or asked.is_named_only:
        return False
    fitting = [device for device, given in offers.items() if any(o.fits(asked) for o in given)]
    for device in fitting:
        if device not in owners:
            owners[device] = position
            return True
    for device in fitting:
        if device not in seen:
            seen.add(device)
            if _search(owners[device], requests, offers, owners, seen):
                owners[device] = position
                return True
    return False


def _offers(allocation: Allocation, resolved: Sequence[ResolvedDevice]) -> _Offers:
    """Return the pod's devices, each once, in the order in which they are handed out; one that the
    pod was given twice, of two resources, say, is one to hand out."""
    offers: dict[tuple[str, ...], _Offer] = {}
    for device in allocation.devices:
        assigned = AssignedDevice(
            id=device.id, resource=device.resource, container=device.container
        )
        offer = _Offer(device=assigned, containers=(device.container,))
        _merge(offers, (device.resource, device.id), offer)
    for claimed in resolved:
        if claimed.id and not claimed.interface:
            offer = _claim_offer(claimed)
            origin = claimed.claimed
            _merge(offers, (origin.driver, origin.pool, origin.device), offer)
    devices: dict[Identity, list[_Offer]] = {}
    for offer in offers.values():
        devices.setdefault(offer.device.identity, []).append(offer)
    return devices


def _claim_offer(resolved: ResolvedDevice) -> _Offer:
    origin = resolved.claimed
    return _Offer(
        device=AssignedDevice(
            id=resolved.id,
            resource=resolved.resource,
            container=origin.container,
            claim=origin.claim,
        ),
        containers=(origin.container,),
        claims=tuple(name for name in (origin.claim, resolved.pod_claim) if name),
        request=resolved.request,
    )


def _merge(offers: dict[tuple[str, ...], _Offer], key: tuple[str, ...], offer: _Offer) -> None:
    known = offers.setdefault(key, offer)
    if offer.containers[0] not in known.containers:
        offers[key] = replace(known, containers=(*known.containers, *offer.containers))


def _refuse_twice(
    requests: Sequence[DeviceRequest | None], found: Sequence[AssignedDevice | None]
) -> None:
    taken: dict[tuple[str, str], str] = {}
    for asked, device in zip(requests, found, strict=True):
        if asked is None or device is None:
            continue
        if device.identity in taken:
            raise InvalidNetworkConfig(
                f"{asked.where}: device {device.id} is {taken[device.identity]}'s already"
            )
        taken[device.identity] = asked.where


def _absent(asked: DeviceRequest, devices: _Offers, allocation: Allocation) -> CNIError:
    """Return what to tell: that nothing is there (yet), or which devices there are instead."""
    source = allocation.source or "the kubelet"
    lacks = f"{asked.where}: network {asked.network} takes {asked}"
    offers = [offer for given in devices.values() for offer in given]
    if not offers:
        return TryAgainLater(
            f"{lacks}, but {source} reports no device of the pod",
            details="the pod's containers must ask for it in resources.limits, or by a claim",
        )
    problem = "all of these are taken" if any(o.fits(asked) for o in offers) else "there is none"
    shown = [str(offer) for offer in offers[:_SHOWN]]
    more = f" and {len(offers) - _SHOWN} more" if len(offers) > _SHOWN else ""
    return InvalidNetworkConfig(
        f"{lacks}, and {problem}; {source} reports {', '.join(shown)}{more}",
        details="each network of a resource takes one device of it: the pod's containers must ask "
        "for as many",
    )
