"""Every file in examples/ parses strictly, and asks only for what it defines itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metaplugin.cni.configuration import NetworkConfigList, parse_network_config
from metaplugin.daemon.config import load_config
from metaplugin.demo.cluster import read_examples
from metaplugin.npwg.definition import definition_from_object, parse_definition_config
from metaplugin.npwg.selection import parse_networks_annotation, undeclared_capabilities
from tests.manifests.documents import DEVICE_EXAMPLES, EXAMPLES, ROOT, documents

FOLDER = ROOT / "examples"
MANIFESTS = [*EXAMPLES, *DEVICE_EXAMPLES]
API_VERSIONS = {
    "Pod": "v1",
    "ConfigMap": "v1",
    "NetworkAttachmentDefinition": "k8s.cni.cncf.io/v1",
    "ResourceClaimTemplate": "resource.k8s.io/v1",
    "DeviceAttributes": "sriovnetwork.k8snetworkplumbingwg.io/v1alpha1",
    "SriovResourcePolicy": "sriovnetwork.k8snetworkplumbingwg.io/v1alpha1",
}
NETWORKS = "k8s.v1.cni.cncf.io/networks"
RESOURCE = "k8s.v1.cni.cncf.io/resourceName"

each_manifest = pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)


def pods(path: Path) -> list[dict[str, Any]]:
    return [document for document in documents(path) if document["kind"] == "Pod"]


def networks(path: Path) -> dict[str, NetworkConfigList]:
    """Return the file's networks by name, as the daemon reads them."""
    found = {}
    for document in documents(path):
        if document["kind"] == "NetworkAttachmentDefinition":
            named = document | {"metadata": {"namespace": "default"} | document["metadata"]}
            definition = definition_from_object(named)
            found[definition.name] = parse_definition_config(definition)
    return found


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6
    assert len(DEVICE_EXAMPLES) >= 8


@each_manifest
def test_every_document_is_of_a_known_kind(path: Path) -> None:
    for document in documents(path):
        assert API_VERSIONS[document["kind"]] == document["apiVersion"]
        content = "data" if document["kind"] == "ConfigMap" else "spec"
        assert {"apiVersion", "kind", "metadata", content} == set(document)


@each_manifest
def test_a_comment_says_what_a_file_shows_and_how_it_is_used(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert f"#   kubectl apply -f {path.name}" in lines


@each_manifest
def test_each_selected_network_is_defined_in_the_same_file_and_honours_the_request(
    path: Path,
) -> None:
    defined, selected = networks(path), set()
    for pod in pods(path):
        annotation = pod["metadata"].get("annotations", {}).get(NETWORKS, "")
        for element in parse_networks_annotation(annotation, pod_namespace="default"):
            assert not undeclared_capabilities(element, defined[element.name])
            selected.add(element.name)
    assert set(defined) == selected


def test_names_are_unique_over_all_files() -> None:
    names = [
        (document["kind"], document["metadata"]["name"])
        for path in MANIFESTS
        for document in documents(path)
        if document["kind"] != "ConfigMap"  # the device plugin has one file: its name is given
    ]
    assert sorted(set(names)) == sorted(names)


@each_manifest
def test_the_readme_lists_every_example(path: Path) -> None:
    assert f"[{path.name}]({path.name})" in (path.parent / "README.md").read_text()


def test_the_demo_takes_none_that_needs_hardware() -> None:
    shown = {example.file for example in read_examples(FOLDER)}
    assert shown == {path.name for path in EXAMPLES}
    assert not any(RESOURCE in path.read_text() for path in EXAMPLES)


def test_the_runtimes_configuration_calls_metaplugin_with_what_it_needs() -> None:
    path = FOLDER / "cluster" / "metaplugin.conflist"
    (plugin,) = parse_network_config(json.loads(path.read_text()), where=path.name).plugins
    assert plugin.type == "metaplugin"
    assert {"portMappings", "bandwidth", "io.kubernetes.cri.pod-annotations"} == plugin.capabilities


def test_the_default_network_is_the_one_that_the_daemon_is_told_of() -> None:
    path = FOLDER / "cluster" / "default-network.conflist"
    default = parse_network_config(json.loads(path.read_text()), where=path.name)
    config = load_config(FOLDER / "cluster" / "daemon.yaml")
    assert default.name == config.cluster_network
    assert default.declares("portMappings")
    assert default.declares("bandwidth")
