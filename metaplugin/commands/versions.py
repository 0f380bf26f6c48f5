"""Plugins that don't speak their network's version of the specification.

A call that is refused for its version has done nothing: the plugin is then asked for its versions
(VERSION) and run in the nearest that it speaks. What it said is remembered for a while, so that its
next ADD begins there, and an upgraded plugin is tried again.
"""

from __future__ import annotations

from collections.abc import Mapping

from cachetools import TTLCache

from metaplugin.attachments.calls import PluginCall
from metaplugin.cni.configuration import NetworkConfigList, ipam_type, with_plugin_version
from metaplugin.cni.errors import CNIError, ErrorCode
from metaplugin.cni.raw import JSONObject, load_object
from metaplugin.cni.version import SUPPORTED_VERSIONS, nearest_version
from metaplugin.wire.frames import Executed, Outcome

REMEMBERED_S = 600
CHAINED_SINCE = "0.3.0"  # results before it name no interfaces, and were never passed on

# A plugin that doesn't know these commands says so before it looks at the version.
_YOUNG_COMMANDS = ("GC", "STATUS")


class PluginVersions:
    """What plugins that refused a version support, by their path and the IPAM plugin that they
    run."""

    def __init__(self) -> None:
        self._supported: TTLCache[tuple[str, str], tuple[str, ...]] = TTLCache(1000, REMEMBERED_S)

    def learn(self, path: str, ipam: str, supported: tuple[str, ...]) -> None:
        self._supported[path, ipam] = supported

    def apply(self, config: NetworkConfigList, paths: Mapping[str, str]) -> NetworkConfigList:
        """Return the list, each plugin that is known to need it in its own version; `paths` by
        plugin type."""
        for place, plugin in enumerate(config.plugins):
            supported = self._supported.get((paths[plugin.type], ipam_type(plugin.raw)))
            if supported and config.cni_version not in supported:
                version = version_at(place, supported, config.cni_version)
                config = with_plugin_version(config, place, version)
        return config


def version_at(place: int, supported: tuple[str, ...], wanted: str) -> str | None:
    """Return the version in which to run a list's plugin that supports these; None when there is
    none."""
    minimum = CHAINED_SINCE if place else SUPPORTED_VERSIONS[0]
    return nearest_version(supported, wanted, minimum=minimum)


def refuses_version(call: PluginCall, executed: Executed) -> bool:
    """Say whether a plugin may not have spoken the call's version, or not have known its
    command."""
    if executed.outcome != Outcome.EXITED or executed.status == 0:
        return False
    code = printed_object(executed).get("code")
    young = code == ErrorCode.INVALID_ENVIRONMENT and call.command in _YOUNG_COMMANDS
    return code == ErrorCode.INCOMPATIBLE_VERSION or young


def stated_versions(executed: Executed) -> tuple[str, ...]:
    """Return what a plugin answered to VERSION; () where it said nothing that can be used."""
    if executed.outcome != Outcome.EXITED or executed.status != 0:
        return ()
    listed = printed_object(executed).get("supportedVersions")
    return tuple(str(version) for version in listed) if isinstance(listed, list) else ()


def printed_object(executed: Executed) -> JSONObject:
    """Return the object that a plugin printed, an empty one where it printed none."""
    try:
        return load_object(executed.stdout, what="the plugin's answer")
    except CNIError:
        return {}
