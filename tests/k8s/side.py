"""A node's dealings with the API server in the test's process: `Side` runs the connection's event
loop in a thread, so that a test reads from top to bottom."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from metaplugin.attachments.devices import ResolvedDevice
from metaplugin.attachments.plan import PlannedAttachment
from metaplugin.attachments.record import MadeAttachment, Record
from metaplugin.attachments.runtime_conf import PodReference, RuntimeConf, Sandbox
from metaplugin.cni.configuration import parse_network_config
from metaplugin.cni.raw import dump
from metaplugin.cni.result import parse_result
from metaplugin.commands.ports import KnownPod, Name
from metaplugin.k8s.connection import ApiConnection
from metaplugin.npwg.definition import NetworkAttachmentDefinition
from metaplugin.npwg.status import STATUS_ANNOTATION
from tests.apiserver.resources import JSONObject
from tests.apiserver.server import ApiServer

NODE = "here"
WITHIN_S = 30.0  # for whatever must come
NETWORKS = "network-attachment-definitions"

T = TypeVar("T")


class Memory:
    """Remembers as state.db does, and has tests wait until the connection has learnt something."""

    def __init__(self) -> None:
        self.pods: dict[Name, KnownPod] = {}
        self.definitions: dict[Name, NetworkAttachmentDefinition] = {}
        self.claimed: dict[PodReference, tuple[ResolvedDevice, ...]] = {}
        self.used: dict[Name, NetworkAttachmentDefinition] = {}
        self.wholes: list[str] = []
        self._changed = threading.Condition()

    async def pod(self, reference: PodReference) -> KnownPod | None:
        return self.pods.get((reference.namespace, reference.name))

    async def definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None:
        return self.definitions.get((namespace, name))

    async def claimed_devices(self, pod: PodReference) -> tuple[ResolvedDevice, ...]:
        return self.claimed.get(pod, ())

    def learn_claimed_devices(self, pod: PodReference, devices: Sequence[ResolvedDevice]) -> None:
        self.claimed[pod] = tuple(devices)

    def learn_pods(self, pods: Mapping[Name, KnownPod | None]) -> None:
        self._learn(self.pods, pods)

    def learn_definitions(
        self, definitions: Mapping[Name, NetworkAttachmentDefinition | None]
    ) -> None:
        self._learn(self.definitions, definitions)

    def learn_all_pods(self, pods: Mapping[Name, KnownPod]) -> None:
        self.pods.clear()
        self._learn(self.pods, pods, whole="pods")

    def learn_all_definitions(
        self, definitions: Mapping[Name, NetworkAttachmentDefinition]
    ) -> None:
        self.definitions.clear()
        self._learn(self.definitions, definitions, whole="definitions")

    def learn_use(self, name: Name, definition: NetworkAttachmentDefinition | None) -> None:
        self._learn(self.used, {name: definition})

    async def used_definitions(self) -> Sequence[Name]:
        return tuple(self.used)

    def wait_for(self, condition: Callable[[], Any]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WITHIN_S), (self.pods, self.definitions)

    def knows_pod(self, name: str, uid: str) -> bool:
        known = self.pods.get(("default", name))
        return known is not None and known.uid == uid

    def _learn(self, held: dict[Name, T], news: Mapping[Name, T | None], whole: str = "") -> None:
        with self._changed:
            self.wholes += [whole] if whole else []
            for name, value in news.items():
                if value is None:
                    held.pop(name, None)
                else:
                    held[name] = value
            self._changed.notify_all()


class Side:
    """Follows the server from `with` on. What the flows would await is called from the test."""

    def __init__(
        self,
        kubeconfig: Path,
        *,
        memory: Memory | None = None,
        records: Iterable[Record] = (),
        namespaces: tuple[str, ...] = (),
        following: bool = True,
    ) -> None:
        self.memory = memory or Memory()
        self._kubeconfig = kubeconfig
        self._records = records
        self._namespaces = namespaces
        self._following = following
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="side")

    def __enter__(self) -> Self:
        self._thread.start()
        self.connection = self.run(self._connect())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WITHIN_S)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WITHIN_S)

    def begin(self, work: Coroutine[Any, Any, T]) -> Callable[[], T]:
        """Start `work`; what is returned waits for it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return lambda: future.result(WITHIN_S)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a method that never waits where the flows would: on the loop."""

        async def called() -> T:
            return function(*arguments)

        return self.run(called())

    def pod(self, name: str, uid: str = "") -> KnownPod | None:
        return self.run(self.connection.cluster.pod(reference(name, uid)))

    def definition(
        self, name: str, namespace: str = "default"
    ) -> NetworkAttachmentDefinition | None:
        return self.run(self.connection.cluster.definition(namespace, name))

    def publish(self, record: Record) -> None:
        self.run(self.connection.status.publish(record))

    def synced(self) -> Self:
        """Wait until pods and definitions have been listed and remembered."""
        self.memory.wait_for(lambda: {"pods", "definitions"} <= set(self.memory.wholes))
        return self

    async def _connect(self) -> ApiConnection:
        connection = ApiConnection(
            kubeconfig=self._kubeconfig,
            node_name=NODE,
            definition_namespaces=self._namespaces,
            memory=self.memory,
            learner=self.memory,
            claim_memory=self.memory,
        )
        if self._following:
            connection.start(self._records)
        return connection

    async def _close(self) -> None:
        await self.connection.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)  # a watch may begin another


def reference(name: str, uid: str = "") -> PodReference:
    return PodReference(namespace="default", name=name, uid=uid)


def pod(name: str, *, uid: str = "", node: str = NODE, **annotations: str) -> JSONObject:
    """Return a pod; its networks as `networks=`, other annotations by their whole names."""
    kept = {
        "k8s.v1.cni.cncf.io/networks" if k == "networks" else k: v for k, v in annotations.items()
    }
    metadata = {"name": name, "annotations": kept, **({"uid": uid} if uid else {})}
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}}


def definition(name: str, config: Any = None, namespace: str = "default") -> JSONObject:
    config = {"cniVersion": "1.0.0", "type": "noop"} if config is None else config
    return {
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"config": config if isinstance(config, str) else json.dumps(config)},
    }


def record(
    name: str, uid: str, *, status: str = '[{"name": "a"}]', extra: bool = True, **values: Any
) -> Record:
    """Return a complete record of a pod with a default network and, if `extra`, net1."""
    networks = [("cbr0", "eth0", "10.1.1.2/24"), ("default/lan", "net1", "10.1.1.3/24")]
    made = tuple(_made(*network) for network in networks[: 2 if extra else 1])
    defaults: dict[str, Any] = {
        "generation": f"generation-{uid}",
        "sandbox": Sandbox(container_id=f"c-{name}-{uid}", netns="/run/netns/x"),
        "ifname": "eth0",
        "network": "outer",
        "runtime": "/usr/bin/containerd",
        "pod": reference(name, uid),
        "created": 1.0,
        "attachments": made,
        "complete": True,
        "status": status,
    }
    return Record(**(defaults | values))


def _made(network: str, ifname: str, address: str) -> MadeAttachment:
    config = {"cniVersion": "1.0.0", "name": network.rpartition("/")[2], "type": "noop"}
    raw = {"cniVersion": "1.0.0", "ips": [{"address": address}]}
    result = parse_result(dump(raw), configured_version="1.0.0", where="test")
    planned = PlannedAttachment(
        name=network,
        config=parse_network_config(config, where="test"),
        runtime=RuntimeConf(ifname=ifname),
        default=ifname == "eth0",
    )
    return MadeAttachment(planned=planned, own=result, result=result)


def status_of(server: ApiServer, name: str) -> str | None:
    annotations = server.get("Pod", "default", name)["metadata"].get("annotations") or {}
    status = annotations.get(STATUS_ANNOTATION)
    assert isinstance(status, str | None)
    return status
