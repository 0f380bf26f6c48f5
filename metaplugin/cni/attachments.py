"""The attachments that a runtime declares valid in a GC (CNI section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metaplugin.cni.environment import validate_container_id, validate_interface_name
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject

VALID_ATTACHMENTS = "cni.dev/valid-attachments"
MISSPELT = "cni.dev/attachments"  # libcni sends both, since its first release had this one


@dataclass(frozen=True, slots=True)
class Attachment:
    """What identifies an attachment: the container and the interface in it."""

    container_id: str
    ifname: str


def parse_valid_attachments(raw: JSONObject) -> tuple[Attachment, ...] | None:
    """Return the list, None when the configuration has none; raise CNIError for a malformed one.

    null is an empty list: libcni leaves the keys out where its caller gave it no list, and encodes
    so the list of a caller that has no attachment, which in Go is nil.
    """
    given = [key for key in (VALID_ATTACHMENTS, MISSPELT) if key in raw]
    for key in given:
        if raw[key] is not None:
            return _attachments(raw[key], key)
    return () if given else None


def _attachments(items: Any, key: str) -> tuple[Attachment, ...]:
    if not isinstance(items, list):
        raise InvalidNetworkConfig(f"{key}: must be a list")
    return tuple(_attachment(item, f"{key}[{position}]") for position, item in enumerate(items))


def _attachment(item: Any, where: str) -> Attachment:
    if not isinstance(item, dict):
        raise InvalidNetworkConfig(f"{where}: must be an object")
    container_id, ifname = item.get("containerID"), item.get("ifname")
    if not isinstance(container_id, str) or not isinstance(ifname, str):
        raise InvalidNetworkConfig(f"{where}: needs containerID and ifname, as text")
    validate_container_id(container_id)
    validate_interface_name(ifname, where=f"{where}.ifname")
    return Attachment(container_id, ifname)
