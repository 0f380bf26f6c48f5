"""GC: release what the runtime says is gone, and only that (CNI section 4).

A record is stale when the same runtime made it for the same network and no longer lists it. The
delegates' own GC is run only for what the records know whole: a lost state must not free live
addresses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence

from metaplugin.attachments.calls import GC_AND_STATUS_SINCE, gc_calls
from metaplugin.attachments.record import StoredRecord
from metaplugin.cni.attachments import Attachment, parse_valid_attachments
from metaplugin.cni.configuration import NetworkConfigList
from metaplugin.cni.errors import CNIError, IncompatibleVersion, InvalidNetworkConfig, join_errors
from metaplugin.cni.version import at_least
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.libcni import run_all
from metaplugin.commands.networks import configured, default_networks
from metaplugin.commands.outer import OuterConfig, parse_outer_config
from metaplugin.commands.ports import Caller, Node, Request
from metaplugin.commands.reap import finish_unless_busy
from metaplugin.commands.release import is_given_up


async def collect_garbage(request: Request, caller: Caller, node: Node) -> None:
    """Release stale attachments, then pass GC on; raise CNIError that joins every failure."""
    deadline = Deadline.start(node.settings.deadlines)
    outer = parse_outer_config(request.stdin)
    if not at_least(outer.cni_version, GC_AND_STATUS_SINCE):
        raise IncompatibleVersion(f"cniVersion {outer.cni_version} has no GC; 1.1.0 has")
    valid = parse_valid_attachments(outer.raw)
    if valid is None:
        raise InvalidNetworkConfig(
            "cni.dev/valid-attachments: GC needs the list of valid attachments"
        )
    known = await node.records.read_all()
    ours = [stored for stored in known if _is_ours(stored, outer, request)]
    stale = [stored for stored in ours if _attachment(stored) not in valid]
    stale = [*_plugged_into(stale, known), *stale]
    errors: list[CNIError] = []
    for stored in stale:
        failed = await finish_unless_busy(stored, caller, node, deadline) or ()
        errors += [error for error in failed if not is_given_up(error)]
    live = [stored for stored in ours if _attachment(stored) in valid]
    if {_attachment(stored) for stored in live} == set(valid):
        kept = [stored for stored in known if stored not in stale]
        errors += await _pass_on(kept, live, stale, outer, caller, node, deadline)
    if errors:
        raise join_errors(errors)


def _is_ours(stored: StoredRecord, outer: OuterConfig, request: Request) -> bool:
    record = stored.record
    return record.network == outer.name and record.runtime == request.runtime


def _plugged_into(
    stale: Sequence[StoredRecord], known: Sequence[StoredRecord]
) -> list[StoredRecord]:
    """Return what was hot-plugged into sandboxes of which nothing else than `stale` is left: no
    runtime names it."""
    gone = {stored.record.sandbox.container_id for stored in stale}
    gone -= {
        stored.record.sandbox.container_id
        for stored in known
        if stored not in stale and not stored.record.hot_plugged
    }
    return [
        stored
        for stored in known
        if stored.record.hot_plugged and stored.record.sandbox.container_id in gone
    ]


def _attachment(stored: StoredRecord) -> Attachment:
    record = stored.record
    return Attachment(container_id=record.sandbox.container_id, ifname=record.ifname)


async def _pass_on(
    kept: Sequence[StoredRecord],
    live: Sequence[StoredRecord],
    stale: Sequence[StoredRecord],
    outer: OuterConfig,
    caller: Caller,
    node: Node,
    deadline: Deadline,
) -> list[CNIError]:
    """Run the GC of each network that these records or the default network's configuration name.

    What delegates must keep is what any record holds: another runtime's pods, or hot-plugged
    interfaces, may be in the same network.
    """
    errors: list[CNIError] = []
    for config in await _networks([*live, *stale], outer, node):
        calls = gc_calls(config, _inner_attachments(config.name, kept))
        errors += (await run_all(caller, calls, deadline)).values()
    return errors


async def _networks(
    records: Collection[StoredRecord], outer: OuterConfig, node: Node
) -> list[NetworkConfigList]:
    """Return one configuration for each network name: the newest record's, or the default
    network's."""
    configs: dict[str, NetworkConfigList] = {}
    with contextlib.suppress(CNIError):  # GC works without a usable default network (CNI-GC-8)
        node = configured(outer, node)
        configs |= {n.config.name: n.config for n in await default_networks(outer, node)}
    for stored in sorted(records, key=lambda stored: stored.record.created):
        for made in stored.record.attachments:
            configs[made.planned.config.name] = made.planned.config
    return list(configs.values())


def _inner_attachments(network: str, kept: Sequence[StoredRecord]) -> list[dict[str, str]]:
    return [
        {"containerID": stored.record.sandbox.container_id, "ifname": made.planned.ifname}
        for stored in kept
        for made in stored.record.attachments
        if made.planned.config.name == network
    ]
