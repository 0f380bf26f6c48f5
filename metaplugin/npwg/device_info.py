"""Device information objects (DEV 3): their known types checked, the whole kept unchanged."""

from __future__ import annotations

from typing import Any

from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject

# For each type, the keys of its object that hold text; what is not listed passes as it is.
_TEXTS = {
    "pci": ("pci-address", "vhost-net", "rdma-device", "pf-pci-address", "representor-device"),
    "vdpa": ("parent-device", "driver", "path", "pci-address", "pf-pci-address"),
    "vhost-user": ("mode", "path"),
    "memif": ("role", "path", "mode"),
}


def parse_device_info(raw: Any, *, where: str) -> JSONObject:
    """Return the object unchanged, unknown types and keys included; raise InvalidNetworkConfig."""
    if not isinstance(raw, dict):
        raise InvalidNetworkConfig(f"{where}: must be an object")
    kind = raw.get("type")
    if not isinstance(kind, str) or not kind:
        raise InvalidNetworkConfig(f"{where}.type: must be text")
    if not isinstance(raw.get("version"), str | None):
        raise InvalidNetworkConfig(f"{where}.version: must be text")
    device = raw.get(kind)
    if kind in _TEXTS and device is not None:
        if not isinstance(device, dict):
            raise InvalidNetworkConfig(f"{where}.{kind}: must be an object")
        for key in _TEXTS[kind]:
            if not isinstance(device.get(key), str | None):
                raise InvalidNetworkConfig(f"{where}.{kind}.{key}: must be text")
    return raw


def device_plugin_file(resource: str, device_id: str) -> str:
    """Return the name of the file in which a device plugin describes a device (DEV 4.1): no part of
    it leads into another folder."""
    return f"{resource}-{device_id}-device.json".replace("/", "-")
