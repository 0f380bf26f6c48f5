"""What is kept of pods and net-attach-defs, and where they are on the server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject
from metaplugin.commands.ports import KnownPod, Name
from metaplugin.k8s.reflector import Resource
from metaplugin.npwg.definition import NetworkAttachmentDefinition, definition_from_object
from metaplugin.npwg.status import STATUS_ANNOTATION


@dataclass(frozen=True, slots=True)
class Malformed:
    """A definition that can't be used, kept as what is wrong with it: only a pod that selects it is
    told. (An exception would keep the whole object, by its trace.)"""

    problem: str


Definition = NetworkAttachmentDefinition | Malformed

# How much memory a list needs at its height: parsed, a definition takes some 10 KB, a pod 50 KB.
DEFINITIONS_PAGE, PODS_PAGE = 500, 100

_KEPT_PREFIXES = ("k8s.v1.cni.cncf.io/", "v1.multus-cni.io/", "kubernetes.io/config.")
_NONE: dict[str, str] = {}
_DEFINITIONS = "network-attachment-definitions"
_GROUP = "/apis/k8s.cni.cncf.io/v1"


def pods_of_node(node_name: str) -> Resource[KnownPod]:
    return Resource(
        path="/api/v1/pods",
        slim=slim_pod,
        page=PODS_PAGE,
        query=(("fieldSelector", f"spec.nodeName={node_name}"),),
    )


def definitions_of(namespaces: Sequence[str]) -> tuple[Resource[Definition], ...]:
    """Return the definitions of these namespaces, or of all when none is given."""
    if not namespaces:
        path = f"{_GROUP}/{_DEFINITIONS}"
        return (Resource(path=path, slim=slim_definition, page=DEFINITIONS_PAGE),)
    return tuple(
        Resource(
            path=f"{_GROUP}/namespaces/{namespace}/{_DEFINITIONS}",
            slim=slim_definition,
            page=DEFINITIONS_PAGE,
            namespace=namespace,
        )
        for namespace in namespaces
    )


def pod_path(name: Name, subresource: str = "") -> str:
    namespace, pod = map(quoted, name)
    return f"/api/v1/namespaces/{namespace}/pods/{pod}{subresource}"


def definition_path(name: Name) -> str:
    namespace, definition = map(quoted, name)
    return f"{_GROUP}/namespaces/{namespace}/{_DEFINITIONS}/{definition}"


def node_path(name: str) -> str:
    return f"/api/v1/nodes/{quoted(name)}"


def events_path(namespace: str) -> str:
    return f"/api/v1/namespaces/{quoted(namespace)}/events"


def slim_pod(item: JSONObject) -> KnownPod:
    metadata = item["metadata"]
    annotations = _kept(metadata.get("annotations"))
    return KnownPod(
        uid=str(metadata.get("uid") or ""),
        annotations={k: v for k, v in annotations.items() if k != STATUS_ANNOTATION},
        network_status=annotations.get(STATUS_ANNOTATION, ""),
        attached=_is_attached(item),
        replaced=any(
            owner.get("controller") and owner.get("kind") != "Node"  # a mirror pod's
            for owner in metadata.get("ownerReferences") or ()
        ),
    )


def _is_attached(item: JSONObject) -> bool:
    """Say whether the pod lives in a network namespace of its own: the kubelet tells an address as
    soon as the sandbox has one, while init containers run too."""
    status, spec = item.get("status") or {}, item.get("spec") or {}
    over = status.get("phase") in ("Succeeded", "Failed") or item["metadata"].get(
        "deletionTimestamp"
    )
    return bool(status.get("podIP")) and not over and not spec.get("hostNetwork")


def slim_definition(item: JSONObject) -> Definition:
    metadata = item["metadata"]
    slim = {key: metadata.get(key) for key in ("namespace", "name", "uid", "resourceVersion")}
    slim["annotations"] = _kept(metadata.get("annotations"))
    try:
        return definition_from_object({"metadata": slim, "spec": item.get("spec")})
    except InvalidNetworkConfig as exc:
        return Malformed(exc.msg)


def _kept(annotations: Any) -> dict[str, str]:
    """Return the annotations that matter, not to be changed: most objects share an empty one."""
    if not isinstance(annotations, dict):
        return _NONE
    kept = {
        sys.intern(key): value
        for key, value in annotations.items()
        if isinstance(value, str) and key.startswith(_KEPT_PREFIXES)
    }
    return kept or _NONE


def quoted(part: str) -> str:
    """Return a path's segment: names come from CNI_ARGS and annotations, and may not add any."""
    return quote(part, safe="") if part.strip(".") else "%2E"
