"""STATUS: what an ADD could do now."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from metaplugin.attachments.calls import GC_AND_STATUS_SINCE, status_calls
from metaplugin.cni.errors import (
    CNIError,
    IncompatibleVersion,
    PluginNotAvailable,
    TryAgainLater,
)
from metaplugin.cni.version import at_least
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.facts import default_networks, parse_outer_config
from metaplugin.commands.libcni import require_plugins, run_in_order
from metaplugin.commands.ports import Caller, Node, Request

STATUS_S = 7  # whoever asks for it asks every few seconds; the shim may have waited before


async def status(request: Request, caller: Caller, node: Node) -> None:
    """Return when an ADD would find its default network and that network says it is ready; raise
    CNIError, a delegate's own code kept."""
    limits = node.settings.deadlines
    limits = replace(limits, request=min(limits.request, STATUS_S), rollback=0)
    deadline = Deadline.start(limits)
    outer = parse_outer_config(request.stdin)
    if not at_least(outer.cni_version, GC_AND_STATUS_SINCE):
        raise IncompatibleVersion(f"cniVersion {outer.cni_version} has no STATUS; 1.1.0 has")
    try:
        async with asyncio.timeout(limits.request):
            default, *_ = await default_networks(outer, node)
    except TimeoutError as exc:
        raise PluginNotAvailable("the default network could not be learnt in time") from exc
    except CNIError as exc:
        raise PluginNotAvailable(f"the default network is not ready: {exc.msg}") from exc
    paths = await require_plugins(caller.plugins, [default])
    calls = status_calls(caller.versions.apply(default.config, paths))
    try:
        await run_in_order(caller, calls, deadline)
    except TryAgainLater as exc:  # ours: a plugin's own code 11 is passed on
        raise PluginNotAvailable(exc.msg, details=exc.details) from exc
