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
from metaplugin.cni.configuration import NetworkConfigList, PluginConf, plugin_request
from metaplugin.cni.raw import JSONObject
from metaplugin.cni.result import Result
from metaplugin.cni.version import at_least
from metaplugin.wire.frames import (
    Exec,
    decode_environment,
    encode_environment,
)

PREV_RESULT_ON_DEL_SINCE = "0.4.0"
CHECK_SINCE = "0.4.0"
GC_AND_STATUS_SINCE = "1.1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginCall:
    """One execution of a delegate. `network` and `ifname` are for logs and errors."""

    type: str
    environment: bytes
    stdin: bytes
    network: str
    ifname: str

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
    prev_result: JSONObject | None,
) -> PluginCall:
    return _call("ADD", attachment, plugin, sandbox, prev_result)


def check_calls(
    attachment: PlannedAttachment, sandbox: Sandbox, result: Result
) -> tuple[PluginCall, ...]:
    """Return the CHECK calls in order; none for a network without CHECK (CNI section 4)."""
    config = attachment.config
    if config.disable_check or not at_least(config.cni_version, CHECK_SINCE):
        return ()
    prev_result = result.to_version(config.cni_version)
    return tuple(_call("CHECK", attachment, p, sandbox, prev_result) for p in config.plugins)


def del_calls(
    attachment: PlannedAttachment, sandbox: Sandbox, result: Result | None
) -> tuple[PluginCall, ...]:
    """Return the DEL calls, last plugin first, each with the attachment's own result if there is
    one."""
    version = attachment.config.cni_version
    prev_result = None
    if result is not None and at_least(version, PREV_RESULT_ON_DEL_SINCE):
        prev_result = result.to_version(version)
    plugins = reversed(attachment.config.plugins)
    return tuple(_call("DEL", attachment, plugin, sandbox, prev_result) for plugin in plugins)


def gc_calls(
    config: NetworkConfigList, valid: Iterable[Mapping[str, str]]
) -> tuple[PluginCall, ...]:
    """Return the GC calls with the attachments that are valid; none for a network without GC."""
    if config.disable_gc or not at_least(config.cni_version, GC_AND_STATUS_SINCE):
        return ()
    attachments = [dict(attachment) for attachment in valid]
    return tuple(
        _sandboxless_call("GC", config, plugin, {"valid_attachments": attachments})
        for plugin in config.plugins
    )


def status_calls(config: NetworkConfigList) -> tuple[PluginCall, ...]:
    """Return the STATUS calls in order; none below 1.1.0, which has no STATUS."""
    if not at_least(config.cni_version, GC_AND_STATUS_SINCE):
        return ()
    return tuple(_sandboxless_call("STATUS", config, plugin, {}) for plugin in config.plugins)


def _call(
    command: str,
    attachment: PlannedAttachment,
    plugin: PluginConf,
    sandbox: Sandbox,
    prev_result: JSONObject | None,
) -> PluginCall:
    return PluginCall(
        type=plugin.type,
        environment=attachment.runtime.environment(command, sandbox),
        stdin=plugin_request(
            attachment.config,
            plugin,
            capability_args=attachment.runtime.capability_args,
            prev_result=prev_result,
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
