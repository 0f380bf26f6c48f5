"""STATUS: what an ADD could do now."""

from __future__ import annotations

from metaplugin.attachments.calls import GC_AND_STATUS_SINCE, status_calls
from metaplugin.cni.errors import CNIError, IncompatibleVersion, PluginNotAvailable
from metaplugin.cni.version import at_least
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.facts import default_networks, parse_outer_config
from metaplugin.commands.libcni import require_plugins, run_in_order
from metaplugin.commands.ports import Caller, Node, Request


async def status(request: Request, caller: Caller, node: Node) -> None:
    """Return when an ADD would find its default network and that network says it is ready; raise
    CNIError, a delegate's own code kept."""
    deadline = Deadline.start(node.settings.deadlines)
    outer = parse_outer_config(request.stdin)
    if not at_least(outer.cni_version, GC_AND_STATUS_SINCE):
        raise IncompatibleVersion(f"cniVersion {outer.cni_version} has no STATUS; 1.1.0 has")
    try:
        default, *_ = await default_networks(outer, node)
    except CNIError as exc:
        raise PluginNotAvailable(f"the default network is not ready: {exc.msg}") from exc
    await require_plugins(caller.plugins, [default])
    await run_in_order(caller.plugins, status_calls(default.config), deadline)
