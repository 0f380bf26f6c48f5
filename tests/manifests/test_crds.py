"""crds/ on a real API server: what users have is accepted, what could never work is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane import objects
from tests.controlplane.client import ApiError, Client, JSONObject, collection
from tests.controlplane.cluster import Cluster
from tests.manifests.documents import CRDS, DEVICE_EXAMPLES, EXAMPLES, documents

pytestmark = pytest.mark.system

API = "/apis/k8s.cni.cncf.io"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MIB = 1 << 20
DRA_DRIVERS_OWN = "sriovnetwork.k8snetworkplumbingwg.io/v1alpha1"  # its chart brings the CRDs


def try_to_create(
    client: Client, resource: JSONObject, unknown_fields: str = "Ignore"
) -> JSONObject:
    """Return what the server would keep; raise ApiError."""
    query = f"dryRun=All&fieldValidation={unknown_fields}"
    return client.request("POST", f"{collection(resource)}?{query}", resource)


def config_of_length(length: int) -> str:
    empty = json.dumps({"type": "bridge", "note": ""})
    return json.dumps({"type": "bridge", "note": "x" * (length - len(empty))})


def columns(client: Client, path: str) -> list[tuple[str, list[Any]]]:
    """Return name and cells of each column, as kubectl would print them."""
    client._headers["Accept"] = "application/json;as=Table;v=v1;g=meta.k8s.io"
    table = client.get(path)
    cells = zip(*(row["cells"] for row in table["rows"]), strict=True)
    names = (column["name"] for column in table["columnDefinitions"])
    return [(name, list(values)) for name, values in zip(names, cells, strict=True)]


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.name)
def test_a_definition_is_established_and_without_complaint(cluster: Cluster, path: Path) -> None:
    (document,) = documents(path)
    status = cluster.admin.get(f"{DEFINITIONS}/{document['metadata']['name']}")["status"]
    conditions = {item["type"]: item["status"] for item in status["conditions"]}
    assert conditions == {"Established": "True", "NamesAccepted": "True"}


def test_kubectl_finds_the_kinds_by_their_short_names(cluster: Cluster) -> None:
    """NPWG-1: the custom resource network-attachment-definitions with short name net-attach-def."""
    (kind,) = cluster.admin.get(f"{API}/v1")["resources"]
    assert kind["kind"] == "NetworkAttachmentDefinition"
    assert kind["namespaced"]
    assert kind["shortNames"] == ["net-attach-def", "nad"]
    assert kind["categories"] == ["cni"]
    claims = cluster.admin.get(f"{API}/v1alpha1")["resources"]
    assert [kind["name"] for kind in claims] == ["ipamclaims", "ipamclaims/status"]


def test_kubectl_prints_a_networks_resource(cluster: Cluster) -> None:
    network = objects.net_attach_def("printed", {"type": "sriov"})
    network["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/resourceName": "example.com/vf"}
    cluster.admin.create(network)
    printed = dict(columns(cluster.client("admin"), objects.net_attach_defs()))
    cluster.admin.delete(f"{objects.net_attach_defs()}/printed")
    assert list(printed) == ["Name", "Resource", "Age", "Config"]
    assert printed["Resource"] == ["example.com/vf"]


@pytest.mark.parametrize("path", [*EXAMPLES, *DEVICE_EXAMPLES], ids=lambda path: path.name)
def test_every_example_is_accepted(cluster: Cluster, path: Path) -> None:
    for document in documents(path):
        if document["apiVersion"] == DRA_DRIVERS_OWN:
            continue
        document["metadata"].setdefault("namespace", "default")
        kept = try_to_create(cluster.admin, document, "Strict")
        assert kept.get("spec") or kept["data"]


def test_a_misspelt_key_of_an_example_would_be_told(cluster: Cluster) -> None:
    """What the strict check is worth: it reaches a claim's selectors, and their expressions."""
    (template,) = (
        document
        for path in DEVICE_EXAMPLES
        for document in documents(path)
        if document["kind"] == "ResourceClaimTemplate"
    )
    template["metadata"]["namespace"] = "default"
    exactly = template["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    exactly["selector"] = exactly["selectors"]
    with pytest.raises(ApiError, match="unknown field"):
        try_to_create(cluster.admin, template, "Strict")
    del exactly["selector"]
    exactly["selectors"][0]["cel"]["expression"] = "device.attribute"
    with pytest.raises(ApiError, match="expression"):
        try_to_create(cluster.admin, template, "Strict")


@pytest.mark.parametrize(
    "config",
    [
        None,
        "",
        '{"cniVersion": "0.3.1", "type": "macvlan"}',
        '\r\n\t {"cniVersion": "1.0.0", "plugins": [\n{"type": "bridge"}\n]} \n',
        '{"Type": "bridge"}',
        '{"name": "späth", "type": "ipvlan"}',
        config_of_length(MIB),
    ],
    ids=["missing", "empty", "conf", "conflist", "go-case", "not-ascii", "1-MiB"],
)
def test_what_multus_can_use_is_accepted_unchanged(cluster: Cluster, config: str | None) -> None:
    network = objects.net_attach_def("accepted", config)
    assert try_to_create(cluster.admin, network)["spec"] == network["spec"]


def test_a_definition_without_spec_is_accepted(cluster: Cluster) -> None:
    network = objects.net_attach_def("accepted")
    del network["spec"]
    assert "spec" not in try_to_create(cluster.admin, network)


def test_keys_of_somebody_elses_are_dropped_as_with_multus(cluster: Cluster) -> None:
    network = objects.net_attach_def("accepted", {"type": "bridge"})
    mixed = network | {"spec": network["spec"] | {"plugin": "bridge"}, "status": {"phase": "x"}}
    kept = try_to_create(cluster.admin, mixed)
    assert kept["spec"] == network["spec"]
    assert "status" not in kept


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("not JSON", "must be one JSON object"),
        ('[{"type": "bridge"}]', "must be one JSON object"),
        ('"type"', "must be one JSON object"),
        (' "type"}', "must be one JSON object"),
        ('{"type": "bridge"', "must be one JSON object"),
        ("{}", 'has no "type"'),
        ('{"cniVersion": "1.0.0", "plugins": []}', 'has no "type"'),
        (config_of_length(MIB + 1), "may not be more than 1048576 bytes"),
        (7, "must be of type string"),
        ({"type": "bridge"}, "must be of type string"),
        (["type"], "must be of type string"),
    ],
    ids=[
        *("text", "list", "string", "no-start", "no-end", "empty-object", "no-plugins"),
        *("over-1-MiB", "number", "object", "array"),
    ],
)
def test_what_could_never_be_attached_is_refused(
    cluster: Cluster, config: object, message: str
) -> None:
    network = objects.net_attach_def("refused") | {"spec": {"config": config}}
    with pytest.raises(ApiError) as caught:
        try_to_create(cluster.admin, network)
    assert caught.value.status == 422
    assert "spec.config" in caught.value.text
    assert message in json.loads(caught.value.text)["message"]


def claim(**spec: str) -> JSONObject:
    return {
        "apiVersion": "k8s.cni.cncf.io/v1alpha1",
        "kind": "IPAMClaim",
        "metadata": {"name": "vm-1", "namespace": "default"},
        "spec": spec,
    }


@pytest.mark.parametrize("missing", ["network", "interface"])
def test_a_claim_without_network_or_interface_is_refused(cluster: Cluster, missing: str) -> None:
    """NPWG 8: both are required."""
    spec = {"network": "storage", "interface": "net1"}
    del spec[missing]
    with pytest.raises(ApiError) as caught:
        try_to_create(cluster.admin, claim(**spec))
    assert f"spec.{missing}: Required value" in json.loads(caught.value.text)["message"]


def test_a_claims_status_is_the_ipam_plugins_and_keeps_what_it_adds(cluster: Cluster) -> None:
    """NPWG 8: status is a subresource."""
    addresses = {"ips": ["192.0.2.7/24", "2001:db8::7/64"], "ownerPod": {"name": "vm-1"}}
    created = cluster.admin.create(
        claim(network="storage", interface="net1") | {"status": addresses}
    )
    path = f"{API}/v1alpha1/namespaces/default/ipamclaims/vm-1"
    written = cluster.admin.patch(f"{path}/status", {"status": addresses})
    cluster.admin.delete(path)
    assert "status" not in created
    assert written["status"] == addresses
