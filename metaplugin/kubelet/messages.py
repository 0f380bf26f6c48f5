"""The messages of the kubelet's pod-resources service (v1), as many fields as we read.

Their descriptors are made at run time: no stubs of the kubelet's API are on PyPI, and protoc would
be one more tool. Fields that aren't here are skipped, as protobuf has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "v1"
_FIELD = descriptor_pb2.FieldDescriptorProto
_MANY = "*"
_SCALARS = {"text": _FIELD.TYPE_STRING, "number": _FIELD.TYPE_INT64}
# Field: its number and type; another message by its name.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "NUMANode": {"ID": (1, "number")},
    "TopologyInfo": {"nodes": (1, "*NUMANode")},
    "ContainerDevices": {
        "resource_name": (1, "text"),
        "device_ids": (2, "*text"),
        "topology": (3, "TopologyInfo"),
    },
    "CDIDevice": {"name": (1, "text")},
    "ClaimResource": {
        "cdi_devices": (1, "*CDIDevice"),
        "driver_name": (2, "text"),
        "pool_name": (3, "text"),
        "device_name": (4, "text"),
    },
    "DynamicResource": {
        "claim_name": (2, "text"),
        "claim_namespace": (3, "text"),
        "claim_resources": (4, "*ClaimResource"),
    },
    "ContainerResources": {
        "name": (1, "text"),
        "devices": (2, "*ContainerDevices"),
        "dynamic_resources": (5, "*DynamicResource"),
    },
    "PodResources": {
        "name": (1, "text"),
        "namespace": (2, "text"),
        "containers": (3, "*ContainerResources"),
    },
    "ListPodResourcesResponse": {"pod_resources": (1, "*PodResources")},
    "GetPodResourcesRequest": {"pod_name": (1, "text"), "pod_namespace": (2, "text")},
    "GetPodResourcesResponse": {"pod_resources": (1, "PodResources")},
}


def message_classes() -> dict[str, Any]:
    """Return the messages' classes by name."""
    name = "metaplugin/podresources.proto"
    file = descriptor_pb2.FileDescriptorProto(name=name, package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            _describe(described.field.add(name=field, number=number), kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1.{message}"))
        for message in _MESSAGES
    }


def _describe(field: Any, kind: str) -> None:
    field.label = _FIELD.LABEL_REPEATED if kind.startswith(_MANY) else _FIELD.LABEL_OPTIONAL
    kind = kind.removeprefix(_MANY)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
