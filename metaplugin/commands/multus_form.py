"""A configuration of Multus's on standard input: its keys, over the daemon's own, for one request.

Its form is told by its keys. There Multus's defaults hold (a user who moves over loses nothing),
but for what the daemon's file says itself; keys that no Multus knows are ignored, as Multus does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from metaplugin.attachments.isolation import Isolation
from metaplugin.cni.environment import validate_network_name
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject
from metaplugin.commands.ports import Settings
from metaplugin.npwg.names import require_label


@dataclass(frozen=True, slots=True, kw_only=True)
class MultusForm:
    """What Multus's keys say, checked: `values` by the names of Settings; `unused` are the keys
    that mean nothing here."""

    values: Mapping[str, Any]
    unused: tuple[str, ...]
    kubeconfig: str

    def over(self, settings: Settings) -> Settings:
        """Return the settings for this request: these keys, else the daemon's file, else Multus's
        defaults."""
        defaults = {k: v for k, v in _DEFAULTS.items() if k not in settings.stated}
        given = defaults | dict(self.values)
        isolation = Isolation(
            enabled=given.pop("namespace_isolation", settings.isolation.enabled),
            global_namespaces=given.pop("global_namespaces", settings.isolation.global_namespaces),
        )
        return replace(settings, isolation=isolation, **given)


_DEFAULTS: Mapping[str, Any] = {
    "namespace_isolation": False,
    "global_namespaces": ("default",),
    "system_namespace": "kube-system",
    "system_namespaces": ("kube-system",),
    "conf_dir": "/etc/cni/multus/net.d",
    "undeclared_capabilities": "warn",
}


def parse_multus_form(raw: JSONObject) -> MultusForm | None:
    """Return what Multus's keys in a configuration say, None where there are none; raise
    InvalidNetworkConfig that names the key."""
    given = _given(raw)
    if not given:
        return None
    values: dict[str, Any] = {}
    for key, (setting, parse) in _KEYS.items():
        if key in given:
            value = parse(given[key], key)
            if setting and given[key] != "":
                values[setting] = value
    unused = tuple(key for key in given if not _KEYS[key][0] and key not in _USED_ELSEWHERE)
    if "delegates" in given and "cluster_network" not in values:
        # Multus heeds them together with clusterNetwork only
        values.pop("default_networks", None)
        unused += ("defaultNetworks",) if "defaultNetworks" in given else ()
    return MultusForm(values=values, unused=unused, kubeconfig=given.get("kubeconfig", ""))


def _given(raw: JSONObject) -> JSONObject:
    """Return Multus's keys in their own spelling. Its decoder takes any case
    (`readinessIndicatorFile`); those that others read from the configuration must be spelt so."""
    folded = {key.casefold(): value for key, value in raw.items()}
    values = {
        key: raw.get(key) if key in _USED_ELSEWHERE else raw.get(key, folded.get(key.casefold()))
        for key in _KEYS
    }
    return {key: value for key, value in values.items() if value is not None}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidNetworkConfig(f"{where}: must be text")
    if not value.isprintable():  # a NUL or half a surrogate pair would be no path, and no name
        raise InvalidNetworkConfig(f"{where}: {value[:100]!a} is no name and no path")
    return value


def _path(value: Any, where: str) -> str:
    text = _text(value, where)
    if text and not text.startswith("/"):
        raise InvalidNetworkConfig(f"{where}: {text[:100]!a} is no absolute path")
    return text


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidNetworkConfig(f"{where}: must be true or false")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidNetworkConfig(f"{where}: must be a list")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    items = enumerate(_list(value, where))
    return tuple(_text(item, f"{where}[{position}]") for position, item in items)


def _comma_texts(value: Any, where: str) -> tuple[str, ...]:
    return tuple(name for item in _text(value, where).split(",") if (name := item.strip()))


def _namespace(value: Any, where: str) -> str:
    text = _text(value, where)
    return require_label(text, where=where) if text else ""


def _chain_name(value: Any, where: str) -> str:
    text = _text(value, where)
    if text:  # it becomes a part of a path
        validate_network_name(text, where=where)
    return text


def _object(value: Any, where: str) -> JSONObject:
    if not isinstance(value, dict):
        raise InvalidNetworkConfig(f"{where}: must be an object")
    return value


# Multus's keys that are not CNI's own; the setting that each is, "" for none.
_KEYS: Mapping[str, tuple[str, Callable[[Any, str], Any]]] = {
    "clusterNetwork": ("cluster_network", _text),
    "defaultNetworks": ("default_networks", _texts),
    "delegates": ("", _list),
    "systemNamespaces": ("system_namespaces", _texts),
    "multusNamespace": ("system_namespace", _namespace),
    "namespaceIsolation": ("namespace_isolation", _flag),
    "globalNamespaces": ("global_namespaces", _comma_texts),
    "readinessindicatorfile": ("readiness_file", _path),
    "confDir": ("conf_dir", _path),
    "auxiliaryCNIChainName": ("auxiliary_chain", _chain_name),
    "binDir": ("", _path),
    "kubeconfig": ("", _text),
    "cniDir": ("", _text),
    "retryDeleteOnError": ("", _flag),
    "logFile": ("", _text),
    "logLevel": ("", _text),
    "logToStderr": ("", _flag),
    "logOptions": ("", _object),
    "daemonSocketDir": ("", _text),
    "overrideNetworkName": ("", _flag),
    "cniConf": ("", _text),
}
# Read from the configuration by others: the shim, which searches binDir first, and the flows.
_USED_ELSEWHERE = frozenset({"binDir", "delegates", "kubeconfig"})
