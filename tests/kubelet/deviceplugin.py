"""A device plugin (v1beta1) for a real kubelet: it hands out names, and does nothing to devices."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from tests.kubelet.podresources import Device
from tests.runtimes.cri import messages

_MESSAGES = messages(
    "v1beta1",
    """
DevicePluginOptions pre_start_required:1:b get_preferred_allocation_available:2:b
RegisterRequest version:1:s endpoint:2:s resource_name:3:s options:4:DevicePluginOptions
Empty
NUMANode ID:1:I
TopologyInfo nodes:1:*NUMANode
Device ID:1:s health:2:s topology:3:TopologyInfo
ListAndWatchResponse devices:1:*Device
ContainerAllocateRequest devices_ids:1:*s
AllocateRequest container_requests:1:*ContainerAllocateRequest
ContainerAllocateResponse envs:1:m
AllocateResponse container_responses:1:*ContainerAllocateResponse
""",
)


class DevicePlugin:
    """Offers devices of a resource to the kubelet whose device-plugins folder is `folder`, from
    `with` on. `DEVICES` in the container's environment names what it was given."""

    def __init__(self, folder: Path, resource: str, devices: Sequence[Device]) -> None:
        self._folder = folder
        self._resource = resource
        self._devices = devices
        self._ended = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers([self._methods()])

    def __enter__(self) -> Self:
        endpoint = f"{self._resource.replace('/', '_')}.sock"
        assert self._server.add_insecure_port(f"unix://{self._folder / endpoint}")
        self._server.start()
        request = _MESSAGES["RegisterRequest"](
            version="v1beta1", endpoint=endpoint, resource_name=self._resource, options={}
        )
        with grpc.insecure_channel(f"unix://{self._folder / 'kubelet.sock'}") as kubelet:
            register = kubelet.unary_unary("/v1beta1.Registration/Register")
            register(request.SerializeToString(), timeout=10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._server.stop(grace=None).wait()

    def _methods(self) -> Any:
        handlers = {
            "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(lambda *_: b""),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(self._list_and_watch),
            "Allocate": grpc.unary_unary_rpc_method_handler(
                self._allocate, request_deserializer=_MESSAGES["AllocateRequest"].FromString
            ),
        }
        return grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", handlers)

    def _list_and_watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        devices = [
            {
                "ID": device.id,
                "health": "Healthy",
                "topology": {"nodes": [{"ID": node} for node in device.numa]},
            }
            for device in self._devices
        ]
        yield _MESSAGES["ListAndWatchResponse"](devices=devices).SerializeToString()
        self._ended.wait()

    def _allocate(self, request: Any, context: grpc.ServicerContext) -> bytes:
        responses = [
            {"envs": {"DEVICES": ",".join(sorted(each.devices_ids))}}
            for each in request.container_requests
        ]
        answer = _MESSAGES["AllocateResponse"](container_responses=responses)
        return bytes(answer.SerializeToString())
