"""DEL: the record's calls as they were written, all of them tried; no API and no plan is needed.

Missing things are success, failures are told together, and the record goes only when nothing is
left for it to say.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from metaplugin.attachments.calls import PluginCall, del_calls
from metaplugin.attachments.record import HOT_PLUG_NETWORK, StoredRecord
from metaplugin.cni.errors import CNIError, TryAgainLater, join_errors
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.facts import plan_attachments
from metaplugin.commands.networks import configured
from metaplugin.commands.outer import parse_outer_config
from metaplugin.commands.ports import Caller, Node, Request
from metaplugin.commands.release import finish_record, is_given_up, run_calls
from metaplugin.wire.container import DamagedRecord, record_file_name

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
            await _finish(stored, request, caller, node, deadline, following=following)
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
        await _finish(stored, request, caller, node, deadline)
        await node.status.withdraw(stored.record)
    elif not await node.records.is_forgotten(name):
        await _delete_unknown(name, request, caller, node, deadline)


async def _finish(
    stored: StoredRecord,
    request: Request,
    caller: Caller,
    node: Node,
    deadline: Deadline,
    *,
    following: int = 0,
) -> None:
    """Finish a record; where it has been given up the runtime has nothing more to wait for."""
    try:
        await finish_record(stored, request, caller, node, deadline, following=following)
    except CNIError as exc:
        if not is_given_up(exc):
            raise


async def _delete_unknown(
    name: str, request: Request, caller: Caller, node: Node, deadline: Deadline
) -> None:
    """Run the DELs that a plan of now would have; what can't be planned any more is nothing to
    release.

    Since nothing says that there ever was an ADD, they may fail for ever: since when is remembered
    for as long as the process lives.
    """
    try:
        calls, _ = await _rebuilt_calls(request, caller, node)
    except CNIError as exc:
        log.info("nothing known to delete", extra={"error": exc.msg})
        return
    try:
        await run_calls(calls, caller, deadline)
    except CNIError as exc:
        since = node.failing.setdefault(name, time.monotonic())
        limit = deadline.limits.give_up
        if not limit or time.monotonic() - since < limit or await _are_inside(calls, caller):
            raise
        log.error("never added as far as known, and given up", extra={"error": exc.msg})
        await caller.records.forget(name)
    node.failing.pop(name, None)


async def _are_inside(calls: Sequence[PluginCall], caller: Caller) -> bool:
    """Say whether one of these calls' interfaces is in the request's namespace, if there is one."""
    names = await caller.network.interface_names() if caller.network else ()
    return not {call.ifname for call in calls}.isdisjoint(names)


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
    await run_calls(calls, caller, deadline)
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
    await run_calls(calls, caller, deadline)
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
