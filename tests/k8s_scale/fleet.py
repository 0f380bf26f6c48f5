"""A large cluster's objects, as large as real ones are: with what `kubectl apply` and the server
add."""

from __future__ import annotations

import json
from typing import Any

from tests.controlplane import objects

JSONObject = dict[str, Any]

NODE_NAME = "node-1"
DEFINITIONS, PODS = 10_000, 500
NAMESPACES = 100
MTU = 1500
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
RESOURCE_NAME = "k8s.v1.cni.cncf.io/resourceName"


def namespaces() -> list[JSONObject]:
    return [objects.namespace(f"team-{number}") for number in range(NAMESPACES)]


def definitions(count: int) -> list[JSONObject]:
    return [definition(number) for number in range(count)]


def definition(number: int, revision: int = 0) -> JSONObject:
    """Return one of many networks, each with a configuration of its own; every tenth hands out
    devices."""
    network = objects.net_attach_def(
        f"network-{number:05}", config(number, revision), in_namespace=f"team-{number % NAMESPACES}"
    )
    annotations = {APPLIED: json.dumps(network)}
    if number % 10 == 0:
        annotations[RESOURCE_NAME] = f"vendor.example/pool{number % 7}"
    network["metadata"]["annotations"] = annotations
    return network


def config(number: int, revision: int) -> JSONObject:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": f"10.{number >> 8}.{number & 255}.0/24"}]],
        "routes": [{"dst": "192.168.0.0/16", "gw": f"10.{number >> 8}.{number & 255}.1"}],
    }
    plugin = {
        "type": "macvlan",
        "master": f"eth1.{number % 4094}",
        "mode": "bridge",
        "mtu": MTU + revision,
        "capabilities": {"ips": True, "mac": True},
        "ipam": ipam,
    }
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_ignore": "1"}}
    return {"cniVersion": "1.0.0", "plugins": [plugin, tuning]}


def pods(count: int) -> list[JSONObject]:
    """Return this node's pods, each with two networks and a page of environment."""
    return [pod(number) for number in range(count)]


def pod(number: int) -> JSONObject:
    namespace = f"team-{number % NAMESPACES}"
    made = objects.pod(
        f"pod-{number:03}",
        f"network-{number % NAMESPACES:05}, network-{number % NAMESPACES + NAMESPACES:05}",
        node=NODE_NAME,
        in_namespace=namespace,
    )
    container = made["spec"]["containers"][0]
    container["env"] = [{"name": f"SETTING_{n}", "value": f"value-{n}" * 4} for n in range(50)]
    return made


def as_stored(resource: JSONObject) -> JSONObject:
    """Return the object with what a real server notes about who manages its fields."""
    metadata, spec = resource["metadata"], resource["spec"]
    annotations: JSONObject = {f"f:{key}": {} for key in metadata.get("annotations", {})}
    fields = {
        "f:metadata": {"f:annotations": {".": {}} | annotations},
        "f:spec": {".": {}} | {f"f:{key}": {} for key in spec},
    }
    managed = {
        "manager": "kubectl-client-side-apply",
        "operation": "Update",
        "apiVersion": resource["apiVersion"],
        "time": "2026-11-25T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    return resource | {"metadata": metadata | {"generation": 1, "managedFields": [managed]}}
