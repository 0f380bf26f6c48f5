"""ADD: the default network first, then each network that the pod selects, or nothing at all.

The story in order: understand the request, plan, remember durably, run the delegates, set the
default routes, remember the results, publish the status, answer with the default network's result.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from metaplugin.attachments.default_routes import (
    DefaultRoutes,
    wanted_default_routes,
    with_default_routes,
)
from metaplugin.attachments.plan import PlannedAttachment, with_netns_check
from metaplugin.attachments.record import MadeAttachment, Record, encode_record
from metaplugin.attachments.runtime_conf import pod_reference
from metaplugin.cni.errors import InvalidEnvironment, InvalidNetworkConfig, TryAgainLater
from metaplugin.cni.raw import JSONObject
from metaplugin.cni.result import Result
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.devices import (
    device_information,
    prepare_device_info,
    take_over_devices,
    with_devices,
)
from metaplugin.commands.facts import plan_attachments
from metaplugin.commands.libcni import add_network_list, require_plugins
from metaplugin.commands.networks import configured
from metaplugin.commands.outer import OuterConfig, parse_outer_config
from metaplugin.commands.ports import Caller, Node, Request, SandboxNetwork
from metaplugin.commands.readiness import await_readiness
from metaplugin.commands.release import finish_record
from metaplugin.commands.rollback import Attempt, undone_on_failure
from metaplugin.npwg.status import format_status, status_entries
from metaplugin.wire.container import DamagedRecord, record_file_name

log = logging.getLogger(__name__)


async def add(request: Request, caller: Caller, node: Node) -> JSONObject:
    """Attach the sandbox and return the default network's result in the request's cniVersion.

    Raise CNIError with nothing left behind, or, where a delegate couldn't undo its part, with a
    record from which the runtime's DEL goes on. Raise CallerGone when the runtime gave up.
    """
    deadline = Deadline.start(node.settings.deadlines)
    outer = parse_outer_config(request.stdin)
    node = configured(outer, node)
    network = _required_network(caller)
    await _finish_older_record(request, caller, node, deadline)
    await await_readiness(node, deadline)
    plan = await _planned(request, outer, node)
    _warn_of_mistyped_keys(plan)
    plan = _in_known_versions(plan, await require_plugins(caller.plugins, plan), caller)
    with_netns_check(plan, await network.interface_names())
    record = _new_record(request, outer, plan)
    await caller.records.save(record.file_name, _encoded(record, node))
    async with undone_on_failure(record, caller, deadline) as attempt:
        await take_over_devices(record, caller, node, deadline)
        results = await _attach(attempt, caller, node, deadline)
        outside = await _outside_the_kernel(attempt.record, results, network)
        wanted = wanted_default_routes(plan, results)
        if wanted:
            _refuse_outside(wanted, outside)
            await network.set_default_routes(wanted)
        record = _completed(attempt.record, results, wanted, outside)
        record = replace(record, status=_status(record, await device_information(record, node)))
        await caller.records.append(record.file_name, _encoded(record, node))
    await node.status.publish(record)
    node.events.attached(record)
    return _answer(record, outer)


def _required_network(caller: Caller) -> SandboxNetwork:
    if caller.network is None:
        raise InvalidEnvironment("CNI_NETNS: no network namespace came with the request")
    return caller.network


async def _finish_older_record(
    request: Request, caller: Caller, node: Node, deadline: Deadline
) -> None:
    """Clear what an interrupted ADD left under the same name; refuse to touch a live attachment."""
    name = record_file_name(request.sandbox.container_id, request.args.ifname)
    try:
        stored = await node.records.read(name)
    except DamagedRecord as exc:
        raise TryAgainLater(f"the record of an earlier ADD is damaged: {exc}") from exc
    if stored is None:
        return
    record, sandbox = stored.record, request.sandbox
    alive = record.complete and record.failing is None
    if alive and record.sandbox.is_at(sandbox.device, sandbox.inode):
        raise InvalidEnvironment(
            f"CNI_CONTAINERID {sandbox.container_id}, CNI_IFNAME {request.args.ifname}: attached "
            f"already, and left as it is",
            details="the CNI specification asks for a DEL before another ADD (section 4)",
        )
    await finish_record(stored, request, caller, node, deadline)


async def _planned(
    request: Request, outer: OuterConfig, node: Node
) -> tuple[PlannedAttachment, ...]:
    limit = node.settings.deadlines.facts
    try:
        async with asyncio.timeout(limit):
            return await with_devices(
                await plan_attachments(request.args, outer, node), request, node
            )
    except TimeoutError as exc:
        raise TryAgainLater(
            f"the pod's networks could not be learnt within {limit:g} s (deadlines.factsSeconds)"
        ) from exc


def _warn_of_mistyped_keys(plan: Sequence[PlannedAttachment]) -> None:
    for planned in plan:
        for words in planned.mistyped:
            log.warning("mistyped key?", extra={"network": planned.name, "selection": words})


def _new_record(request: Request, outer: OuterConfig, plan: Sequence[PlannedAttachment]) -> Record:
    return Record(
        generation=str(uuid.uuid4()),
        sandbox=request.sandbox,
        ifname=request.args.ifname,
        network=outer.name,
        runtime=request.runtime,
        pod=pod_reference(request.args.args),
        created=time.time(),
        attachments=tuple(MadeAttachment(planned=planned) for planned in plan),
    )


def _encoded(record: Record, node: Node) -> bytes:
    return encode_record(record, deadline_s=node.settings.deadlines.delegate)


def _in_known_versions(
    plan: Sequence[PlannedAttachment], paths: Mapping[str, str], caller: Caller
) -> tuple[PlannedAttachment, ...]:
    return tuple(
        replace(planned, config=caller.versions.apply(planned.config, paths)) for planned in plan
    )


async def _attach(attempt: Attempt, caller: Caller, node: Node, deadline: Deadline) -> list[Result]:
    """Run the delegates strictly in order, never two at a time for one pod (NPWG 7.3)."""
    results = []
    for position, made in enumerate(attempt.record.attachments):
        await prepare_device_info(attempt.record, made.planned, node)
        attempt.tried = position + 1
        keep = partial(_keep_version, attempt, caller, deadline)
        sandbox, planned = attempt.record.sandbox, made.planned
        result = await add_network_list(caller, planned, sandbox, deadline, keep)
        attempt.results[position] = result
        extra = {"network": planned.name, "interface": planned.ifname}
        log.info("attached", extra=extra)
        if planned.unhonoured:
            log.warning(
                "requests that no plugin declares",
                extra={**extra, "requests": ", ".join(planned.unhonoured)},
            )
        results.append(result)
    return results


async def _keep_version(
    attempt: Attempt, caller: Caller, deadline: Deadline, place: int, version: str
) -> PlannedAttachment:
    """Write that a plugin of the attachment being made is run in another version: before it does
    anything, as the record's DEL must be in that version too."""
    position = attempt.tried - 1
    attempt.record = attempt.record.with_version(position, place, version)
    record = attempt.record.with_results(attempt.results)
    content = encode_record(record, deadline_s=deadline.limits.delegate)
    await caller.records.save(record.file_name, content)
    planned = record.attachments[position].planned
    extra = {"network": planned.name, "plugin": planned.config.plugins[place].type}
    log.warning("plugin run in an older version", extra={**extra, "version": version})
    return planned


async def _outside_the_kernel(
    record: Record, results: Sequence[Result], network: SandboxNetwork
) -> frozenset[str]:
    """Return the attachments' interfaces that the kernel doesn't have in the sandbox, whatever
    results say: the device is a program's of the pod's own (DPDK), and CHECK must not look for it.
    Only networks of devices can be such."""
    pairs = zip(record.attachments, results, strict=True)
    devices = [(made.planned, result) for made, result in pairs if made.planned.has_device_info]
    if not devices:
        return frozenset()
    present = set(await network.interface_names())
    return frozenset(
        planned.ifname
        for planned, result in devices
        if not present & (_names_inside(result) or {planned.ifname})
    )


def _names_inside(result: Result) -> set[str]:
    return {interface.name for interface in result.interfaces if interface.sandbox}


def _refuse_outside(wanted: DefaultRoutes, outside: frozenset[str]) -> None:
    if wanted.ifname in outside:
        raise InvalidNetworkConfig(
            f"default-route: interface {wanted.ifname!r} is none of the kernel's, so that no route "
            "can lead over it"
        )


def _completed(
    record: Record,
    results: Sequence[Result],
    wanted: DefaultRoutes | None,
    outside: frozenset[str],
) -> Record:
    made = tuple(
        MadeAttachment(
            planned=attachment.planned,
            own=own,
            result=with_default_routes(attachment.planned.ifname, own, wanted) if wanted else own,
            in_kernel=attachment.planned.ifname not in outside,
        )
        for attachment, own in zip(record.attachments, results, strict=True)
    )
    return replace(record, attachments=made, default_routes=wanted, complete=True)


def _status(record: Record, information: Mapping[int, JSONObject]) -> str:
    if record.hot_plugged:  # whoever plugs writes it
        return ""
    entries: list[JSONObject] = []
    for position, made in enumerate(record.attachments):
        if made.result is not None and not made.planned.auxiliary:
            planned = made.planned
            entries += status_entries(
                made.result,
                name=planned.name,
                ifname=planned.ifname,
                default=planned.default,
                device_info=information.get(position),
            )
    return format_status(entries)


def _answer(record: Record, outer: OuterConfig) -> JSONObject:
    result = record.attachments[0].result
    if result is None:
        raise TryAgainLater("the default network has no result")
    return result.to_version(outer.cni_version)
