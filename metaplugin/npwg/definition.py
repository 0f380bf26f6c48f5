"""NetworkAttachmentDefinition objects (NPWG 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from metaplugin.cni.configuration import NetworkConfigList, parse_network_config
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject, load_object
from metaplugin.npwg.names import require_label, require_subdomain

RESOURCE_NAME_ANNOTATION = "k8s.v1.cni.cncf.io/resourceName"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAttachmentDefinition:
    """A definition as the cluster has it. `config` is empty where the network's configuration is on
    the node's disk; `resource_name` names the devices that the network hands out."""

    namespace: str
    name: str
    uid: str = ""
    resource_version: str = ""
    config: str = ""
    resource_name: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"net-attach-def {self.namespace}/{self.name}"


def definition_from_object(obj: JSONObject) -> NetworkAttachmentDefinition:
    """Return the definition that a Kubernetes object is; raise InvalidNetworkConfig."""
    metadata = _mapping(obj.get("metadata"), "net-attach-def: metadata")
    name = require_subdomain(metadata.get("name"), where="net-attach-def: metadata.name")
    namespace = require_label(
        metadata.get("namespace", "default"), where=f"net-attach-def {name}: metadata.namespace"
    )
    where = f"net-attach-def {namespace}/{name}"
    spec = _mapping(obj.get("spec"), f"{where}: spec")
    config = spec.get("config")
    if not isinstance(config, str | None):
        raise InvalidNetworkConfig(f"{where}: spec.config must be text that holds JSON")
    annotations = _mapping(metadata.get("annotations"), f"{where}: metadata.annotations")
    if not all(isinstance(value, str) for value in annotations.values()):
        raise InvalidNetworkConfig(f"{where}: metadata.annotations must be texts")
    return NetworkAttachmentDefinition(
        namespace=namespace,
        name=name,
        uid=_text(metadata, "uid", where),
        resource_version=_text(metadata, "resourceVersion", where),
        config=config or "",
        resource_name=annotations.get(RESOURCE_NAME_ANNOTATION, ""),
        annotations=annotations,
    )


def parse_definition_config(definition: NetworkAttachmentDefinition) -> NetworkConfigList:
    """Return spec.config parsed, named after the definition if it names itself not (NPWG 3.4.2);
    raise CNIError."""
    return _parsed(definition.config, f"{definition}: spec.config", definition.name)


@lru_cache(maxsize=256)
def _parsed(text: str, where: str, default_name: str) -> NetworkConfigList:
    raw = load_object(text.encode(errors="surrogatepass"), what=where)
    return parse_network_config(raw, where=where, default_name=default_name)


def _mapping(value: Any, where: str) -> JSONObject:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidNetworkConfig(f"{where} must be an object")
    return value


def _text(metadata: JSONObject, key: str, where: str) -> str:
    value = metadata.get(key) or ""
    if not isinstance(value, str):
        raise InvalidNetworkConfig(f"{where}: metadata.{key} must be text")
    return value
