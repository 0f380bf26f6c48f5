"""The examples as a cluster would hold them: pods, and what each of them asks for."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from metaplugin.demo.claims import NotSoError

NETWORKS = "k8s.v1.cni.cncf.io/networks"
INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
UNLIMITED_BURST = 2**32 - 1  # what containerd asks for
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One network that a pod selects. `gateways` is None unless it shall have the default route."""

    network: str
    ifname: str
    ips: tuple[str, ...] = ()
    mac: str = ""
    gateways: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod and what it asks for: networks by its annotation, the rest through the runtime."""

    namespace: str
    name: str
    annotations: dict[str, str]
    wishes: tuple[Wish, ...]
    port_mappings: tuple[dict[str, Any], ...]
    bandwidth: dict[str, int]
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A file of examples/; its first line is the title."""

    title: str
    file: str
    pods: tuple[Pod, ...]


def read_examples(folder: Path) -> tuple[Example, ...]:
    """Return the folder's examples in the order of their names; raise NotSoError without any."""
    examples = tuple(_example(path) for path in sorted(folder.glob("*.yaml")))
    if not any(example.pods for example in examples):
        raise NotSoError(f"{folder}: no pods in there")
    return examples


def _example(path: Path) -> Example:
    text = path.read_text()
    documents = [document for document in yaml.safe_load_all(text) if document]
    return Example(
        title=text.splitlines()[0].lstrip("# "),
        file=path.name,
        pods=tuple(_pod(document) for document in documents if document["kind"] == "Pod"),
    )


def _pod(document: dict[str, Any]) -> Pod:
    metadata = document["metadata"]
    annotations = metadata.get("annotations", {})
    namespace = metadata.get("namespace", "default")
    containers = document["spec"]["containers"]
    ports = [port for container in containers for port in container.get("ports", ())]
    return Pod(
        namespace=namespace,
        name=metadata["name"],
        annotations=annotations,
        wishes=_wishes(annotations.get(NETWORKS, ""), namespace),
        port_mappings=tuple(_port_mapping(port) for port in ports if "hostPort" in port),
        bandwidth=_bandwidth(annotations),
    )


def _wishes(annotation: str, namespace: str) -> tuple[Wish, ...]:
    """Return the selected networks, from JSON or from `[namespace/]name[@interface], …`; none of
    what is neither, which the daemon refuses in its own words."""
    return tuple(
        Wish(
            network=f"{element.get('namespace') or namespace}/{element['name']}",
            ifname=element.get("interface") or f"net{position}",
            ips=tuple(element.get("ips", ())),
            mac=element.get("mac", ""),
            gateways=tuple(element["default-route"]) if "default-route" in element else None,
        )
        for position, element in enumerate(_elements(annotation), start=1)
        if isinstance(element, dict) and "name" in element
    )


def _elements(annotation: str) -> list[Any]:
    if not annotation.lstrip().startswith("["):
        parts = annotation.split(",")
        return [_short_element(part.strip()) for part in parts if part.strip()]
    try:
        return list(json.loads(annotation))
    except ValueError:
        return []


def _short_element(text: str) -> dict[str, str]:
    network, _, ifname = text.partition("@")
    namespace, _, name = network.rpartition("/")
    return {"namespace": namespace, "name": name, "interface": ifname}


def _port_mapping(port: dict[str, Any]) -> dict[str, Any]:
    return {
        "hostPort": port["hostPort"],
        "containerPort": port["containerPort"],
        "protocol": port.get("protocol", "TCP").lower(),
        "hostIP": port.get("hostIP", ""),
    }


def _bandwidth(annotations: dict[str, str]) -> dict[str, int]:
    """Return the runtime's `bandwidth`, in bits a second, for those directions that are limited."""
    asked = {"ingress": annotations.get(INGRESS), "egress": annotations.get(EGRESS)}
    limits: dict[str, int] = {}
    for direction, quantity in asked.items():
        if quantity is not None:
            limits[f"{direction}Rate"] = _quantity(quantity)
            limits[f"{direction}Burst"] = UNLIMITED_BURST
    return limits


def _quantity(text: str) -> int:
    match = re.fullmatch(r"(\d+)([kMG]|[KMG]i)?", text)
    if match is None:
        raise NotSoError(f"{text!r} is no bandwidth that the demo understands, like 10M")
    return int(match[1]) * _UNITS[match[2] or ""]
