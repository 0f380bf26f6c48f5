"""DEL: the record's calls as they were written, all of them tried; no API and no plan is needed.

Missing things are success, failures are told together, and the record goes only when nothing is
left for it to say.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from metaplugin.attachments.calls import PluginCall, del_calls
from metaplugin.attachments.record import (
    HOT_PLUG_NETWORK,
    MadeAttachment,
    Record,
    StoredRecord,
)
from metaplugin.attachments.runtime_conf import Sandbox
from metaplugin.cni.environment import CmdArgs, Command
from metaplugin.cni.errors import CNIError, TryAgainLater, join_errors
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.facts import plan_attachments
from metaplugin.commands.libcni import run_all
from metaplugin.commands.networks import configured
from metaplugin.commands.outer import parse_outer_config
from metaplugin.commands.ports import Caller, Node, Request, SandboxNetwork
from metaplugin.commands.release import release
from metaplugin.wire.container import DamagedRecord, record_file_name
from metaplugin.wire.frames import NetnsState

log = logging.getLogger(__name__)

_DAMAGED_DETAILS = "an operator who knows that nothing is left of the sandbox may remove it"


async def delete(request: Request, caller: Caller, node: Node) -> None:
    """Release everything that the record names; raise CNIError, the record kept, if something
    wasn't.

    An attachment without a record, and never deleted before, is released at best effort from what
    the cluster and the runtime say of it now. Raise CallerGone when the runtime gave up.
    """
    deadline = Deadline.start(node.settings.deadlines)
    outer = parse_outer_config(request.stdin)
    errors: list[CNIError] = []
    if outer.name != HOT_PLUG_NETWORK:
        errors += await _finish_hot_plugged(request, caller, node, deadline)
    try:
        await _delete_own(request, caller, node, deadline)
    except CNIError as exc:
        errors.append(exc)
    if errors:
        raise join_errors(errors)


async def _finish_hot_plugged(
    request: Request, caller: Caller, node: Node, deadline: Deadline
) -> list[CNIError]:
    """Release what was hot-plugged, before the last of the sandbox's own attachments goes: no
    runtime would ever ask for it. Return what failed."""
    own = record_file_name(request.sandbox.container_id, request.args.ifname)
    siblings = await node.records.read_all(request.sandbox.container_id)
    others = [stored for stored in siblings if stored.record.file_name != own]
    if not all(stored.record.hot_plugged for stored in others):
        return []
    errors: list[CNIError] = []
    following = sum(len(stored.calls) for stored in siblings)
    for stored in sorted(others, key=lambda stored: stored.record.created, reverse=True):
        following -= len(stored.calls)
        try:
            await finish_record(stored, request, caller, deadline, following=following)
        except CNIError as exc:
            errors.append(exc)
    for name in await node.records.damaged(request.sandbox.container_id):
        if name != own:
            try:
                await _delete_damaged_plug(name, request, caller, node, deadline)
            except CNIError as exc:
                errors.append(exc)
    return errors


async def _delete_own(request: Request, caller: Caller, node: Node, deadline: Deadline) -> None:
    name = record_file_name(request.sandbox.container_id, request.args.ifname)
    try:
        stored = await node.records.read(name)
    except DamagedRecord as exc:
        log.error("damaged record", extra={"record": name, "error": str(exc)})
        await _delete_damaged(name, request, caller, node, deadline)
        return
    if stored:
        await finish_record(stored, request, caller, deadline)
        await node.status.withdraw(stored.record)
    elif not await node.records.is_forgotten(name):
        await _delete_unknown(request, caller, node, deadline)


async def finish_record(
    stored: StoredRecord,
    request: Request,
    caller: Caller,
    deadline: Deadline,
    *,
    following: int = 0,
) -> None:
    """Run a record's DEL calls and put a tombstone in its place, time left for the `following`
    calls of other records; raise CNIError with the record kept."""
    record = stored.record
    netns = await present_netns(record.sandbox, request.sandbox, caller)
    calls = [call.in_netns(netns) for call in stored.calls]
    network = _network_of(record, request, caller)
    errors = await release(
        record.attachments, calls, caller, network, deadline, following=following
    )
    if errors:
        raise join_errors(errors)
    await caller.records.forget(record.file_name)


async def release_attachments(
    record: Record,
    released: Sequence[MadeAttachment],
    request: Request,
    caller: Caller,
    deadline: Deadline,
) -> Record:
    """Run the DEL calls of some of a record's attachments, and return the record without them,
    which is still to be written; raise CNIError."""
    netns = await present_netns(record.sandbox, request.sandbox, caller)
    calls = [
        call.in_netns(netns)
        for made in reversed(released)
        for call in del_calls(made.planned, record.sandbox, made.own)
    ]
    network = _network_of(record, request, caller)
    if errors := await release(released, calls, caller, network, deadline):
        raise join_errors(errors)
    left = tuple(made for made in record.attachments if made not in released)
    routes = record.default_routes
    if routes and routes.ifname in [made.planned.ifname for made in released]:
        routes = None  # they went with the interface
    return replace(record, attachments=left, default_routes=routes)


def deletion(record: Record) -> Request:
    """Return the DEL that the runtime would have sent, without a namespace's path."""
    args = CmdArgs(
        command=Command.DEL, container_id=record.sandbox.container_id, ifname=record.ifname
    )
    sandbox = Sandbox(container_id=record.sandbox.container_id, netns="")
    return Request(args=args, stdin=b"", sandbox=sandbox, runtime=record.runtime)


async def present_netns(recorded: Sandbox, given: Sandbox, caller: Caller) -> str:
    """Return the path of the record's namespace, "" when it is gone: the runtime may give an empty
    path, and at the old path there may be another container's namespace by now."""
    if given.netns and recorded.is_at(given.device, given.inode):
        return given.netns
    stated = await caller.locks.stat_netns(recorded.netns)
    alive = stated.state == NetnsState.VALID and recorded.is_at(stated.device, stated.inode)
    return recorded.netns if alive else ""


def _network_of(record: Record, request: Request, caller: Caller) -> SandboxNetwork | None:
    """Return what looks into the record's sandbox: what came with the request, if that is it."""
    given = request.sandbox
    is_given = given.netns and record.sandbox.is_at(given.device, given.inode)
    return caller.network if is_given else None


async def _run(calls: Sequence[PluginCall], caller: Caller, deadline: Deadline) -> None:
    if errors := await run_all(caller, calls, deadline):
        raise join_errors(errors)


async def _delete_unknown(request: Request, caller: Caller, node: Node, deadline: Deadline) -> None:
    """Run the DELs that a plan of now would have; what can't be planned any more is nothing to
    release."""
    try:
        calls, _ = await _rebuilt_calls(request, caller, node)
    except CNIError as exc:
        log.info("nothing known to delete", extra={"error": exc.msg})
        return
    await _run(calls, caller, deadline)


async def _delete_damaged(
    name: str, request: Request, caller: Caller, node: Node, deadline: Deadline
) -> None:
    """Release what a plan of now names, and only then give the damaged record up; else answer
    11."""
    try:
        calls, unknown = await _rebuilt_calls(request, caller, node)
    except CNIError as exc:
        raise TryAgainLater(
            f"the record {name} is damaged, and what it held can't be rebuilt: {exc.msg}",
            details=_DAMAGED_DETAILS,
        ) from exc
    await _run(calls, caller, deadline)
    if unknown:
        raise TryAgainLater(
            f"the record {name} is damaged, and with it is lost which device networks "
            f"{', '.join(unknown)} had",
            details=_DAMAGED_DETAILS,
        )
    await caller.records.forget(name)


async def _delete_damaged_plug(
    name: str, request: Request, caller: Caller, node: Node, deadline: Deadline
) -> None:
    """Release what the pod's annotation of now, not of the sandbox's start, has under the damaged
    record's interface name, and only then give the record up; else answer 11."""
    ifname = name.partition("@")[2]
    outer = replace(parse_outer_config(request.stdin), runtime_config={})
    node = configured(outer, replace(node, cluster=node.recall))
    try:
        plan = await plan_attachments(request.args, outer, node)
    except CNIError:
        plan = ()
    named = [planned for planned in plan if planned.ifname == ifname and not planned.default]
    plugged = [planned for planned in named if planned.wants is None]
    if not plugged:
        raise TryAgainLater(
            f"the record {name} is damaged, and the pod's annotation doesn't say what it held",
            details=_DAMAGED_DETAILS,
        )
    calls = [call for planned in plugged for call in del_calls(planned, request.sandbox, None)]
    await _run(calls, caller, deadline)
    await caller.records.forget(name)


async def _rebuilt_calls(
    request: Request, caller: Caller, node: Node
) -> tuple[list[PluginCall], list[str]]:
    """Return the calls, and the networks of devices, for which there are none: their devices may be
    others' by now."""
    outer = parse_outer_config(request.stdin)
    node = configured(outer, replace(node, cluster=node.recall))
    plan = await plan_attachments(request.args, outer, node)
    known = [planned for planned in reversed(plan) if planned.wants is None]
    calls = [call for planned in known for call in del_calls(planned, request.sandbox, None)]
    present = [call for call in calls if await caller.plugins.find_in_path(call.type)]
    return present, [planned.name for planned in plan if planned.wants]
