"""The calls of delegates that an attachment takes, as the bytes each delegate gets.

A DEL gets the configuration, the arguments and the capability arguments of the ADD, whole (CNI
section 4): its calls are made with the plan and kept in the record, so that no later change of
anything alters them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from metaplugin.attachments.plan import PlannedAttachment
from metaplugin.attachments.runtime_conf import Sandbox
from metaplugin.cni.configuration import (
    NetworkConfigList,
    PluginConf,
    ipam_type,
    plugin_request,
)
from metaplugin.cni.raw import RECORD_NESTING, dump, load_object
from metaplugin.cni.result import Result, parse_result
from metaplugin.cni.version import SUPPORTED_VERSIONS, at_least
from metaplugin.wire.frames import (
    Exec,
    decode_environment,
    encode_environment,
)

PREV_RESULT_ON_DEL_SINCE = "0.4.0"
CHECK_SINCE = "0.4.0"
GC_AND_STATUS_SINCE = "1.1.0"
_SINCE = {"CHECK": CHECK_SINCE, "GC": GC_AND_STATUS_SINCE, "STATUS": GC_AND_STATUS_SINCE}


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginCall:
    """One execution of a delegate. `network` and `ifname` are for logs and errors."""

    type: str
    environment: bytes
    stdin: bytes
    network: str
    ifname: str

    @property
    def command(self) -> str:
        return decode_environment(self.environment).get("CNI_COMMAND", "")

    def to_exec(self, deadline_s: float) -> Exec:
        return Exec(int(deadline_s * 1000), self.type.encode(), self.environment, self.stdin)

    def in_netns(self, path: str) -> PluginCall:
        """Return the call for where the sandbox's network namespace is now, "" when it is gone."""
        values = decode_environment(self.environment) | {"CNI_NETNS": path}
        return replace(self, environment=encode_environment(values))


def add_call(
    attachment: PlannedAttachment,
    plugin: PluginConf,
    sandbox: Sandbox,
    prev_result: Result | None,
) -> PluginCall:
    return _call("ADD", attachment, plugin, sandbox, prev_result)


def check_calls(
    attachment: PlannedAttachment, sandbox: Sandbox, result: Result
) -> tuple[PluginCall, ...]:
    """Return the CHECK calls in order; none for a network that disables CHECK, or a plugin whose
    version has none (CNI section 4)."""
    config = attachment.config
    if config.disable_check:
        return ()
    able = _plugins_of(config, CHECK_SINCE)
    return tuple(_call("CHECK", attachment, plugin, sandbox, result) for plugin in able)


def del_calls(
    attachment: PlannedAttachment, sandbox: Sandbox, result: Result | None
) -> tuple[PluginCall, ...]:
    """Return the DEL calls, last plugin first, each with the attachment's own result if there is
    one and the plugin's version has it in a DEL."""
    config = attachment.config
    able = _plugins_of(config, PREV_RESULT_ON_DEL_SINCE)
    return tuple(
        _call("DEL", attachment, plugin, sandbox, result if plugin in able else None)
        for plugin in reversed(config.plugins)
    )


def gc_calls(
    config: NetworkConfigList, valid: Iterable[Mapping[str, str]]
) -> tuple[PluginCall, ...]:
    """Return the GC calls with the attachments that are valid; none for a network that disables
    GC, or a plugin whose version has none."""
    if config.disable_gc:
        return ()
    attachments = [dict(attachment) for attachment in valid]
    return tuple(
        _sandboxless_call("GC", config, plugin, {"valid_attachments": attachments})
        for plugin in _plugins_of(config, GC_AND_STATUS_SINCE)
    )


def status_calls(config: NetworkConfigList) -> tuple[PluginCall, ...]:
    """Return the STATUS calls in order; none for plugins below 1.1.0, which has no STATUS."""
    able = _plugins_of(config, GC_AND_STATUS_SINCE)
    return tuple(_sandboxless_call("STATUS", config, plugin, {}) for plugin in able)


def version_call(call: PluginCall, plugin_type: str) -> PluginCall:
    """Return the call that asks a plugin for its versions, with the variables that libcni gives:
    plugins of old want them."""
    environment = {"CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy"}
    return replace(
        call,
        type=plugin_type,
        environment=encode_environment(environment),
        stdin=dump({"cniVersion": version_of_call(call)}),
    )


def version_of_call(call: PluginCall) -> str:
    """Return the version that a call is in."""
    return str(load_object(call.stdin, what="the call", nesting=RECORD_NESTING)["cniVersion"])


def ipam_of_call(call: PluginCall) -> str:
    """Return the IPAM plugin that a call's plugin is to run, "" where there is none."""
    ipam = load_object(call.stdin, what="the call", nesting=RECORD_NESTING).get("ipam")
    return ipam_type({"ipam": ipam})


def in_version(call: PluginCall, version: str) -> PluginCall | None:
    """Return the call in another version, its prevResult converted; None where that version has no
    such command."""
    if not at_least(version, _SINCE.get(call.command, SUPPORTED_VERSIONS[0])):
        return None
    request = load_object(call.stdin, what="the call", nesting=RECORD_NESTING)
    previous = request.pop("prevResult", None)
    if previous and (call.command != "DEL" or at_least(version, PREV_RESULT_ON_DEL_SINCE)):
        result = parse_result(
            dump(previous), configured_version=request["cniVersion"], where="prevResult"
        )
        request["prevResult"] = result.to_version(version)
    return replace(call, stdin=dump(request | {"cniVersion": version}))


def _plugins_of(config: NetworkConfigList, version: str) -> list[PluginConf]:
    return [plugin for plugin in config.plugins if at_least(config.version_of(plugin), version)]


def _call(
    command: str,
    attachment: PlannedAttachment,
    plugin: PluginConf,
    sandbox: Sandbox,
    prev_result: Result | None,
) -> PluginCall:
    version = attachment.config.version_of(plugin)
    return PluginCall(
        type=plugin.type,
        environment=attachment.runtime.environment(command, sandbox),
        stdin=plugin_request(
            attachment.config,
            plugin,
            capability_args=attachment.runtime.capability_args,
            prev_result=None if prev_result is None else prev_result.to_version(version),
        ),
        network=attachment.name,
        ifname=attachment.ifname,
    )


def _sandboxless_call(
    command: str, config: NetworkConfigList, plugin: PluginConf, extra: Mapping[str, Any]
) -> PluginCall:
    return PluginCall(
        type=plugin.type,
        environment=encode_environment({"CNI_COMMAND": command}),
        stdin=plugin_request(config, plugin, capability_args={}, **extra),
        network=config.name,
        ifname="",
    )
