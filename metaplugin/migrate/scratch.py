"""Multus's memory of the pods that it attached: a file of delegates for each container, and
libcni's cache of what each attachment was made with and what came of it. Read only.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metaplugin.cni.configuration import NetworkConfigList, parse_network_config
from metaplugin.cni.environment import validate_container_id
from metaplugin.cni.errors import CNIError, InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject, load_object, load_value

RESULTS = "results"
CACHE_KIND = "cniCacheV1"


class Foreign(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CachedPlugin(Foreign):
    content: str | None = Field(default=None, alias="Bytes")


class CachedList(Foreign):
    """libcni's list as Multus 4.3 stores it: each plugin whole, those from folders included."""

    name: str = Field(default="", alias="Name")
    version: str = Field(default="", alias="CNIVersion")
    plugins: list[CachedPlugin] | None = Field(default=None, alias="Plugins")


class Delegate(Foreign):
    """One delegate of Multus's scratch file; `content` is its configuration in base64, where
    4.3.0 and earlier keep of a list only the keys that they know."""

    name: str = Field(default="", alias="Name")
    ifname: str = Field(default="", alias="ifnameRequest")
    gateways: list[str] | None = Field(default=None, alias="default-route")
    content: str | None = Field(default=None, alias="Bytes")
    whole: CachedList | None = Field(default=None, alias="CNINetworkConfigList")


class CachedAttachment(Foreign):
    """One attachment in libcni's cache."""

    kind: str
    container_id: str = Field(alias="containerId")
    config: str = ""
    ifname: str = Field(alias="ifName")
    network: str = Field(alias="networkName")
    netns: str = ""
    args: list[tuple[str, str]] | None = Field(default=None, alias="cniArgs")
    capability_args: dict[str, Any] | None = Field(default=None, alias="capabilityArgs")
    result: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What is remembered of one container; `problem` says why it can't be read, if so."""

    container_id: str
    delegates: tuple[Delegate, ...] = ()
    cached: tuple[CachedAttachment, ...] = ()
    problem: str = ""


def read_containers(folder: Path) -> Iterator[Container]:
    """Yield every container of a Multus cache, by id; raise OSError where it can't be listed."""
    cached = _read_results(folder / RESULTS)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    for container_id in sorted(names | set(cached)):
        try:
            validate_container_id(container_id)
            delegates = _delegates(folder / container_id) if container_id in names else ()
        except CNIError as exc:
            yield Container(container_id=container_id, problem=exc.msg)
            continue
        except (OSError, ValidationError) as exc:
            yield Container(container_id=container_id, problem=f"its file can't be read: {exc}")
            continue
        yield Container(
            container_id=container_id,
            delegates=delegates,
            cached=tuple(cached.get(container_id, ())),
        )


def _delegates(path: Path) -> tuple[Delegate, ...]:
    value = load_value(path.read_bytes(), what="its file")
    if not isinstance(value, list) or not value:
        raise InvalidNetworkConfig("its file holds no list of delegates")
    return tuple(Delegate.model_validate(item) for item in value)


def _read_results(folder: Path) -> Mapping[str, list[CachedAttachment]]:
    """Return libcni's attachments by container; a file that is none (a damaged one, or of a libcni
    from before 0.7) is as good as absent, as it is for libcni."""
    found: dict[str, list[CachedAttachment]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            raw = load_object(path.read_bytes(), what=path.name)
            cached = CachedAttachment.model_validate(raw)
        except (CNIError, OSError, ValidationError):
            continue
        if cached.kind == CACHE_KIND:
            found.setdefault(cached.container_id, []).append(cached)
    return found


def network_config(delegate: Delegate, cached: CachedAttachment | None) -> NetworkConfigList:
    """Return the configuration that an attachment was made with; raise CNIError.

    libcni's is what its ADD had; but plugins that came from a folder are only in the delegate's
    list. Multus's own copy comes last: it loses keys.
    """
    where = f"network {delegate.name or '?'}"
    candidates = []
    if cached and cached.config:
        candidates.append(_decoded(cached.config, where))
    if delegate.whole and delegate.whole.plugins:
        candidates.append(_whole_list(delegate.whole, where))
    if delegate.content:
        candidates.append(_decoded(delegate.content, where))
    if not candidates:
        raise InvalidNetworkConfig(f"{where}: Multus has kept no configuration of it")
    best = max(candidates, key=lambda raw: len(raw.get("plugins") or [raw]))
    return parse_network_config(best, where=where, default_name=_name(delegate))


def cached_config(cached: CachedAttachment) -> NetworkConfigList:
    """Return the configuration in libcni's cache; raise CNIError."""
    where = f"network {cached.network}"
    raw = _decoded(cached.config, where)
    return parse_network_config(raw, where=where, default_name=cached.network)


def _whole_list(whole: CachedList, where: str) -> JSONObject:
    plugins = [_decoded(plugin.content or "", where) for plugin in whole.plugins or ()]
    return {"cniVersion": whole.version, "name": whole.name, "plugins": plugins}


def _name(delegate: Delegate) -> str | None:
    return delegate.name.rpartition("/")[2] or None


def _decoded(text: str, where: str) -> JSONObject:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidNetworkConfig(f"{where}: its configuration is no base64") from exc
    return load_object(data, what=where)
