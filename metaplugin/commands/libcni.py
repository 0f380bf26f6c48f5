"""The verbs of libcni: a network configuration list's plugins, run in order through a
PluginRunner."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from metaplugin.attachments.calls import (
    PluginCall,
    add_call,
    del_calls,
    in_version,
    ipam_of_call,
    version_call,
    version_of_call,
)
from metaplugin.attachments.plan import Network, PlannedAttachment
from metaplugin.attachments.runtime_conf import Sandbox
from metaplugin.cni.errors import (
    DELEGATE_FAILED,
    CNIError,
    DecodingFailure,
    DelegateError,
    InvalidNetworkConfig,
    PluginNotAvailable,
    ReportedError,
    TryAgainLater,
)
from metaplugin.cni.result import Result, parse_result, restored
from metaplugin.commands.deadline import Allowance, Deadline
from metaplugin.commands.ports import Caller, PluginRunner
from metaplugin.commands.versions import (
    printed_object,
    refuses_version,
    stated_versions,
    version_at,
)
from metaplugin.wire.frames import MAX_STREAM, Executed, Outcome


class PluginFailed(CNIError):
    """A list's plugin failed; `place` is its place in the list."""

    def __init__(self, error: CNIError, place: int) -> None:
        super().__init__(error.msg, details=error.details)
        self.code = error.code
        self.place = place


class NeverRan(PluginFailed):
    """A plugin could not be started, or speaks no version in which to run it: there is nothing of
    it to undo."""


class Refused(PluginFailed):
    """A plugin ran, and said itself what is wrong."""


class VersionKeeper(Protocol):
    """Remembers that the plugin at a place of an attachment's list is run in another version."""

    async def __call__(self, place: int, version: str) -> PlannedAttachment:
        """Return the attachment as it is now, durably: its DEL must be in that version; raise
        IOFailure."""


_EXCERPT = 1000  # characters of a plugin's output that an error shows
_VERSION_S = 10  # VERSION does nothing that takes time


async def require_plugins(
    plugins: PluginRunner, networks: Iterable[Network | PlannedAttachment]
) -> dict[str, str]:
    """Return every plugin's path by its type; raise PluginNotAvailable unless all are in the search
    path: before the first runs, since a missing one couldn't be undone either."""
    users: dict[str, str] = {}
    for network in networks:
        for plugin in network.config.plugins:
            users.setdefault(plugin.type, network.name)
    paths = {}
    for plugin_type, user in users.items():
        paths[plugin_type] = await plugins.find_in_path(plugin_type)
        if not paths[plugin_type]:
            raise _not_found(f"network {user}", plugin_type)
    return paths


async def add_network_list(
    caller: Caller,
    attachment: PlannedAttachment,
    sandbox: Sandbox,
    deadline: Deadline,
    keep: VersionKeeper,
) -> Result:
    """Run the list's ADD forwards and return the last plugin's result (CNI section 3); raise
    CNIError at the first failure, with nothing undone."""
    result = None
    for place in range(len(attachment.config.plugins)):
        call = add_call(attachment, attachment.config.plugins[place], sandbox, result)
        allowed = deadline.for_delegate(_where(call))
        executed = await caller.plugins.exec_plugin(call, allowed.seconds)
        if refuses_version(call, executed):
            agreed = await _agreed_version(caller, call, executed, allowed.seconds, place)
            if agreed is not None:
                attachment = await keep(place, agreed.version)
                if agreed.begun:
                    await _undo_plugin(caller, attachment, place, sandbox, deadline)
                call = add_call(attachment, attachment.config.plugins[place], sandbox, result)
                allowed = deadline.for_delegate(_where(call))
                executed = await caller.plugins.exec_plugin(call, allowed.seconds)
        try:
            raise_for_failure(call, executed, allowed)
        except PluginNotAvailable as exc:
            raise NeverRan(exc, place) from exc
        except ReportedError as exc:
            raise Refused(exc, place) from exc
        result = _result(attachment, place, call, executed, result)
    if result is None:
        raise InvalidNetworkConfig(f"network {attachment.name}: its configuration has no plugins")
    return result


def _result(
    attachment: PlannedAttachment,
    place: int,
    call: PluginCall,
    executed: Executed,
    previous: Result | None,
) -> Result:
    config, plugin = attachment.config, attachment.config.plugins[place]
    result = parse_result(
        executed.stdout,
        configured_version=config.version_of(plugin),
        where=f"{_where(call)}: result",
    )
    return restored(result, previous, config.cni_version) if plugin.cni_version else result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreed:
    """The version in which to repeat a call; `begun` says that the plugin itself spoke the other
    one, and had begun when its IPAM plugin refused."""

    version: str
    begun: bool


async def _agreed_version(
    caller: Caller, refused: PluginCall, executed: Executed, limit_s: float, place: int
) -> _Agreed | None:
    """Return how to repeat a call that was refused; None where the plugins speak the call's
    version, don't say, or share none while one had begun: the refusal is then the answer. Raise
    NeverRan where the plugin itself speaks no version of ours."""
    wanted, ipam = version_of_call(refused), ipam_of_call(refused)
    supported = await _ask_versions(caller, refused, refused.type, limit_s)
    begun = wanted in supported
    if begun and ipam:
        others = await _ask_versions(caller, refused, ipam, limit_s) or supported
        supported = tuple(version for version in supported if version in others)
    if not supported or wanted in supported:
        return None
    caller.versions.learn(await caller.plugins.find_in_path(refused.type), ipam, supported)
    version = version_at(place, supported, wanted)
    if version is None and not begun:
        raise NeverRan(_delegate_error(_where(refused), executed), place)
    return None if version is None else _Agreed(version=version, begun=begun)


async def _ask_versions(
    caller: Caller, call: PluginCall, plugin_type: str, limit_s: float
) -> tuple[str, ...]:
    question = version_call(call, plugin_type)
    return stated_versions(await caller.plugins.exec_plugin(question, min(limit_s, _VERSION_S)))


async def _undo_plugin(
    caller: Caller, attachment: PlannedAttachment, place: int, sandbox: Sandbox, deadline: Deadline
) -> None:
    """Run the DEL of a plugin that had begun; raise CNIError."""
    calls = del_calls(attachment, sandbox, None)
    call = calls[len(calls) - 1 - place]
    allowed = deadline.for_delegate(_where(call))
    raise_for_failure(call, await caller.plugins.exec_plugin(call, allowed.seconds), allowed)


async def run_in_order(caller: Caller, calls: Iterable[PluginCall], deadline: Deadline) -> None:
    """Run calls that print nothing; raise the first failure as CNIError (CHECK, STATUS)."""
    for call in calls:
        await _run(caller, call, deadline.for_delegate(_where(call)))


async def _run(caller: Caller, call: PluginCall, allowed: Allowance) -> None:
    """Run a call in a version that its plugin speaks; not at all where that has no such command
    (CNI section 4); raise CNIError."""
    executed = await caller.plugins.exec_plugin(call, allowed.seconds)
    if refuses_version(call, executed):
        agreed = await _agreed_version(caller, call, executed, allowed.seconds, 0)
        if agreed is not None:
            again = in_version(call, agreed.version)
            if again is None:
                return
            executed = await caller.plugins.exec_plugin(again, allowed.seconds)
    raise_for_failure(call, executed, allowed)


async def run_all(
    caller: Caller, calls: Iterable[PluginCall], deadline: Deadline, *, following: int = 0
) -> dict[int, CNIError]:
    """Run calls past every failure and return the failures by the calls' positions (DEL, GC: CNI
    section 4), time left for the `following` ones that come after them."""
    errors: dict[int, CNIError] = {}
    calls = list(calls)
    for position, call in enumerate(calls):
        left = len(calls) - 1 - position
        try:
            allowed = deadline.for_rollback(_where(call), following=left + following)
            await _run(caller, call, allowed)
        except CNIError as exc:
            errors[position] = exc
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
    reported = printed_object(executed)
    code, message = reported.get("code"), reported.get("msg")
    if type(code) is not int or not 0 < code < 1 << 31 or not isinstance(message, str):
        return DelegateError(
            f"{where} failed with exit status {executed.status} and no CNI error",
            code=DELEGATE_FAILED,
            details=_excerpt(executed.stderr or executed.stdout),
        )
    details = reported.get("details")
    return ReportedError(
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
