"""CHECK: every attachment of the record, by its plugins and by the kernel's own word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_interface

from metaplugin.attachments.calls import CHECK_SINCE, check_calls
from metaplugin.attachments.record import MadeAttachment, Record, StoredRecord
from metaplugin.cni.errors import (
    CNIError,
    DelegateError,
    IncompatibleVersion,
    TryAgainLater,
    UnknownContainer,
    join_errors,
)
from metaplugin.cni.version import at_least
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.libcni import run_in_order
from metaplugin.commands.outer import parse_outer_config
from metaplugin.commands.ports import Caller, InterfaceState, Node, Request, SandboxNetwork
from metaplugin.wire.container import DamagedRecord, record_file_name

ATTACHMENT_CHANGED = 101  # ours: what an ADD made is not there any more, or is otherwise


async def check(request: Request, caller: Caller, node: Node) -> None:
    """Return when everything is as ADD left it; raise CNIError that names all that isn't."""
    deadline = Deadline.start(node.settings.deadlines)
    outer = parse_outer_config(request.stdin)
    if not at_least(outer.cni_version, CHECK_SINCE):
        raise IncompatibleVersion(
            f"cniVersion {outer.cni_version} has no CHECK; 0.4.0 and later have"
        )
    record = (await _known_record(request, node)).record
    errors = await _plugin_errors(record, caller, deadline)
    if caller.network is not None:
        errors += await _kernel_errors(record, caller.network)
    if errors:
        raise join_errors(errors)


async def _known_record(request: Request, node: Node) -> StoredRecord:
    sandbox = request.sandbox
    try:
        stored = await node.records.read(
            record_file_name(sandbox.container_id, request.args.ifname)
        )
    except DamagedRecord as exc:
        raise TryAgainLater(f"the sandbox's record is damaged: {exc}") from exc
    if stored is None or not stored.record.complete:
        raise UnknownContainer(
            f"container {sandbox.container_id} has no attachment {request.args.ifname!r}"
        )
    if not stored.record.sandbox.is_at(sandbox.device, sandbox.inode):
        raise UnknownContainer(
            f"CNI_NETNS {sandbox.netns} is not the namespace that container "
            f"{sandbox.container_id} was attached in"
        )
    return stored


async def _plugin_errors(record: Record, caller: Caller, deadline: Deadline) -> list[CNIError]:
    errors: list[CNIError] = []
    for made in record.attachments:
        if made.result is not None:
            calls = check_calls(made.planned, record.sandbox, made.result)
            try:
                await run_in_order(caller, calls, deadline)
            except CNIError as exc:
                errors.append(exc)
    return errors


async def _kernel_errors(record: Record, network: SandboxNetwork) -> list[CNIError]:
    present = {interface.name: interface for interface in await network.interfaces()}
    errors: list[CNIError] = [
        _changed(problem)
        for made in record.attachments
        for problem in _missing(made, present, record.sandbox.netns)
    ]
    if record.default_routes is not None:
        kernel = await network.default_routes()
        wanted = record.default_routes
        for family, gateways in wanted.gateways.items():
            expected = tuple((wanted.ifname, gateway) for gateway in gateways)
            if kernel.get(family, ()) != expected:
                errors.append(
                    _changed(
                        f"IPv{family} default route is {_routes(kernel.get(family, ()))}, not "
                        f"{_routes(expected)}"
                    )
                )
    return errors


def _missing(
    made: MadeAttachment, present: Mapping[str, InterfaceState], netns: str
) -> Iterator[str]:
    """Yield what the result names in the sandbox and the kernel doesn't have there."""
    if made.result is None or not made.in_kernel:
        return
    inside = {
        position: interface.name
        for position, interface in enumerate(made.result.interfaces)
        if interface.sandbox == netns
    }
    for name in inside.values():
        if name not in present:
            yield f"network {made.planned.name}: interface {name} is gone"
    for ip in made.result.ips:
        interface = present.get(inside.get(-1 if ip.interface is None else ip.interface, ""))
        if interface and str(ip_interface(ip.address)) not in interface.addresses:
            yield f"network {made.planned.name}: {interface.name} has lost address {ip.address}"


def _changed(problem: str) -> DelegateError:
    return DelegateError(problem, code=ATTACHMENT_CHANGED)


def _routes(routes: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{gateway or 'direct'} by {name}" for name, gateway in routes) or "absent"
