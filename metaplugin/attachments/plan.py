"""The plan of a pod's attachments: the default network first, then each selected one, in order.

Everything that can be refused is refused here, before any delegate runs: names that collide,
requests that no plugin can honour, networks that the pod may not use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from metaplugin.attachments.devices import AssignedDevice, DeviceRequest
from metaplugin.attachments.runtime_conf import ArgPairs, RuntimeConf
from metaplugin.cni.configuration import NetworkConfigList, merge_cni_args, with_top_level
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.npwg.selection import (
    NetworkSelectionElement,
    legacy_cni_args,
    undeclared_capabilities,
)

UndeclaredCapabilities = Literal["fail", "warn"]

DEVICE_INFO_CAPABILITY = "CNIDeviceInfoFile"  # DEV 5.1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAttachment:
    """One attachment to make. `name` is the network's in status and events; `gateways` is what
    `default-route` asks for: None nothing, () to keep the network's own; `unhonoured` are requests
    that no plugin declares and that are let pass; `mistyped`, keys that were ignored. What `wants`
    asks for becomes `device`."""

    name: str
    config: NetworkConfigList
    runtime: RuntimeConf
    default: bool = False
    auxiliary: bool = False  # a chain of the operator's, no network: not in network-status
    gateways: tuple[str, ...] | None = None
    unhonoured: tuple[str, ...] = ()
    mistyped: tuple[str, ...] = ()
    wants: DeviceRequest | None = None
    device: AssignedDevice | None = None

    @property
    def ifname(self) -> str:
        return self.runtime.ifname

    @property
    def has_device_info(self) -> bool:
        """Say whether there is a file of device information for it, which its plugins may write:
        then it may also be without an interface of the kernel's."""
        return self.device is not None or self.config.declares(DEVICE_INFO_CAPABILITY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network to attach: its name for people, its configuration, and the resource whose devices
    it takes, "" for none."""

    name: str
    config: NetworkConfigList
    resource: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A network that the pod selects, with the element that does."""

    element: NetworkSelectionElement
    network: Network


def default_attachment(
    network: Network, *, ifname: str, args: ArgPairs, capability_args: Mapping[str, Any]
) -> PlannedAttachment:
    """Return the cluster-wide default network's attachment: it alone gets the runtime's own
    capabilities and arguments (NPWG 7.5)."""
    runtime = RuntimeConf(ifname=ifname, args=args, capability_args=dict(capability_args))
    return PlannedAttachment(
        name=network.name,
        config=network.config,
        runtime=runtime,
        default=True,
        wants=_device_request(network, where="the default network"),
    )


def chosen_default_attachment(
    selection: Selection,
    *,
    ifname: str,
    args: ArgPairs,
    capability_args: Mapping[str, Any],
    undeclared: UndeclaredCapabilities = "fail",
) -> PlannedAttachment:
    """Return the attachment of a default network that the pod has chosen: what its element asks
    for is before what the runtime gives."""
    asked = selected_attachment(
        selection,
        ifname=selection.element.interface or ifname,
        args=args,
        undeclared=undeclared,
    )
    given = {**capability_args, **asked.runtime.capability_args}
    return replace(asked, default=True, runtime=replace(asked.runtime, capability_args=given))


def selected_attachment(
    selection: Selection,
    *,
    ifname: str,
    args: ArgPairs,
    undeclared: UndeclaredCapabilities = "fail",
) -> PlannedAttachment:
    """Return the attachment that an element asks for, its requests checked against what the
    network's plugins declare (NPWG 4.1.2.1): one that none declares fails, or is noted."""
    element, config = selection.element, selection.network.config
    missing = undeclared_capabilities(element, config)
    if missing and undeclared == "fail":
        raise _unhonoured(element.where, selection.network.name, missing)
    if element.cni_args:
        config = merge_cni_args(config, element.cni_args)
    runtime = RuntimeConf(
        ifname=ifname,
        args=(*args, *legacy_cni_args(element)),
        capability_args=element.capability_args(),
    )
    return PlannedAttachment(
        name=selection.network.name,
        config=config,
        runtime=runtime,
        gateways=element.default_route,
        unhonoured=missing,
        mistyped=element.mistyped,
        wants=_device_request(selection.network, where=element.where, element=element),
    )


def _device_request(
    network: Network, *, where: str, element: NetworkSelectionElement | None = None
) -> DeviceRequest | None:
    """Return what the network, or the element that selects it, needs of the pod's devices; raise
    InvalidNetworkConfig."""
    asked = element and (element.device_id or element.claim)
    if element and element.container and not network.resource:
        raise InvalidNetworkConfig(
            f"{where}.container: network {network.name} names no resource of which the container "
            "could have a device",
            details="the net-attach-def's annotation k8s.v1.cni.cncf.io/resourceName names one",
        )
    if not network.resource and not asked:
        return None
    if element and not network.resource and "/" in (element.device_id or ""):
        # Plugins join it to a path of sysfs: it could be another spelling of a device that is
        # promised to another pod, which nobody would notice.
        raise InvalidNetworkConfig(
            f"{where}.deviceID: {element.device_id!r} is a path, and network {network.name} names "
            "no resource whose devices are called so"
        )
    return DeviceRequest(
        where=where,
        network=network.name,
        resource=network.resource,
        device_id=(element and element.device_id) or "",
        container=(element and element.container) or "",
        claim=(element and element.claim) or "",
        request=(element and element.request) or "",
    )


def with_device(planned: PlannedAttachment, device: AssignedDevice | None) -> PlannedAttachment:
    """Return the attachment with its device, handed over in every way in which a plugin may ask
    for it (MULTUS-10)."""
    if device is None:
        return replace(planned, wants=None)
    config = with_top_level(planned.config, {"deviceID": device.id, "pciBusID": device.id})
    given = {**planned.runtime.capability_args, "deviceID": device.id}
    runtime = replace(planned.runtime, capability_args=given)
    return replace(planned, config=config, runtime=runtime, wants=None, device=device)


def with_device_info(planned: PlannedAttachment, path: str) -> PlannedAttachment:
    """Return the attachment with its own file of device information, if it has one."""
    if not planned.has_device_info:
        return planned
    given = {**planned.runtime.capability_args, DEVICE_INFO_CAPABILITY: path}
    return replace(planned, runtime=replace(planned.runtime, capability_args=given))


def make_plan(
    default: PlannedAttachment,
    *,
    always: Iterable[Network],
    selections: Iterable[Selection],
    args: ArgPairs,
    undeclared: UndeclaredCapabilities = "fail",
    auxiliary: Network | None = None,
) -> tuple[PlannedAttachment, ...]:
    """Return every attachment in order, interface names unique; raise InvalidNetworkConfig.

    A generated name is `net<position>`, the default network being position 0, so that it depends on
    nothing but the annotation (MULTUS-5); when a requested name has taken it, the next free number
    from the end of the list on is used (NPWG 4.2.1).
    """
    always, selections = tuple(always), tuple(selections)
    requested = [None] * len(always) + [selection.element.interface for selection in selections]
    names = interface_names(default.ifname, requested + [None] * bool(auxiliary))
    plan = [default]
    for network, ifname in zip(always, names, strict=False):
        runtime = RuntimeConf(ifname=ifname, args=args)
        plan.append(
            PlannedAttachment(
                name=network.name,
                config=network.config,
                runtime=runtime,
                wants=_device_request(network, where=f"network {network.name}"),
            )
        )
    for selection, ifname in zip(selections, names[len(always) :], strict=False):
        plan.append(selected_attachment(selection, ifname=ifname, args=args, undeclared=undeclared))
    if auxiliary:
        runtime = RuntimeConf(ifname=names[-1], args=args)
        plan.append(
            PlannedAttachment(
                name=auxiliary.name, config=auxiliary.config, runtime=runtime, auxiliary=True
            )
        )
    if sum(attachment.gateways is not None for attachment in plan) > 1:
        raise InvalidNetworkConfig("default-route: only one of a pod's networks may have it")
    return tuple(plan)


def interface_names(default: str, requested: Collection[str | None]) -> tuple[str, ...]:
    """Return a name for each: the requested one, else `net<position>` or the next number that is
    free."""
    taken = {default}
    for position, name in enumerate(requested, start=1):
        if name in taken:
            raise InvalidNetworkConfig(
                f"network selection {position} asks for interface {name!r}, which another "
                "attachment of this pod has already"
            )
        taken |= {name} if name else set()
    names, spare = [], len(requested) + 1
    for position, name in enumerate(requested, start=1):
        chosen = name or f"net{position}"
        while name is None and chosen in taken:
            chosen, spare = f"net{spare}", spare + 1
        taken.add(chosen)
        names.append(chosen)
    return tuple(names)


def with_netns_check(plan: Iterable[PlannedAttachment], present: Collection[str]) -> None:
    """Raise InvalidNetworkConfig when an interface of the plan exists in the sandbox already: a
    delegate's rollback would delete what isn't ours (CNI section 4, ADD)."""
    for attachment in plan:
        if attachment.ifname in present:
            raise InvalidNetworkConfig(
                f"network {attachment.name}: interface {attachment.ifname!r} exists in the "
                "container already; nothing was changed"
            )


def _unhonoured(where: str, network: str, missing: tuple[str, ...]) -> InvalidNetworkConfig:
    declaration = ", ".join(f'"{capability}": true' for capability in missing)
    return InvalidNetworkConfig(
        f"{where}: network {network} can't honour {', '.join(missing)}: none of its plugins "
        "declares the capability",
        details=f'add "capabilities": {{{declaration}}} to a plugin of net-attach-def {network} '
        "that supports it; undeclaredCapabilities: warn in metaplugin's configuration lets pods "
        "start without",
    )
