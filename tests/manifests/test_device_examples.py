"""examples/devices/: pools, networks and pods fit one another, and what the README shows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metaplugin.attachments.plan import interface_names
from metaplugin.npwg.definition import definition_from_object
from metaplugin.npwg.device_info import parse_device_info
from metaplugin.npwg.selection import parse_networks_annotation
from tests.manifests.documents import DEVICE_EXAMPLES, documents
from tests.manifests.test_examples import NETWORKS, networks, pods

README = (DEVICE_EXAMPLES[0].parent / "README.md").read_text()
SELECTORS = {
    *("vendors", "devices", "drivers", "pfNames", "linkTypes", "isRdma", "needVhostNet"),
    *("vdpaType", "rootDevices", "pciAddresses", "ddpProfiles", "pKeys", "acpiIndexes"),
}
POOL_KEYS = {"resourceName", "resourcePrefix", "selectors"}
RESOURCE_ATTRIBUTE = "k8s.cni.cncf.io/resourceName"

each_example = pytest.mark.parametrize("path", DEVICE_EXAMPLES, ids=lambda path: path.name)


def pools(path: Path) -> list[dict[str, Any]]:
    """Return the pools of the file's device plugin configuration."""
    found = []
    for document in documents(path):
        if document["kind"] == "ConfigMap":
            assert document["metadata"] == {"name": "sriovdp-config", "namespace": "kube-system"}
            found += json.loads(document["data"]["config.json"])["resourceList"]
    return found


def resource_of(pool: dict[str, Any]) -> str:
    return f"{pool['resourcePrefix']}/{pool['resourceName']}"


def offered(path: Path) -> set[str]:
    """Return the resources that a device plugin or a DRA driver has by the file."""
    attributes = [
        document["spec"]["attributes"][RESOURCE_ATTRIBUTE]["string"]
        for document in documents(path)
        if document["kind"] == "DeviceAttributes"
    ]
    return {*map(resource_of, pools(path)), *attributes}


def resources(path: Path) -> dict[str, str | None]:
    """Return each network's resource."""
    return {
        document["metadata"]["name"]: definition_from_object(document).resource_name
        for document in documents(path)
        if document["kind"] == "NetworkAttachmentDefinition"
    }


def elements(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the selection as JSON has it, with keys that only we know, each with its interface."""
    text = pod["metadata"]["annotations"][NETWORKS]
    parsed = parse_networks_annotation(text, pod_namespace="default")
    raw = json.loads(text) if text.startswith("[") else [{} for _ in parsed]
    names = interface_names("eth0", [element.interface for element in parsed])
    return [
        item | {"name": element.name, "interface": name}
        for item, element, name in zip(raw, parsed, names, strict=True)
    ]


def requested(container: dict[str, Any]) -> Counter[str]:
    limits = container["resources"].get("limits", {})
    assert container["resources"].get("requests", {}) == limits  # devices: Kubernetes wants that
    return Counter({name: int(n) for name, n in limits.items() if "." in name})


def claims(container: dict[str, Any]) -> set[str]:
    return {claim["name"] for claim in container["resources"].get("claims", ())}


def virtual_functions(pool: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield physical function and index of each device of a pool (`ens1f0#0-3`)."""
    for selector in pool["selectors"]:
        for text in selector["pfNames"]:
            port, first, last = re.fullmatch(r"(\w+)#(\d+)-(\d+)", text).groups()  # type: ignore[union-attr]  # an error is as good
            for index in range(int(first), int(last) + 1):
                yield port, index


@each_example
def test_a_device_plugins_configuration_has_keys_that_it_knows(path: Path) -> None:
    for pool in pools(path):
        assert set(pool) == POOL_KEYS
        assert re.fullmatch(r"\w+", pool["resourceName"])
        for selector in pool["selectors"]:
            assert set(selector) <= SELECTORS


@each_example
def test_every_network_of_devices_has_a_pool_and_every_pool_a_network(path: Path) -> None:
    named = {resource for resource in resources(path).values() if resource}
    assert named
    assert named == offered(path)


@each_example
def test_a_pod_asks_for_as_many_devices_as_it_has_networks(path: Path) -> None:
    """DEV-2: each attachment takes one; a claim's request stands for one as well."""
    for pod in pods(path):
        containers = pod["spec"]["containers"]
        have = sum((requested(container) for container in containers), Counter())
        need = Counter(
            resource
            for element in elements(pod)
            if (resource := resources(path)[element["name"]]) and "claim" not in element
        )
        assert need == have, pod["metadata"]["name"]


@each_example
def test_a_container_that_is_named_asks_for_the_device(path: Path) -> None:
    for pod in pods(path):
        by_name = {container["name"]: container for container in pod["spec"]["containers"]}
        named = [element for element in elements(pod) if "container" in element]
        need = Counter((e["container"], resources(path)[e["name"]]) for e in named)
        for (container, resource), count in need.items():
            assert requested(by_name[container])[str(resource)] == count


@each_example
def test_a_claim_that_is_named_is_the_pods_and_has_the_request(path: Path) -> None:
    templates = {
        document["metadata"]["name"]: document["spec"]["spec"]["devices"]["requests"]
        for document in documents(path)
        if document["kind"] == "ResourceClaimTemplate"
    }
    for pod in pods(path):
        mine = {
            claim["name"]: templates[claim["resourceClaimTemplateName"]]
            for claim in pod["spec"].get("resourceClaims", ())
        }
        used = set[str]().union(*(claims(container) for container in pod["spec"]["containers"]))
        named = [(e["claim"], e["request"]) for e in elements(pod) if "claim" in e]
        there = [(claim, request["name"]) for claim in mine for request in mine[claim]]
        assert sorted(named) == sorted(there)
        assert used == set(mine)
        for requests in mine.values():
            for request in requests:
                (selector,) = request["exactly"]["selectors"]
                (resource,) = {resources(path)[element["name"]] for element in elements(pod)}
                assert f'resourceName == "{resource}"' in selector["cel"]["expression"]


@each_example
def test_a_bonds_links_are_what_comes_before_it(path: Path) -> None:
    for pod in pods(path):
        before: list[str] = []
        for element in elements(pod):
            for plugin in networks(path)[element["name"]].plugins:
                if plugin.type == "bond":
                    assert plugin.raw["linksInContainer"] is True
                    assert [link["name"] for link in plugin.raw["links"]] == before
            before.append(element["interface"])


def test_no_device_is_in_two_pools() -> None:
    found = [
        device for path in DEVICE_EXAMPLES for p in pools(path) for device in virtual_functions(p)
    ]
    assert found
    assert [device for device, count in Counter(found).items() if count > 1] == []
    names = [resource_of(pool) for path in DEVICE_EXAMPLES for pool in pools(path)]
    assert sorted(set(names)) == sorted(names)


def shown_entries() -> list[dict[str, Any]]:
    """Return the network-status entries of devices that the README shows."""
    blocks = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    entries = [entry for block in blocks for entry in json.loads(block)]
    return [entry for entry in entries if "/" in entry["name"]]


def test_the_readme_shows_the_status_of_networks_that_there_are() -> None:
    """DEV-7, NPWG-48."""
    there = {name: path for path in DEVICE_EXAMPLES for name in resources(path)}
    shown = shown_entries()
    assert len(shown) >= 6
    for entry in shown:
        name = entry["name"].removeprefix("default/")
        (pod, *_) = pods(there[name])
        assert entry["interface"] in {e["interface"] for e in elements(pod) if e["name"] == name}
        if resources(there[name])[name]:
            info = parse_device_info(entry["device-info"], where=name)
            assert info[info["type"]]["pci-address"]
        else:
            assert "device-info" not in entry


def test_the_readme_names_variables_of_resources_that_there_are() -> None:
    every = {resource_of(pool) for path in DEVICE_EXAMPLES for pool in pools(path)}
    variables = {"PCIDEVICE_" + re.sub(r"[./]", "_", name).upper() for name in every}
    shown = re.findall(r"^(PCIDEVICE_\w+?)(_INFO)?=(.*)$", README, re.MULTILINE)
    assert {name for name, _, _ in shown} <= variables
    values = {(name, info): value for name, info, value in shown}
    infos = [(name, value) for (name, info), value in values.items() if info]
    assert infos
    for name, value in infos:
        assert list(json.loads(value)) == [values[name, ""]]


def test_an_example_without_a_device_plugin_says_so() -> None:
    """Each brings its device plugin's configuration, but where a DRA driver takes its place."""
    assert [path.name for path in DEVICE_EXAMPLES if not pools(path)] == ["dra.yaml"]
