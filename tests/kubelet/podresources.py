"""A kubelet's pod-resources service and checkpoint, answering as kubelets do: a real gRPC server.

As theirs: entries in a random order (Go's maps), one for each device and NUMA node, containers in
the pod's order, ordinary init containers in the checkpoint alone; List knows no UIDs; 100 calls a
second with a burst of 10, beyond that RESOURCE_EXHAUSTED.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import grpc

from tests.runtimes.cri import messages

_MESSAGES = messages(
    "v1",
    """
NUMANode ID:1:I
TopologyInfo nodes:1:*NUMANode
ContainerDevices resource_name:1:s device_ids:2:*s topology:3:TopologyInfo
CDIDevice name:1:s
ClaimResource cdi_devices:1:*CDIDevice driver_name:2:s pool_name:3:s device_name:4:s
DynamicResource claim_name:2:s claim_namespace:3:s claim_resources:4:*ClaimResource
ContainerResources name:1:s devices:2:*ContainerDevices dynamic_resources:5:*DynamicResource
PodResources name:1:s namespace:2:s containers:3:*ContainerResources
ListPodResourcesRequest
ListPodResourcesResponse pod_resources:1:*PodResources
GetPodResourcesRequest pod_name:1:s pod_namespace:2:s
GetPodResourcesResponse pod_resources:1:PodResources
""",
)
QPS, BURST = 100, 10
WITHIN_S = 30.0  # for what must come

GetMode = Literal["served", "disabled", "unimplemented"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device plugin's device; `numa` are the NUMA nodes that the plugin reported."""

    id: str
    numa: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A device of a claim, which is the pod's namespace's; `cdi` are whole CDI names."""

    claim: str
    driver: str
    pool: str
    device: str
    cdi: tuple[str, ...] = ()


Resources = Mapping[str, Sequence[Device | str]]  # resource name: its devices


@dataclass(kw_only=True)
class Pod:
    """What a pod was given, by container; `init` are the ordinary init containers."""

    uid: str
    containers: Mapping[str, Resources] = field(default_factory=dict)
    init: Mapping[str, Resources] = field(default_factory=dict)
    claims: Mapping[str, Sequence[Claimed]] = field(default_factory=dict)


class FakeKubelet:
    """Serves `socket` from start (or `with`) to stop. What it does may be changed at any time.

    `get`: disabled is 1.27 to 1.33 without the feature gate, unimplemented is older. `delay_s`
    holds each answer back, `failure` and `garbage` replace them, `limited` is the rate limit,
    `padding` adds so many other pods to a List,
    `forgetful` lists no devices, as a kubelet does until it has read its checkpoint. `asked` has
    the methods that were called.
    """

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "pod-resources/kubelet.sock"
        self.checkpoint = folder / "device-plugins/kubelet_internal_checkpoint"
        self.checkpoint_format: Literal[1, 2] = 2
        self.get: GetMode = "served"
        self.delay_s = 0.0
        self.failure: grpc.StatusCode | None = None
        self.garbage: bytes | None = None
        self.limited = True
        self.padding = 0
        self.forgetful = False
        self.asked: list[str] = []
        self.longest_answer = 0
        self.released = threading.Event()  # ends a delay early
        self._pods: dict[tuple[str, str], Pod] = {}
        self._entries: dict[str, Pod] = {}  # by UID, as the checkpoint has them
        self._tokens, self._filled = float(BURST), time.monotonic()
        self._server: grpc.Server | None = None
        self._lock = threading.Lock()
        self._called = threading.Condition(self._lock)
        for path in (self.socket, self.checkpoint):
            path.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self.stop()

    def start(self) -> None:
        """Serve; a socket that is in the way is replaced."""
        self.socket.unlink(missing_ok=True)
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers([self._methods()])
        assert self._server.add_insecure_port(f"unix://{self.socket}")
        self._server.start()

    def stop(self, *, stale: bool = False) -> None:
        """Serve no more; `stale` leaves a socket that nobody listens at, as a kill does."""
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None
        self.socket.unlink(missing_ok=True)
        if stale:
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(self.socket))

    def admit(self, namespace: str, name: str, pod: Pod) -> None:
        """Give a pod its devices: it replaces one of that name, whose devices stay in the
        checkpoint until they are released."""
        with self._lock:
            self._pods[namespace, name] = pod
            self._entries[pod.uid] = pod
            self._write_checkpoint()

    def release(self, namespace: str, name: str) -> None:
        """Forget a pod and its devices."""
        with self._lock:
            pod = self._pods.pop((namespace, name))
            self._entries.pop(pod.uid)
            self._write_checkpoint()

    def exhaust(self) -> None:
        """Have used up the calls that the rate limit allows at once."""
        with self._lock:
            self._tokens, self._filled = -20.0, time.monotonic()

    def wait_for_calls(self, count: int) -> None:
        with self._called:
            assert self._called.wait_for(lambda: len(self.asked) >= count, WITHIN_S)

    def _methods(self) -> Any:
        called = {"List": self._list, "Get": self._get}
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=_MESSAGES[f"{name}PodResourcesRequest"].FromString,
            )
            for name, method in called.items()
        }
        return grpc.method_handlers_generic_handler("v1.PodResourcesLister", handlers)

    def _list(self, request: Any, context: grpc.ServicerContext) -> bytes:
        self._begin("List", context)
        with self._lock:
            pods = [_pod_resources(*name, self._seen(pod)) for name, pod in self._pods.items()]
        response = _MESSAGES["ListPodResourcesResponse"]
        others = response(pod_resources=[_OTHER_POD]).SerializeToString() * self.padding
        return self._answer(response(pod_resources=pods), others)

    def _get(self, request: Any, context: grpc.ServicerContext) -> bytes:
        if self.get == "unimplemented":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method Get")
        self._begin("Get", context)
        if self.get == "disabled":
            context.abort(grpc.StatusCode.UNKNOWN, "PodResources API Get method disabled")
        name = (request.pod_namespace, request.pod_name)
        with self._lock:
            pod = self._pods.get(name)
        if pod is None:
            text = f"pod {name[1]} in namespace {name[0]} not found"
            context.abort(grpc.StatusCode.UNKNOWN, text)
            raise AssertionError
        answer = _MESSAGES["GetPodResourcesResponse"](
            pod_resources=_pod_resources(*name, self._seen(pod))
        )
        return self._answer(answer)

    def _seen(self, pod: Pod) -> Pod:
        if not self.forgetful:
            return pod
        return replace(pod, containers={name: {} for name in pod.containers})

    def _begin(self, method: str, context: grpc.ServicerContext) -> None:
        with self._lock:
            self.asked.append(method)
            self._called.notify_all()
            now = time.monotonic()
            self._tokens = min(BURST, self._tokens + (now - self._filled) * QPS)
            self._filled = now
            is_over = self.limited and self._tokens < 1
            self._tokens -= not is_over
        if is_over:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        if self.delay_s:
            self.released.wait(self.delay_s)
        if self.failure is not None:
            context.abort(self.failure, "as the test wants it")

    def _answer(self, message: Any, others: bytes = b"") -> bytes:
        content = message.SerializeToString() + others if self.garbage is None else self.garbage
        self.longest_answer = max(self.longest_answer, len(content))
        return content

    def _write_checkpoint(self) -> None:
        entries = [
            self._entry(uid, container, resource, devices)
            for uid, pod in self._entries.items()
            for container, resources in [*pod.init.items(), *pod.containers.items()]
            for resource, devices in resources.items()
        ]
        random.shuffle(entries)
        data: dict[str, Any] = {"PodDeviceEntries": entries or None, "RegisteredDevices": {}}
        temporary = self.checkpoint.with_name(".123")
        temporary.write_text(json.dumps({"Data": data, "Checksum": 2148539817}))
        temporary.rename(self.checkpoint)

    def _entry(
        self, uid: str, container: str, resource: str, devices: Sequence[Device | str]
    ) -> dict[str, Any]:
        by_node: dict[str, list[str]] = {}
        for device in map(_device, devices):
            for node in device.numa or (-1,):
                by_node.setdefault(str(node), []).append(device.id)
        flat = [device.id for device in map(_device, devices)]
        return {
            "PodUID": uid,
            "ContainerName": container,
            "ResourceName": resource,
            "DeviceIDs": by_node if self.checkpoint_format == 2 else flat,
            "AllocResp": "Cig=",
        }


def _device(device: Device | str) -> Device:
    return Device(id=device) if isinstance(device, str) else device


def _pod_resources(namespace: str, name: str, pod: Pod) -> Any:
    containers = dict.fromkeys([*pod.containers, *pod.claims])
    return _MESSAGES["PodResources"](
        name=name,
        namespace=namespace,
        containers=[
            _MESSAGES["ContainerResources"](
                name=container,
                devices=_container_devices(pod.containers.get(container, {})),
                dynamic_resources=_dynamic_resources(namespace, pod.claims.get(container, ())),
            )
            for container in containers
        ],
    )


def _container_devices(resources: Resources) -> list[Any]:
    entries = [
        _MESSAGES["ContainerDevices"](
            resource_name=resource,
            device_ids=[device.id],
            topology=None if node is None else {"nodes": [{"ID": node}]},
        )
        for resource, devices in resources.items()
        for device in map(_device, devices)
        for node in device.numa or (None,)
    ]
    random.shuffle(entries)
    return entries


def _dynamic_resources(namespace: str, claimed: Sequence[Claimed]) -> list[Any]:
    """As kubelets up to 1.36 do it, each device of a driver has its predecessors' CDI names too."""
    resources: dict[str, Any] = {}
    before: dict[tuple[str, str], list[dict[str, str]]] = {}
    for device in claimed:
        cdi = before.setdefault((device.claim, device.driver), [])
        cdi += [{"name": name} for name in device.cdi]
        entry = resources.setdefault(
            device.claim,
            _MESSAGES["DynamicResource"](claim_name=device.claim, claim_namespace=namespace),
        )
        entry.claim_resources.add(
            cdi_devices=cdi,
            driver_name=device.driver,
            pool_name=device.pool,
            device_name=device.device,
        )
    return list(resources.values())


_OTHER_POD = _pod_resources(
    "others",
    "pod",
    Pod(uid="", containers={"c": {"vendor.example/other": [f"other-{n}" for n in range(8)]}}),
)
