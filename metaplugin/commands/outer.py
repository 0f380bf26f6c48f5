"""Our own plugin configuration, as the runtime hands it over on standard input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metaplugin.cni.environment import validate_network_name
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject, load_object
from metaplugin.cni.version import select_version

OWN_TYPE = "metaplugin"
# A configuration of these types in a folder is an output, not a network; Multus's may have stayed.
_OUTPUT_TYPES = frozenset({OWN_TYPE, "multus", "multus-shim"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterConfig:
    """The parts of it that every command needs, checked, and all of it as it came."""

    raw: JSONObject
    name: str
    cni_version: str
    runtime_config: Mapping[str, Any]

    @property
    def own_types(self) -> frozenset[str]:
        """The names that we go by: the runtime's configuration may call us otherwise."""
        kind = self.raw.get("type")
        return frozenset({OWN_TYPE, kind}) if isinstance(kind, str) else frozenset({OWN_TYPE})

    @property
    def output_types(self) -> frozenset[str]:
        """The types that mark a file as written by us, or by Multus, for the runtime."""
        return self.own_types | _OUTPUT_TYPES


def parse_outer_config(stdin: bytes) -> OuterConfig:
    """Return the runtime's configuration for us; raise CNIError (codes 1, 6, 7)."""
    raw = load_object(stdin, what="the network configuration on standard input")
    version = select_version(
        {key: raw[key] for key in ("cniVersion",) if key in raw}, where="configuration"
    )
    name = raw.get("name")
    if not isinstance(name, str):
        raise InvalidNetworkConfig("name: the network configuration needs one, as text")
    validate_network_name(name, where="name")
    runtime_config = raw.get("runtimeConfig")
    if not isinstance(runtime_config, dict | None):
        raise InvalidNetworkConfig("runtimeConfig: must be an object")
    return OuterConfig(raw=raw, name=name, cni_version=version, runtime_config=runtime_config or {})
