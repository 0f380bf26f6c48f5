"""An installed Multus, as its files say: the CNI configuration, the thick daemon's file, or the
manifest whose ConfigMap holds one of them.

Nothing of Multus is changed. What no model knows is kept by name, so that it can be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from metaplugin.cni.errors import CNIError
from metaplugin.cni.raw import JSONObject, load_object

CNI_FOLDER = Path("/etc/cni/net.d")
DAEMON_CONFIG = CNI_FOLDER / "multus.d" / "daemon-config.json"
GENERATED = ("00-multus.conflist", "00-multus.conf")
TYPES = ("multus", "multus-shim")
_DAEMON_KEY, _CNI_KEY = "daemon-config.json", "cni-conf.json"


class MigrationError(Exception):
    """What was given can't be read as Multus's; the text says where and why."""


class MultusKeys(BaseModel):
    """The keys of Multus that are looked at; the others only have to be named."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow", frozen=True)

    cni_version: str = ""
    name: str = ""
    type: str = ""
    capabilities: dict[str, bool] = {}
    conf_dir: str = ""
    cni_dir: str = ""
    bin_dir: str = ""
    delegates: list[dict[str, Any]] = []
    cluster_network: str = ""
    default_networks: list[str] = []
    kubeconfig: str = ""
    log_level: str = ""
    namespace_isolation: bool = False
    global_namespaces: str = ""
    system_namespaces: list[str] = []
    multus_namespace: str = ""
    auxiliary_cni_chain_name: str = ""
    readinessindicatorfile: str = ""
    override_network_name: bool = False
    multus_autoconfig_dir: str = ""
    multus_config_file: str = ""
    cni_config_dir: str = ""
    socket_dir: str = ""


# pydantic's aliases follow a rule that Multus has one exception to.
_SPELT = {"auxiliaryCNIChainName": "auxiliaryCniChainName", "multusMasterCNI": "multusMasterCni"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Multus as installed. `keys` are the CNI configuration's, overlaid with the daemon's; `raw`
    the same as they are spelt; `around` is the list that the plugin was in, with `plugins` that
    followed it."""

    keys: MultusKeys
    raw: JSONObject
    sources: tuple[str, ...]
    thick: bool
    around: JSONObject
    following: tuple[JSONObject, ...]
    master_file: str


def read_installation(
    cni_config: Path | None, daemon_config: Path | None, manifest: Path | None
) -> Installation:
    """Return what the files say, the usual places where none is named; raise MigrationError."""
    sources: list[str] = []
    conf: JSONObject = {}
    daemon: JSONObject = {}
    if manifest:
        conf, daemon = _from_manifest(manifest)
        sources.append(str(manifest))
    cni_config = cni_config or (None if manifest else _installed())
    daemon_config = daemon_config or (DAEMON_CONFIG if _usual(manifest) else None)
    if cni_config:
        conf = _load(cni_config)
        sources.append(str(cni_config))
    if daemon_config:
        daemon = _load(daemon_config)
        sources.append(str(daemon_config))
    if not sources:
        raise MigrationError(
            f"no Multus: {CNI_FOLDER} has no configuration of its type, and there is no "
            f"{DAEMON_CONFIG}; name the files with --cni-config, --daemon-config or --manifest"
        )
    return _combined(conf, daemon, tuple(sources))


def _usual(manifest: Path | None) -> bool:
    return manifest is None and DAEMON_CONFIG.exists()


def _installed() -> Path | None:
    """Return the configuration of Multus that a runtime would find."""
    named = [CNI_FOLDER / name for name in GENERATED]
    others = sorted(CNI_FOLDER.glob("*.conf*")) if CNI_FOLDER.is_dir() else []
    for path in [*named, *others]:
        if path.is_file() and _plugin(_readable(path)) is not None:
            return path
    return None


def _readable(path: Path) -> JSONObject:
    try:
        return _load(path)
    except MigrationError:
        return {}


def _load(path: Path) -> JSONObject:
    try:
        return load_object(path.read_bytes(), what=str(path))
    except OSError as exc:
        raise MigrationError(f"{path}: {exc.strerror}") from exc
    except CNIError as exc:
        raise MigrationError(exc.msg) from exc


def _from_manifest(path: Path) -> tuple[JSONObject, JSONObject]:
    """Return the CNI configuration and the daemon's file that the manifest's ConfigMaps hold."""
    found: dict[str, JSONObject] = {}
    for data in _config_maps(path):
        for key in (_DAEMON_KEY, _CNI_KEY):
            if isinstance(text := data.get(key), str):
                try:
                    found[key] = load_object(text.encode(), what=f"{path}: {key}")
                except CNIError as exc:
                    raise MigrationError(exc.msg) from exc
    if not found:
        raise MigrationError(f"{path}: no ConfigMap in it has {_DAEMON_KEY} or {_CNI_KEY}")
    return found.get(_CNI_KEY, {}), found.get(_DAEMON_KEY, {})


def _config_maps(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        documents = list(yaml.safe_load_all(path.read_bytes()))
    except OSError as exc:
        raise MigrationError(f"{path}: {exc.strerror}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise MigrationError(f"{path}: no YAML: {exc}") from exc
    objects = [each for each in documents if isinstance(each, dict)]
    for each in objects:
        if each.get("kind") == "List" and isinstance(items := each.get("items"), list):
            objects += [item for item in items if isinstance(item, dict)]
        elif each.get("kind") == "ConfigMap" and isinstance(data := each.get("data"), dict):
            yield data


def _plugin(conf: JSONObject) -> JSONObject | None:
    """Return Multus's own object in a configuration of either form."""
    plugins = conf.get("plugins")
    items = plugins if isinstance(plugins, list) else [conf]
    return next((i for i in items if isinstance(i, dict) and i.get("type") in TYPES), None)


def _combined(conf: JSONObject, daemon: JSONObject, sources: tuple[str, ...]) -> Installation:
    plugin = _plugin(conf)
    if conf and plugin is None:
        raise MigrationError(f"{sources[0]}: no plugin in it is of type {' or '.join(TYPES)}")
    plugin = plugin or {}
    listed = isinstance(conf.get("plugins"), list)
    around = {key: value for key, value in conf.items() if key != "plugins"} if listed else {}
    items = [item for item in conf["plugins"] if isinstance(item, dict)] if listed else []
    around_plugin = _spelt(around | plugin)
    raw = around_plugin | _overlay(_spelt(daemon), around_plugin)
    try:
        keys = MultusKeys.model_validate({_SPELT.get(k, k): v for k, v in raw.items()})
    except ValidationError as exc:
        where = [".".join(map(str, e["loc"])) + f": {e['msg']}" for e in exc.errors()]
        raise MigrationError(f"{', '.join(sources)}: " + "; ".join(where)) from exc
    master = raw.get("multusMasterCNI")
    return Installation(
        keys=keys,
        raw=raw,
        sources=sources,
        thick=bool(daemon) or plugin.get("type") == "multus-shim",
        around=around,
        following=tuple(item for item in items if item is not plugin),
        master_file=master if isinstance(master, str) else "",
    )


def _spelt(conf: JSONObject) -> JSONObject:
    """Return the object with known keys as Multus spells them: its decoder takes any case."""
    known = {str(field.alias): str(field.alias) for field in MultusKeys.model_fields.values()}
    known |= {alias: key for key, alias in _SPELT.items()}
    folded = {alias.casefold(): key for alias, key in known.items()}
    return {folded.get(key.casefold(), key): value for key, value in conf.items()}


def _overlay(daemon: JSONObject, plugin: JSONObject) -> JSONObject:
    """Return the daemon's keys as Multus lays them over a shim's: all win but those that the
    runtime goes by."""
    runtimes = {"cniVersion", "name", "type", "capabilities"} & set(plugin)
    return {key: value for key, value in daemon.items() if key not in runtimes}
