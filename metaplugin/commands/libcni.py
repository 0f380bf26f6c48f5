"""The verbs of libcni: a network configuration list's plugins, run in order through a
PluginRunner."""

from __future__ import annotations

import signal
from collections.abc import Iterable

from metaplugin.attachments.calls import PluginCall, add_call
from metaplugin.attachments.plan import Network, PlannedAttachment
from metaplugin.attachments.runtime_conf import Sandbox
from metaplugin.cni.errors import (
    DELEGATE_FAILED,
    CNIError,
    DecodingFailure,
    DelegateError,
    InvalidNetworkConfig,
    PluginNotAvailable,
    TryAgainLater,
)
from metaplugin.cni.raw import load_object
from metaplugin.cni.result import Result, parse_result
from metaplugin.commands.deadline import Allowance, Deadline
from metaplugin.commands.ports import PluginRunner
from metaplugin.wire.frames import MAX_STREAM, Executed, Outcome


class NeverRan(PluginNotAvailable):
    """A list's plugin could not even be started: there is nothing of it to undo.

    `position` is its place in the list.
    """

    def __init__(self, error: CNIError, position: int) -> None:
        super().__init__(error.msg, details=error.details)
        self.position = position


_EXCERPT = 1000  # characters of a plugin's output that an error shows


async def require_plugins(
    plugins: PluginRunner, networks: Iterable[Network | PlannedAttachment]
) -> None:
    """Raise PluginNotAvailable unless every plugin is in the search path: before the first runs,
    since a missing one couldn't be undone either."""
    users: dict[str, str] = {}
    for network in networks:
        for plugin in network.config.plugins:
            users.setdefault(plugin.type, network.name)
    for plugin_type, user in users.items():
        if not await plugins.find_in_path(plugin_type):
            raise _not_found(f"network {user}", plugin_type)


async def add_network_list(
    plugins: PluginRunner, attachment: PlannedAttachment, sandbox: Sandbox, deadline: Deadline
) -> Result:
    """Run the list's ADD forwards and return the last plugin's result (CNI section 3); raise
    CNIError at the first failure, with nothing undone."""
    config, prev_result, result = attachment.config, None, None
    for position, plugin in enumerate(config.plugins):
        call = add_call(attachment, plugin, sandbox, prev_result)
        allowed = deadline.for_delegate(_where(call))
        executed = await plugins.exec_plugin(call, allowed.seconds)
        try:
            raise_for_failure(call, executed, allowed)
        except PluginNotAvailable as exc:
            raise NeverRan(exc, position) from exc
        result = parse_result(
            executed.stdout, configured_version=config.cni_version, where=f"{_where(call)}: result"
        )
        prev_result = result.to_version(config.cni_version)
    if result is None:
        raise InvalidNetworkConfig(f"network {attachment.name}: its configuration has no plugins")
    return result


async def run_in_order(
    plugins: PluginRunner, calls: Iterable[PluginCall], deadline: Deadline
) -> None:
    """Run calls that print nothing; raise the first failure as CNIError (CHECK, STATUS)."""
    for call in calls:
        allowed = deadline.for_delegate(_where(call))
        executed = await plugins.exec_plugin(call, allowed.seconds)
        raise_for_failure(call, executed, allowed)


async def run_all(
    plugins: PluginRunner, calls: Iterable[PluginCall], deadline: Deadline
) -> list[CNIError]:
    """Run calls past every failure and return the failures (DEL, GC: CNI section 4)."""
    errors: list[CNIError] = []
    calls = list(calls)
    for following, call in zip(reversed(range(len(calls))), calls, strict=True):
        try:
            allowed = deadline.for_rollback(_where(call), following=following)
            executed = await plugins.exec_plugin(call, allowed.seconds)
            raise_for_failure(call, executed, allowed)
        except CNIError as exc:
            errors.append(exc)
    return errors


def raise_for_failure(call: PluginCall, executed: Executed, allowed: Allowance) -> None:
    """Raise what a delegate's end means, its own code kept (CNI section 5); return when it
    succeeded."""
    where, details = _where(call), _excerpt(executed.stderr)
    match Outcome(executed.outcome):
        case Outcome.EXITED if executed.status == 0:
            return
        case Outcome.EXITED:
            raise _delegate_error(where, executed)
        case Outcome.SIGNALLED:
            name = _signal_name(executed.status)
            raise DelegateError(
                f"{where} was killed by {name}", code=DELEGATE_FAILED, details=details
            )
        case Outcome.NOT_FOUND:
            raise _not_found(where, call.type)
        case Outcome.NOT_STARTED:
            raise PluginNotAvailable(f"{where} could not be started (errno {executed.status})")
        case Outcome.DEADLINE:
            raise TryAgainLater(
                f"{where} did not end before its deadline and was killed: {allowed.seconds:.3g} s, "
                f"{allowed.why}",
                details=details,
            )
        case Outcome.TOO_MUCH_OUTPUT:
            raise DecodingFailure(
                f"{where} printed more than {MAX_STREAM >> 20} MiB and was killed"
            )
        case Outcome.REFUSED:
            raise InvalidNetworkConfig(f"{where}: {call.type!r} is no plain file name")


def _not_found(where: str, plugin_type: str) -> PluginNotAvailable:
    return PluginNotAvailable(
        f"{where}: there is no executable file {plugin_type!r} in CNI_PATH",
        details="install the plugin on this node, or correct the network's configuration",
    )


def _delegate_error(where: str, executed: Executed) -> DelegateError:
    """Return the error that a plugin reports, or what can be said of one that reports none."""
    try:
        reported = load_object(executed.stdout, what="the plugin's error")
    except CNIError:
        reported = {}
    code, message = reported.get("code"), reported.get("msg")
    if type(code) is not int or not 0 < code < 1 << 31 or not isinstance(message, str):
        return DelegateError(
            f"{where} failed with exit status {executed.status} and no CNI error",
            code=DELEGATE_FAILED,
            details=_excerpt(executed.stderr or executed.stdout),
        )
    details = reported.get("details")
    return DelegateError(
        f"{where}: {message}", code=code, details=details if isinstance(details, str) else ""
    )


def _where(call: PluginCall) -> str:
    interface = f" ({call.ifname})" if call.ifname else ""
    return f"network {call.network}{interface}: plugin {call.type}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _excerpt(output: bytes) -> str:
    return output.decode(errors="replace").strip()[-_EXCERPT:]
