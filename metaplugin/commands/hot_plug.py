"""Hot-plug: one more attachment of a running sandbox, with a record of its own, or one less.

The flows are ADD and DEL; what is special is that the pod's network-status is then written by
whoever plugs, and that an interface of the pod's first ADD may be unplugged as well.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from metaplugin.attachments.record import MadeAttachment, Record, device_info_name, encode_record
from metaplugin.cni.errors import CNIError, InvalidEnvironment, TryAgainLater
from metaplugin.cni.raw import JSONObject
from metaplugin.commands.add import add
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.delete import delete
from metaplugin.commands.ports import Caller, Node, Request
from metaplugin.commands.release import release_attachments
from metaplugin.wire.container import record_file_name


async def plug(request: Request, caller: Caller, node: Node) -> JSONObject:
    """Attach the sandbox to one more network and return the result; raise CNIError as ADD does."""
    records = await _runtimes_records(request, node)
    if any(_attachment(record, request.args.ifname) for record in records):
        raise InvalidEnvironment(
            f"CNI_IFNAME {request.args.ifname}: an attachment of the pod has this name already"
        )
    published = [record for record in records if record.status]
    for record in published:
        await _rewrite(replace(record, status=""), caller, node)
    try:
        return await add(request, caller, node)
    except CNIError:
        with suppress(CNIError):  # nothing was plugged: the status is ours to keep
            for record in published:
                await _rewrite(record, caller, node)
        raise


async def unplug(request: Request, caller: Caller, node: Node) -> None:
    """Release an attachment, hot-plugged or of the pod's own ADD; raise CNIError as DEL does.

    The default network's can't go without its pod, nor can the record that has the runtime's name,
    nor, while that record is damaged, what has no record of its own: it may be either.
    """
    ifname = request.args.ifname
    records = await _runtimes_records(request, node)
    if not records:
        await _require_told_apart(request, node)
    for record in records:
        if made := _attachment(record, ifname):
            await _unplug(made, record, request, caller, node)
            return
        if record.ifname == ifname:
            raise InvalidEnvironment(f"CNI_IFNAME {ifname}: this name is the whole pod's")
    await delete(request, caller, node)


async def _require_told_apart(request: Request, node: Node) -> None:
    """Raise TryAgainLater where a damaged record may be the pod's own, unless the interface has one
    that says what it is."""
    container_id = request.sandbox.container_id
    damaged = await node.records.damaged(container_id)
    own = record_file_name(container_id, request.args.ifname)
    readable = [found.record.file_name for found in await node.records.read_all(container_id)]
    if damaged and own not in readable:
        raise TryAgainLater(
            f"CNI_IFNAME {request.args.ifname}: may be the pod's own, whose record "
            f"({', '.join(damaged)}) is damaged",
            details="the interface goes with its pod",
        )


def _attachment(record: Record, ifname: str) -> MadeAttachment | None:
    """Return the record's network with that interface: an auxiliary chain has a name, but none."""
    found = (made for made in record.attachments if made.planned.ifname == ifname)
    return next((made for made in found if not made.planned.auxiliary), None)


async def _unplug(
    made: MadeAttachment, record: Record, request: Request, caller: Caller, node: Node
) -> None:
    if made.planned.default:
        raise InvalidEnvironment(
            f"CNI_IFNAME {made.planned.ifname}: the default network's interface goes with its pod"
        )
    deadline = Deadline.start(node.settings.deadlines)
    left = await release_attachments(record, (made,), request, caller, deadline)
    await node.device_info.remove(device_info_name(record.file_name, made.planned.ifname))
    await _rewrite(replace(left, status=""), caller, node)


async def _runtimes_records(request: Request, node: Node) -> list[Record]:
    """Return the sandbox's records that a runtime's ADD made and completed."""
    stored = await node.records.read_all(request.sandbox.container_id)
    records = [found.record for found in stored]
    return [record for record in records if record.complete and not record.hot_plugged]


async def _rewrite(record: Record, caller: Caller, node: Node) -> None:
    """Write a record anew: sections appended at each repeat would exceed what is read of it."""
    content = encode_record(record, deadline_s=node.settings.deadlines.delegate)
    await caller.records.save(record.file_name, content)
    await node.status.publish(record)
