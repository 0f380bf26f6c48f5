"""Network configuration lists (CNI section 1) and the requests derived from them (section 4).

The raw objects are kept and passed on; the types beside them hold what we look at, checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metaplugin.cni.attachments import MISSPELT, VALID_ATTACHMENTS
from metaplugin.cni.environment import validate_network_name, validate_plugin_type
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject, dump
from metaplugin.cni.version import select_version

# Ours to derive for each call: what a configuration says under these keys is not passed on.
_DERIVED = frozenset({"capabilities", "runtimeConfig", "prevResult"})
_RESERVED_PREFIX = "cni.dev/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConf:
    """One plugin's configuration; `capabilities` are those that it declares as true.

    `cni_version` is the version that the plugin is run in where it doesn't speak its list's.
    """

    raw: JSONObject
    type: str
    capabilities: frozenset[str]
    cni_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfigList:
    """A network configuration list. `raw` can be parsed again, and holds every plugin."""

    raw: JSONObject
    name: str
    cni_version: str
    plugins: tuple[PluginConf, ...]
    disable_check: bool = False
    disable_gc: bool = False
    load_only_inlined_plugins: bool = False

    def declares(self, capability: str) -> bool:
        """Say whether any of the plugins declares the capability."""
        return any(capability in plugin.capabilities for plugin in self.plugins)

    def version_of(self, plugin: PluginConf) -> str:
        """Return the version that one of the plugins is run in."""
        return plugin.cni_version or self.cni_version


def parse_network_config(
    raw: JSONObject, *, where: str, default_name: str | None = None
) -> NetworkConfigList:
    """Return the list that `raw` is, or the list of one that a single plugin's becomes.

    `default_name` is for a configuration without a name. Raise CNIError (codes 1, 7) that names the
    place: `{where}: plugins[1].ipam.type`.
    """
    config = parse_open_list(raw, where=where, default_name=default_name)
    if not config.plugins:
        raise InvalidNetworkConfig(f"{where}: plugins: must hold at least one plugin")
    return config


def parse_open_list(
    raw: JSONObject, *, where: str, default_name: str | None = None
) -> NetworkConfigList:
    """Do as parse_network_config, for a list whose plugins may be in a folder of their own."""
    single = "type" in raw and "plugins" not in raw
    name = _name(raw, default_name, where)
    version = select_version(raw, where=where)
    only_inlined = _flag(raw, "loadOnlyInlinedPlugins", where)
    if only_inlined and not raw.get("plugins"):
        raise InvalidNetworkConfig(f"{where}: loadOnlyInlinedPlugins: needs plugins in the list")
    items = [raw] if single else raw.get("plugins", [])
    if not isinstance(items, list):
        raise InvalidNetworkConfig(f"{where}: plugins: must be a list")
    prefixes = [""] if single else [f"plugins[{position}]." for position in range(len(items))]
    plugins = tuple(
        parse_plugin(item, where=where, prefix=prefix)
        for item, prefix in zip(items, prefixes, strict=True)
    )
    listed = {"cniVersion": version, "plugins": [dict(raw)]} if single else dict(raw)
    return NetworkConfigList(
        raw=listed | {"name": name},
        name=name,
        cni_version=version,
        plugins=plugins,
        disable_check=not single and _flag(raw, "disableCheck", where),
        disable_gc=not single and _flag(raw, "disableGC", where),
        load_only_inlined_plugins=only_inlined,
    )


def parse_plugin(item: Any, *, where: str, prefix: str = "") -> PluginConf:
    """Return one plugin's configuration, the types of its own delegates checked; raise CNIError."""
    if not isinstance(item, dict):
        raise InvalidNetworkConfig(f"{where}: {prefix.rstrip('.')}: must be an object")
    _check_nested_types(item, where=where, prefix=prefix)
    kind = item.get("type")
    if not isinstance(kind, str):
        raise InvalidNetworkConfig(f"{where}: {prefix}type: must name a plugin, as text")
    return PluginConf(raw=item, type=kind, capabilities=_capabilities(item, where, prefix))


def with_plugins(config: NetworkConfigList, extra: Sequence[PluginConf]) -> NetworkConfigList:
    """Return the list with plugins appended."""
    return _with_plugin_objects(config, [*config.plugins, *extra])


def merge_cni_args(config: NetworkConfigList, args: Mapping[str, Any]) -> NetworkConfigList:
    """Return the list with `args` in every plugin's `args.cni`, where they win over what is there
    (NPWG 4.1.2.1.7); raise InvalidNetworkConfig where that is no object."""
    plugins = []
    for position, plugin in enumerate(config.plugins):
        present = _or_empty(plugin.raw.get("args"))
        inner = _or_empty(present.get("cni")) if isinstance(present, dict) else None
        if not isinstance(inner, dict):
            raise InvalidNetworkConfig(
                f"network {config.name}: plugins[{position}].args.cni: must be an object"
            )
        merged = {**present, "cni": {**inner, **args}}
        plugins.append(replace(plugin, raw=plugin.raw | {"args": merged}))
    return _with_plugin_objects(config, plugins)


def with_top_level(config: NetworkConfigList, values: Mapping[str, Any]) -> NetworkConfigList:
    """Return the list with these keys set in every plugin."""
    plugins = [replace(plugin, raw={**plugin.raw, **values}) for plugin in config.plugins]
    return _with_plugin_objects(config, plugins)


def with_plugin_version(
    config: NetworkConfigList, position: int, version: str | None
) -> NetworkConfigList:
    """Return the list with one plugin run in another version than the list's."""
    plugins = list(config.plugins)
    plugins[position] = replace(plugins[position], cni_version=version)
    return replace(config, plugins=tuple(plugins))


def ipam_type(raw: JSONObject) -> str:
    """Return the IPAM plugin that a plugin's configuration names, "" where it names none."""
    ipam = raw.get("ipam")
    return str(ipam.get("type") or "") if isinstance(ipam, dict) else ""


def plugin_request(
    config: NetworkConfigList,
    plugin: PluginConf,
    *,
    capability_args: Mapping[str, Any],
    prev_result: JSONObject | None = None,
    valid_attachments: Sequence[Mapping[str, str]] | None = None,
) -> bytes:
    """Return what the plugin gets on standard input (CNI section 4, "Deriving request
    configuration")."""
    request = {
        key: value
        for key, value in plugin.raw.items()
        if key not in _DERIVED and not key.startswith(_RESERVED_PREFIX)
    }
    request |= {"name": config.name, "cniVersion": config.version_of(plugin)}
    runtime_config = {
        key: value
        for key, value in capability_args.items()
        if key in plugin.capabilities and value is not None
    }
    if runtime_config:
        request["runtimeConfig"] = runtime_config
    if prev_result is not None:
        request["prevResult"] = prev_result
    if valid_attachments is not None:
        request |= {VALID_ATTACHMENTS: valid_attachments, MISSPELT: valid_attachments}
    return dump(request)


def _with_plugin_objects(
    config: NetworkConfigList, plugins: Iterable[PluginConf]
) -> NetworkConfigList:
    kept = tuple(plugins)
    raw = config.raw | {"plugins": [plugin.raw for plugin in kept]}
    return replace(config, raw=raw, plugins=kept)


def _name(raw: JSONObject, default_name: str | None, where: str) -> str:
    name = raw.get("name") or default_name
    if not isinstance(name, str):
        raise InvalidNetworkConfig(f"{where}: name: the network configuration needs one, as text")
    validate_network_name(name, where=f"{where}: name")
    return name


def _flag(raw: JSONObject, key: str, where: str) -> bool:
    """Return a list's boolean; libcni takes the texts "true" and "false" as well."""
    value = raw.get(key, False)
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value)
    if not isinstance(value, bool):
        raise InvalidNetworkConfig(f"{where}: {key}: must be true or false")
    return value


def _check_nested_types(item: JSONObject, *, where: str, prefix: str) -> None:
    """Check every `type` that names a program: the plugin's, its ipam's, its `delegate`'s."""
    kind = item.get("type")
    if isinstance(kind, str):
        validate_plugin_type(kind, where=f"{where}: {prefix}type")
    elif kind is not None:
        raise InvalidNetworkConfig(f"{where}: {prefix}type: must be text")
    for key in ("ipam", "delegate"):
        nested = item.get(key)
        if isinstance(nested, dict):
            named = {
                k: v for k, v in nested.items() if (k, v) != ("type", "")
            }  # "": none, as in Go
            _check_nested_types(named, where=where, prefix=f"{prefix}{key}.")
        elif nested is not None:
            raise InvalidNetworkConfig(f"{where}: {prefix}{key}: must be an object")


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


def _capabilities(item: JSONObject, where: str, prefix: str) -> frozenset[str]:
    declared = _or_empty(item.get("capabilities"))
    if not isinstance(declared, dict) or not all(isinstance(v, bool) for v in declared.values()):
        raise InvalidNetworkConfig(
            f"{where}: {prefix}capabilities: must map each capability to true or false"
        )
    return frozenset(name for name, enabled in declared.items() if enabled)
