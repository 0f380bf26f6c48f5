"""A recording node whose cluster is an API server in the test: pods and net-attach-defs there, and
what a node tells it: network-status, events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.apiserver.server import ApiServer
from tests.system.node import Node, Pod, Reply

NODE_NAME = "node-1"
NETWORKS_ANNOTATION = "k8s.v1.cni.cncf.io/networks"
STATUS_ANNOTATION = "k8s.v1.cni.cncf.io/network-status"

JSONObject = dict[str, Any]


def recording(node: Node, name: str, *addresses: str, **keys: Any) -> JSONObject:
    """Return a network of the recording plugin whose ADD gives these addresses, by its
    interface."""
    plugin = {"type": "noop", "log": str(node.root / "noop.log"), **keys}
    if addresses:
        plugin["result"] = {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": keys.get("reports", "eth0"), "sandbox": "/run/netns/pod"}],
            "ips": [{"address": address, "interface": 0} for address in addresses],
        }
    return {"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}


@dataclass
class ClusterNode:
    """A node and the API server that it follows."""

    node: Node
    server: ApiServer

    def define(
        self,
        name: str,
        config: JSONObject | str | None,
        *,
        namespace: str = "default",
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Put a net-attach-def; `config` None leaves its spec empty."""
        text = config if isinstance(config, str) else json.dumps(config)
        self.server.put(
            {
                "kind": "NetworkAttachmentDefinition",
                "metadata": {
                    "namespace": namespace,
                    "name": name,
                    "annotations": dict(annotations or {}),
                },
                "spec": {} if config is None else {"config": text},
            }
        )

    def pod(
        self,
        networks: str = "",
        *,
        annotations: Mapping[str, str] | None = None,
        exists: bool = True,
        object_uid: str = "",
        **values: Any,
    ) -> Pod:
        """Make a sandbox and the pod's object; the runtime passes no annotations on.

        `object_uid` is the object's, where it isn't the one that the runtime names.
        """
        pod = self.node.pod(None, **{"uid": "u1", **values})
        if exists:
            self.create(pod, networks, annotations=annotations, object_uid=object_uid)
        return pod

    def create(
        self,
        pod: Pod,
        networks: str,
        *,
        annotations: Mapping[str, str] | None = None,
        object_uid: str = "",
    ) -> None:
        given = {NETWORKS_ANNOTATION: networks} if networks else {}
        metadata = {
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": object_uid or pod.uid or "u1",
            "annotations": given | dict(annotations or {}),
        }
        self.server.put({"kind": "Pod", "metadata": metadata, "spec": {"nodeName": NODE_NAME}})

    def add(self, pod: Pod, **extra: Any) -> Reply:
        """Have the runtime add the pod, `extra` in its configuration."""
        return self.node.add(pod, stdin=self.node.stdin(pod, **extra) if extra else None)

    def calls(self) -> list[tuple[str, str, str]]:
        """Return command, interface and network of each of the recording plugin's calls."""
        return [
            (
                call["command"],
                call["env"].get("CNI_IFNAME", ""),
                json.loads(call["stdin"])["name"],
            )
            for call in self.node.noop_calls()
        ]

    def status(self, pod: Pod) -> list[JSONObject]:
        """Return the pod's network-status, as soon as there is one."""
        self.server.wait_for(lambda: STATUS_ANNOTATION in self._annotations(pod))
        parsed = json.loads(self._annotations(pod)[STATUS_ANNOTATION])
        assert isinstance(parsed, list)
        return parsed

    def events(self, pod: Pod, count: int) -> list[str]:
        """Return the pod's events as soon as there are so many, by what they say."""
        self.server.wait_for(lambda: len(self._events(pod)) >= count)
        return sorted(
            f"{event['type']} {event['reason']} {event['message']}" for event in self._events(pod)
        )

    def _annotations(self, pod: Pod) -> JSONObject:
        found = self.server.get("Pod", pod.namespace, pod.name)["metadata"].get("annotations", {})
        assert isinstance(found, dict)
        return found

    def _events(self, pod: Pod) -> list[JSONObject]:
        events = self.server.objects("Event")
        return [event for event in events if event["involvedObject"]["name"] == pod.name]
