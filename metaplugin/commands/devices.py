"""The devices of a pod's networks: learnt from the kubelet, handed to plugins, and to this pod
alone.

The kubelet gives a device on as soon as a pod's containers have ended, which may be before that
pod's DEL. Its word decides whose a device is: what an older record still holds of this pod's is
released first, so that no later DEL, and no shim alone, takes it away again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from metaplugin.attachments.devices import (
    Allocation,
    AssignedDevice,
    DeviceRequest,
    ResolvedDevice,
    assign_devices,
    cdi_device_id,
)
from metaplugin.attachments.plan import PlannedAttachment, with_device, with_device_info
from metaplugin.attachments.record import MadeAttachment, Record, device_info_name, encode_record
from metaplugin.attachments.runtime_conf import PodReference, pod_reference
from metaplugin.cni.errors import CNIError, InvalidNetworkConfig, TryAgainLater
from metaplugin.cni.raw import JSONObject
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.ports import Caller, Kubelet, Node, Request
from metaplugin.commands.release import deletion, release_attachments
from metaplugin.wire.container import DamagedRecord, record_file_name
from metaplugin.wire.frames import NetnsState

log = logging.getLogger(__name__)

_LOOK_S = 0.2  # nothing tells when another sandbox's lock is free
_LOOKS = 50  # 10 s for a DEL that runs just now; then the runtime tries again


async def with_devices(
    plan: Sequence[PlannedAttachment], request: Request, node: Node
) -> tuple[PlannedAttachment, ...]:
    """Return the plan with each attachment's device, and its file of device information; raise
    CNIError. The kubelet is asked once, and only if a network names a resource."""
    wanted = [planned.wants for planned in plan]
    found = await _learnt(wanted, pod_reference(request.args.args), node)
    name = record_file_name(request.sandbox.container_id, request.args.ifname)
    folder = node.settings.device_info_dir
    return tuple(
        with_device_info(
            with_device(planned, device), f"{folder}/cni/{device_info_name(name, planned.ifname)}"
        )
        for planned, device in zip(plan, found, strict=True)
    )


async def _learnt(
    wanted: Sequence[DeviceRequest | None], pod: PodReference | None, node: Node
) -> tuple[AssignedDevice | None, ...]:
    promised = [asked for asked in wanted if asked and not asked.is_named_only]
    if not promised:
        return assign_devices(wanted, Allocation())
    if pod is None or node.kubelet is None:
        asked, lacking = promised[0], "a pod" if pod is None else "a kubelet"
        raise InvalidNetworkConfig(
            f"{asked.where}: network {asked.network} takes {asked}, and without {lacking} nobody "
            "says which"
        )
    return await _assigned(wanted, pod, node.kubelet, node)


async def _assigned(
    wanted: Sequence[DeviceRequest | None], pod: PodReference, kubelet: Kubelet, node: Node
) -> tuple[AssignedDevice | None, ...]:
    """Ask the cluster about claims only where the device plugins' devices don't suffice: a pod may
    have claims for other things than networks."""
    allocation = await kubelet.allocation(pod)
    if not any(asked and asked.claim for asked in wanted) and allocation.claimed:
        with suppress(CNIError):
            return assign_devices(wanted, allocation)
    if not allocation.claimed:
        return assign_devices(wanted, allocation)
    if node.claims is not None:
        resolved = await node.claims.resolve(pod, allocation.claimed)
    else:
        resolved = tuple(
            ResolvedDevice(claimed=claimed, id=cdi_device_id(claimed))
            for claimed in allocation.claimed
        )
    return assign_devices(wanted, allocation, resolved)


async def prepare_device_info(record: Record, planned: PlannedAttachment, node: Node) -> None:
    """Make ready the file that an attachment's plugins get, with what the device's plugin says of
    it; raise IOFailure."""
    if planned.has_device_info:
        name = device_info_name(record.file_name, planned.ifname)
        await node.device_info.prepare(name, planned.device)


async def device_information(record: Record, node: Node) -> dict[int, JSONObject]:
    """Return what is known of the devices, by the attachments' positions; never raise."""
    found = {}
    for position, made in enumerate(record.attachments):
        if made.planned.has_device_info:
            name = device_info_name(record.file_name, made.planned.ifname)
            if (info := await node.device_info.read(name)) is not None:
                found[position] = info
    return found


async def take_over_devices(record: Record, caller: Caller, node: Node, deadline: Deadline) -> None:
    """Release what other records hold of this one's devices, which it names on disk already; raise
    TryAgainLater, or what a DEL raises, where one can't be had.

    Of two ADDs that want the same device each sees the other's record, and none gets it.
    """
    if not any(made.planned.device for made in record.attachments):
        return
    for stored in await node.records.read_all():
        other = stored.record
        if other.file_name != record.file_name and _held(other, record):
            await _take_over(other, record, caller, node, deadline)


def _held(other: Record, record: Record) -> list[MadeAttachment]:
    """Return another record's attachments that have one of this record's devices."""
    own = [made.planned.device for made in record.attachments if made.planned.device]
    return [
        made
        for made in other.attachments
        if made.planned.device and any(device.is_rival_of(made.planned.device) for device in own)
    ]


async def _take_over(
    other: Record, record: Record, caller: Caller, node: Node, deadline: Deadline
) -> None:
    where = f"{_shown(_held(other, record))}, which {record.pod or 'this container'} has been given"
    if other.sandbox.container_id == record.sandbox.container_id:
        raise InvalidNetworkConfig(f"{where}, is at {other.ifname} of the same container already")
    if not await _locked(other.sandbox.container_id, caller):
        raise TryAgainLater(f"{where}, is with {_owner(other)}, for which something runs just now")
    try:
        present = await node.records.read(other.file_name)
        if present and (held := _held(present.record, record)):
            await _require_given_up(present.record, held, record, caller, node, where)
            log.warning(
                "device was with another sandbox still",
                extra={"devices": _shown(held), "record": other.file_name},
            )
            await _release(present.record, held, caller, node, deadline)
    except DamagedRecord as exc:
        raise TryAgainLater(f"{where}, is with {_owner(other)}: {exc}") from exc
    finally:
        await caller.locks.unlock()


async def _locked(container_id: str, caller: Caller) -> bool:
    for _ in range(_LOOKS):
        if await caller.locks.try_lock(container_id):
            return True
        await asyncio.sleep(_LOOK_S)
    return False


async def _require_given_up(
    other: Record,
    held: Sequence[MadeAttachment],
    record: Record,
    caller: Caller,
    node: Node,
    where: str,
) -> None:
    """Raise TryAgainLater where the other sandbox is alive, and the kubelet doesn't say that the
    device is its pod's no longer."""
    if other.given_up:
        return  # its runtime has deleted the sandbox, and the device was in it no longer
    stated = await caller.locks.stat_netns(other.sandbox.netns)
    if stated.state != NetnsState.UNREADABLE and not (
        stated.state == NetnsState.VALID and other.sandbox.is_at(stated.device, stated.inode)
    ):
        return
    pods = (other.pod, record.pod)
    if pods[0] and pods[1] and str(pods[0]) == str(pods[1]):
        return  # an earlier sandbox of the same pod
    devices = [made.planned.device for made in held if made.planned.device]
    if not (node.kubelet and record.pod and other.pod and _is_ours(record, devices)):
        raise TryAgainLater(f"{where}, is with {_owner(other)}")
    # Together they are one question: a kubelet that has just started knows neither, or both.
    ours, allocation = await asyncio.gather(
        node.kubelet.allocation(record.pod),
        node.kubelet.allocation(other.pod),
        return_exceptions=True,
    )
    if isinstance(ours, BaseException):
        raise ours
    if isinstance(allocation, TryAgainLater):
        return  # it knows nothing of the other pod any more
    if isinstance(allocation, BaseException):
        raise allocation
    theirs = [AssignedDevice(id=d.id, resource=d.resource) for d in allocation.devices]
    claims = {claimed.claim for claimed in allocation.claimed}
    for device in devices:
        if device.claim in claims or any(device.is_rival_of(their) for their in theirs):
            raise TryAgainLater(
                f"{where}, is with {_owner(other)}, and {allocation.source or 'the kubelet'} says "
                "that it is that pod's"
            )


def _is_ours(record: Record, devices: Sequence[AssignedDevice]) -> bool:
    own = [made.planned.device for made in record.attachments if made.planned.device]
    return all(
        any(mine.is_promised and mine.is_rival_of(device) for mine in own) for device in devices
    )


async def _release(
    other: Record,
    held: Sequence[MadeAttachment],
    caller: Caller,
    node: Node,
    deadline: Deadline,
) -> None:
    """Release the attachments of these devices alone, so that an error of the kubelet's costs a pod
    that lives nothing else; the record goes on without them. Where they can't be released and the
    record has been given up they are this pod's all the same: no later DEL may reach them."""
    try:
        left = await release_attachments(other, held, deletion(other), caller, deadline)
    except CNIError as exc:
        if not other.given_up:
            raise
        log.error("never released", extra={"devices": _shown(held), "error": exc.msg})
        left = other.without([other.attachments.index(made) for made in held])
    for made in held:
        await node.device_info.remove(device_info_name(other.file_name, made.planned.ifname))
    if left.attachments:
        content = encode_record(left, deadline_s=node.settings.deadlines.delegate)
        await caller.records.save(left.file_name, content)
    else:
        await caller.records.forget(other.file_name)
        await node.status.withdraw(other)


def _shown(held: Sequence[MadeAttachment]) -> str:
    devices = [made.planned.device for made in held if made.planned.device]
    names = [f"{d.id} of {d.resource or d.claim}" if d.is_promised else d.id for d in devices]
    return f"device {', '.join(names)}"


def _owner(record: Record) -> str:
    pod = f"pod {record.pod}, " if record.pod else ""
    return f"{pod}container {record.sandbox.container_id[:13]}"
