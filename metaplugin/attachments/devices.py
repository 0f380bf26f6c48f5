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


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedDevice:
    """A claimed device with what the cluster says of it. `id` is what plugins get as deviceID,
    `resource` the network resource's name as a net-attach-def has it, `pod_claim` the claim's name
    in the pod (`spec.resourceClaims[].name`), `request` the claim's (`name`, or `name/subrequest`),
    `interface` the one that the driver reports to have made; each "" where nobody says one."""

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
