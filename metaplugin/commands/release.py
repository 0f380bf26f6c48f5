"""A record's DEL calls, run past every failure, and what counts as one.

A plugin that moves a device into the sandbox may refuse the DEL of one that isn't there, as
host-device does: after an ADD that failed or was interrupted before it, or in a DEL that is
repeated because another network's failed. Missing things are success: the pod would never go.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from metaplugin.attachments.calls import PluginCall
from metaplugin.attachments.record import MadeAttachment
from metaplugin.cni.errors import DELEGATE_FAILED, CNIError, DelegateError, TryAgainLater
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.libcni import try_all
from metaplugin.commands.ports import Caller, SandboxNetwork

log = logging.getLogger(__name__)

_NO_REFUSALS = (DELEGATE_FAILED, TryAgainLater.CODE)  # it ended without a word, or may yet succeed


async def release(
    attachments: Iterable[MadeAttachment],
    calls: Iterable[PluginCall],
    caller: Caller,
    network: SandboxNetwork | None,
    deadline: Deadline,
    *,
    following: int = 0,
) -> list[CNIError]:
    """Run the attachments' DEL calls and return the failures, time left for the `following` ones
    that come after them. `network` is the sandbox that they are in; None where it can't be looked
    into, and then every refusal is a failure."""
    failed = await try_all(caller, calls, deadline, following=following)
    movers = {
        (made.planned.ifname, made.planned.config.plugins[0].type)
        for made in attachments
        if made.planned.device and made.in_kernel
    }
    refused = [call for call, error in failed if _is_refusal(error)]
    asked = [call for call in refused if (call.ifname, call.type) in movers]
    absent = await _absent(asked, network) if asked and network else []
    for call in absent:
        extra = {"network": call.network, "interface": call.ifname, "plugin": call.type}
        log.warning("device was not in the sandbox; its DEL counts as done", extra=extra)
    return [error for call, error in failed if call not in absent]


def _is_refusal(error: CNIError) -> bool:
    return isinstance(error, DelegateError) and error.code not in _NO_REFUSALS


async def _absent(calls: Sequence[PluginCall], network: SandboxNetwork) -> list[PluginCall]:
    """Return those whose interface the sandbox doesn't have; none where that can't be learnt."""
    try:
        present = await network.interface_names()
    except CNIError as exc:
        log.warning("sandbox not looked into", extra={"error": exc.msg})
        return []
    return [call for call in calls if call.ifname not in present]
