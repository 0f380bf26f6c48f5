"""The Container Runtime Interface v1, as much of it as the tests need, over gRPC.

The messages' descriptors are built here from one line each: no stub of CRI is on PyPI, and a copied
.proto would be somebody else's text. A field is name:number:type; s text, u i I numbers, b boolean,
y bytes, m a map of texts, else another message's name; * repeats.
"""

from __future__ import annotations

from typing import Any, Self

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "s": _FIELD.TYPE_STRING,
    "u": _FIELD.TYPE_UINT32,
    "i": _FIELD.TYPE_INT32,
    "I": _FIELD.TYPE_INT64,
    "b": _FIELD.TYPE_BOOL,
    "y": _FIELD.TYPE_BYTES,
}
_PACKAGE = "runtime.v1"
_MESSAGES = """
StatusRequest verbose:1:b
RuntimeCondition type:1:s status:2:b reason:3:s message:4:s
RuntimeStatus conditions:1:*RuntimeCondition
StatusResponse status:1:RuntimeStatus info:2:m
PortMapping protocol:1:i container_port:2:i host_port:3:i host_ip:4:s
PodSandboxMetadata name:1:s uid:2:s namespace:3:s attempt:4:u
NamespaceOption network:1:i pid:2:i ipc:3:i
LinuxSandboxSecurityContext namespace_options:1:NamespaceOption
LinuxPodSandboxConfig cgroup_parent:1:s security_context:2:LinuxSandboxSecurityContext
PodSandboxConfig metadata:1:PodSandboxMetadata hostname:2:s log_directory:3:s \
port_mappings:5:*PortMapping labels:6:m annotations:7:m linux:8:LinuxPodSandboxConfig
RunPodSandboxRequest config:1:PodSandboxConfig runtime_handler:2:s
RunPodSandboxResponse pod_sandbox_id:1:s
StopPodSandboxRequest pod_sandbox_id:1:s
StopPodSandboxResponse
RemovePodSandboxRequest pod_sandbox_id:1:s
RemovePodSandboxResponse
PodSandboxStatusRequest pod_sandbox_id:1:s verbose:2:b
PodSandboxNetworkStatus ip:1:s
PodSandboxStatus id:1:s metadata:2:PodSandboxMetadata state:3:i network:5:PodSandboxNetworkStatus
PodSandboxStatusResponse status:1:PodSandboxStatus info:2:m
ListPodSandboxRequest
PodSandbox id:1:s metadata:2:PodSandboxMetadata state:3:i
ListPodSandboxResponse items:1:*PodSandbox
ImageSpec image:1:s
Image id:1:s repo_tags:2:*s
ListImagesRequest
ListImagesResponse images:1:*Image
ContainerMetadata name:1:s attempt:2:u
Capability add_capabilities:1:*s drop_capabilities:2:*s
SecurityProfile profile_type:1:i localhost_ref:2:s
LinuxContainerSecurityContext capabilities:1:Capability privileged:2:b \
namespace_options:3:NamespaceOption readonly_rootfs:7:b no_new_privs:11:b seccomp:15:SecurityProfile
LinuxContainerConfig security_context:2:LinuxContainerSecurityContext
KeyValue key:1:s value:2:s
Mount container_path:1:s host_path:2:s readonly:3:b
ContainerConfig metadata:1:ContainerMetadata image:2:ImageSpec command:3:*s args:4:*s \
envs:6:*KeyValue mounts:7:*Mount log_path:11:s linux:15:LinuxContainerConfig
CreateContainerRequest pod_sandbox_id:1:s config:2:ContainerConfig sandbox_config:3:PodSandboxConfig
CreateContainerResponse container_id:1:s
StartContainerRequest container_id:1:s
StartContainerResponse
ExecSyncRequest container_id:1:s cmd:2:*s timeout:3:I
ExecSyncResponse stdout:1:y stderr:2:y exit_code:3:i
"""


def messages(package: str, lines: str) -> dict[str, Any]:
    """Return the classes of a package's messages, by name, one line each."""
    file = descriptor_pb2.FileDescriptorProto(name="a.proto", package=package, syntax="proto3")
    for line in lines.strip().splitlines():
        name, *fields = line.split()
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(package, message, *field.split(":"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"{package}.{m.name}") for m in file.message_type)
    return {each.name: message_factory.GetMessageClass(each) for each in found}


def _add_field(package: str, message: Any, name: str, number: str, kind: str) -> None:
    field = message.field.add(name=name, number=int(number), label=_FIELD.LABEL_OPTIONAL)
    if kind.startswith("*"):
        kind, field.label = kind[1:], _FIELD.LABEL_REPEATED
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind == "m":
        entry = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        for position, key in enumerate(("key", "value"), start=1):
            nested.field.add(
                name=key, number=position, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL
            )
        field.label, field.type = _FIELD.LABEL_REPEATED, _FIELD.TYPE_MESSAGE
        field.type_name = f".{package}.{message.name}.{entry}"
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{package}.{kind}"


class Service:
    """A CRI service on a unix socket; `call` raises grpc.RpcError."""

    def __init__(self, socket: str, name: str) -> None:
        self._channel = grpc.insecure_channel(f"unix://{socket}")
        self._name = f"{_PACKAGE}.{name}"
        self._messages = messages(_PACKAGE, _MESSAGES)

    def call(self, method: str, timeout: float = 60, **fields: Any) -> Any:
        request, response = (self._messages[f"{method}{kind}"] for kind in ("Request", "Response"))
        stub = self._channel.unary_unary(
            f"/{self._name}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return stub(request(**fields), timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()
