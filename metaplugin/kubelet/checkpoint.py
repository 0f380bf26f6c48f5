"""The kubelet's note on disk of the devices that device plugins gave to pods, by UID.

The kubelet writes it, by a rename, before a pod's sandbox is made. It has no order of containers,
no ResourceClaims, and ordinary init containers beside the others; entries of pods that are gone
stay until the next allocation.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from metaplugin.attachments.devices import AllocatedDevice
from metaplugin.cni.errors import CNIError
from metaplugin.cni.raw import load_object
from metaplugin.kubelet.allocations import in_order

LONGEST_CHECKPOINT = 64 << 20  # bytes; an entry takes some 300

_NO_NUMA_NODE = -1


class CheckpointUnreadable(Exception):
    """The checkpoint says nothing of a pod; the text says why."""


class Checkpoint:
    """The file as it is when it is first asked. Its checksum is over Go's memory and not checked;
    entries of other pods may be anything."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def devices(self, uid: str) -> tuple[AllocatedDevice, ...]:
        """Return the devices of the pod of that UID (a static pod's is its configuration's hash,
        here as at the runtime), () where it isn't there; raise CheckpointUnreadable."""
        containers: dict[str, list[AllocatedDevice]] = {}
        for number, raw in enumerate(self._entries):
            if isinstance(raw, dict) and raw.get("PodUID") == uid:
                entry = _entry(raw, where=f"Data.PodDeviceEntries[{number}]")
                containers.setdefault(entry.container, []).extend(_devices(entry))
        return tuple(device for name in sorted(containers) for device in in_order(containers[name]))

    @cached_property
    def _entries(self) -> list[Any]:
        try:
            document = load_object(_read(self._path), what="content")
        except CNIError as exc:
            raise CheckpointUnreadable(exc.msg) from exc
        data = document.get("Data")
        if not isinstance(data, dict):
            raise CheckpointUnreadable("Data: must be an object")
        entries = data.get("PodDeviceEntries") or []  # null where there are none
        if not isinstance(entries, list):
            raise CheckpointUnreadable("Data.PodDeviceEntries: must be a list")
        return entries


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            is_replaced = os.fstat(file.fileno()).st_nlink == 0 and not path.stat().st_nlink
            content = file.read(LONGEST_CHECKPOINT + 1)
    except OSError as exc:
        raise CheckpointUnreadable(f"can't be read: {exc.strerror}") from exc
    if is_replaced:
        # The kubelet writes a new file each time, which a mount of the file doesn't follow.
        raise CheckpointUnreadable("is an old one: mount its folder instead of the file")
    if len(content) > LONGEST_CHECKPOINT:
        raise CheckpointUnreadable(f"is longer than {LONGEST_CHECKPOINT >> 20} MiB")
    return content


class _Entry(BaseModel):
    """`DeviceIDs` is a list before Kubernetes 1.20, and by NUMA node since."""

    container: str = Field(alias="ContainerName")
    resource: str = Field(alias="ResourceName")
    ids: dict[int, list[str]] | list[str] | None = Field(alias="DeviceIDs")


def _entry(raw: dict[str, Any], where: str) -> _Entry:
    try:
        return _Entry.model_validate(raw)
    except ValidationError as exc:
        first = exc.errors()[0]
        path = ".".join(str(part) for part in (where, *first["loc"]))
        raise CheckpointUnreadable(f"{path}: {first['msg']}") from exc


def _devices(entry: _Entry) -> list[AllocatedDevice]:
    ids = {_NO_NUMA_NODE: entry.ids} if isinstance(entry.ids, list) else entry.ids or {}
    nodes: dict[str, set[int]] = {}
    for node, devices in ids.items():
        for device_id in devices:
            nodes.setdefault(device_id, set()).add(node)
    return [
        AllocatedDevice(
            id=device_id,
            resource=entry.resource,
            container=entry.container,
            numa_nodes=tuple(sorted(known - {_NO_NUMA_NODE})),
        )
        for device_id, known in nodes.items()
    ]
