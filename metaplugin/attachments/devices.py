"""The devices that a pod was given, as the kubelet reports them."""

from __future__ import annotations

from dataclasses import dataclass


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
