"""Devices on a real node: a plugin that offers them, pods that want some, what the kubelet says."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from tests.cluster.machine import until
from tests.cluster.node import Node
from tests.cluster.objects import container
from tests.cluster.site import Site
from tests.controlplane.client import JSONObject
from tests.kubelet.deviceplugin import DevicePlugin
from tests.kubelet.podresources import Device
from tests.runtimes.cri import messages

RESOURCE = "example.com/vf"
FOLDER = "/var/lib/kubelet/device-plugins"
SOCKET = "/var/lib/kubelet/pod-resources/kubelet.sock"

_MESSAGES = messages(
    "v1",
    """
NUMANode ID:1:I
TopologyInfo nodes:1:*NUMANode
ContainerDevices resource_name:1:s device_ids:2:*s topology:3:TopologyInfo
ContainerResources name:1:s devices:2:*ContainerDevices
PodResources name:1:s namespace:2:s containers:3:*ContainerResources
ListRequest
ListResponse pod_resources:1:*PodResources
GetRequest pod_name:1:s pod_namespace:2:s
GetResponse pod_resources:1:PodResources
GetAllocatableResourcesRequest
GetAllocatableResourcesResponse devices:1:*ContainerDevices
""",
)


def ask(where: Path, method: str, **fields: str) -> Any:
    """Return what pod-resources answers; raise grpc.RpcError."""
    request, response = (_MESSAGES[f"{method}{kind}"] for kind in ("Request", "Response"))
    with grpc.insecure_channel(f"unix://{where}") as channel:
        stub = channel.unary_unary(
            f"/v1.PodResourcesLister/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return stub(request(**fields), timeout=10)


def named(pod: str) -> dict[str, str]:
    return {"pod_name": pod, "pod_namespace": "default"}


@contextlib.contextmanager
def offered(site: Site, node: Node, devices: Sequence[Device]) -> Iterator[None]:
    """Have a device plugin offer devices: when this begins a pod may have them."""
    placed = {device.id for device in devices if device.numa}
    folder = node.machine.path(FOLDER)
    until(lambda: listens(folder / "kubelet.sock"), "the kubelet takes no plugins")
    with DevicePlugin(folder, RESOURCE, devices):
        until(lambda: allocatable(node) == placed, lambda: f"allocatable: {allocatable(node)}")
        path, count = f"/api/v1/nodes/{node.name}", str(len(devices))
        until(
            lambda: site.admin.get(path)["status"]["allocatable"].get(RESOURCE) == count,
            "the scheduler doesn't know of the devices",
        )
        yield


def listens(path: Path) -> bool:
    """Say whether somebody listens at a socket: a kubelet that ended leaves its own."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def allocatable(node: Node) -> set[str]:
    """Return the devices that the kubelet would give to pods, of those with a NUMA node: it
    passes over the others here."""
    answer = ask(node.machine.path(SOCKET), "GetAllocatableResources")
    return {name for each in answer.devices for name in each.device_ids}


def using(count: int, name: str = "c") -> JSONObject:
    """Return a container that wants so many devices."""
    return container(name, resources={"limits": {RESOURCE: count}})
