"""Devices of ResourceClaims, looked up on a real API server with the rights of
deploy/base/rbac.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metaplugin.attachments.devices import ClaimedDevice, ResolvedDevice
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import TryAgainLater
from tests.controlplane import objects
from tests.controlplane.cluster import Cluster
from tests.controlplane.objects import JSONObject
from tests.controlplane.proxy import FaultProxy
from tests.k8s.side import NODE, Side

pytestmark = pytest.mark.system

API = "resource.k8s.io/v1"
CLAIMS = f"/apis/{API}/namespaces/default/resourceclaims"
SLICES = f"/apis/{API}/resourceslices"
DRIVER = "sriov.example"
NETWORK = "k8s.cni.cncf.io"


def text(value: str) -> JSONObject:
    return {"string": value}


DEVICES: dict[str, JSONObject] = {
    "vf-0": {
        f"{NETWORK}/deviceID": text("0000:3b:02.0"),
        f"{NETWORK}/resourceName": text("vendor.example/vf"),
        "resource.kubernetes.io/pciBusID": text("0000:ff:00.0"),
    },
    "vf-1": {"resource.kubernetes.io/pciBusID": text("0000:3b:02.1"), "numa": {"int": 1}},
    "vf-2": {"model": text("some")},
}


def resource_slice(name: str, devices: dict[str, JSONObject], **spec: Any) -> JSONObject:
    where = {} if "allNodes" in spec else {"nodeName": NODE}
    pool = {"name": NODE, "generation": 1, "resourceSliceCount": 1}
    listed = [{"name": device, "attributes": given} for device, given in devices.items()]
    return {
        "apiVersion": API,
        "kind": "ResourceSlice",
        "metadata": {"name": name},
        "spec": {"driver": DRIVER, "pool": pool, "devices": listed, **where, **spec},
    }


def claim(name: str) -> JSONObject:
    return {
        "apiVersion": API,
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "devices": {
                "requests": [{"name": "nic", "exactly": {"deviceClassName": "any", "count": 2}}]
            }
        },
    }


def result(device: str, **values: Any) -> JSONObject:
    return {"driver": DRIVER, "pool": NODE, "device": device, "request": "nic", **values}


def pod_with_claims(name: str) -> JSONObject:
    made = objects.pod(name, node=NODE)
    made["spec"]["resourceClaims"] = [
        {"name": "mine", "resourceClaimTemplateName": "any"},
        {"name": "shared", "resourceClaimName": "for-all"},
    ]
    claims = [{"name": "mine"}, {"name": "shared"}]
    made["spec"]["containers"][0]["resources"] = {"claims": claims}
    return made


@pytest.fixture
def reference(cluster: Cluster) -> Iterator[PodReference]:
    """A pod with a claim made from a template, `p-mine-x`, and one it names, `for-all`; the driver
    has told of an interface that it made for vf-1."""
    admin = cluster.admin
    uid = admin.create(pod_with_claims("p"))["metadata"]["uid"]
    statuses = [{"name": "mine", "resourceClaimName": "p-mine-x"}]
    admin.patch(f"{objects.pods()}/p/status", {"status": {"resourceClaimStatuses": statuses}})
    admin.create(resource_slice("here-sriov", DEVICES))
    for name, devices in {"p-mine-x": ["vf-0", "vf-1"], "for-all": ["vf-2"]}.items():
        admin.create(claim(name))
        status = {
            "allocation": {"devices": {"results": [result(each) for each in devices]}},
            "reservedFor": [{"resource": "pods", "name": "p", "uid": uid}],
        }
        admin.patch(f"{CLAIMS}/{name}/status", {"status": status})
    told = {key: value for key, value in result("vf-1").items() if key != "request"}
    told["networkData"] = {"interfaceName": "dra0", "ips": ["10.1.1.9/24"]}
    admin.patch(f"{CLAIMS}/p-mine-x/status", {"status": {"devices": [told]}})
    yield PodReference(namespace="default", name="p", uid=uid)
    for path in (f"{CLAIMS}/p-mine-x", f"{CLAIMS}/for-all", f"{objects.pods()}/p"):
        admin.delete(path)
    admin.delete(SLICES)


@pytest.fixture
def side(cluster: Cluster, proxy: FaultProxy, tmp_path: Path) -> Iterator[Side]:
    kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig", token=cluster.token(), url=proxy.url)
    with Side(kubeconfig, following=False) as connected:
        yield connected


def claimed(device: str, claim_name: str = "p-mine-x") -> ClaimedDevice:
    cdi = (f"sriov.example/net={device}-of-cdi",)
    return ClaimedDevice(
        claim=claim_name, container="c", driver=DRIVER, pool=NODE, device=device, cdi=cdi
    )


def resolved(side: Side, pod: PodReference, *devices: ClaimedDevice) -> tuple[ResolvedDevice, ...]:
    return side.run(side.connection.claims.resolve(pod, devices))


def refusal(side: Side, pod: PodReference, *devices: ClaimedDevice) -> str:
    with pytest.raises(TryAgainLater) as caught:
        resolved(side, pod, *devices)
    return caught.value.msg


def test_each_device_has_its_id_resource_claim_request_and_interface(
    side: Side, reference: PodReference
) -> None:
    """Multus A24.1: attributes deviceID and resourceName; then the standard's PCI address, then the
    CDI name."""
    devices = (claimed("vf-2", "for-all"), claimed("vf-0"), claimed("vf-1"))
    assert resolved(side, reference, *devices) == (
        ResolvedDevice(
            claimed=devices[0], id="vf-2-of-cdi", resource="", pod_claim="shared", request="nic"
        ),
        ResolvedDevice(
            claimed=devices[1],
            id="0000:3b:02.0",
            resource="vendor.example/vf",
            pod_claim="mine",
            request="nic",
        ),
        ResolvedDevice(
            claimed=devices[2],
            id="0000:3b:02.1",
            pod_claim="mine",
            request="nic",
            interface="dra0",
        ),
    )


def test_each_object_is_asked_for_once(
    side: Side, proxy: FaultProxy, reference: PodReference
) -> None:
    resolved(side, reference, claimed("vf-0"), claimed("vf-1"), claimed("vf-2", "for-all"))
    counted = [
        proxy.count("get", "pods"),
        proxy.count("get", "resourceclaims"),
        proxy.count("list", "resourceslices"),
    ]
    assert counted == [1, 2, 1]


def test_last_known_copies_serve_while_the_server_is_away(
    side: Side, proxy: FaultProxy, reference: PodReference
) -> None:
    known = resolved(side, reference, claimed("vf-0"))
    proxy.refuse()
    assert resolved(side, reference, claimed("vf-0")) == known
    unknown = refusal(side, reference, claimed("vf-2", "for-all"))
    assert "ResourceClaim default/for-all: not known: the Kubernetes API is away" in unknown


def test_a_pods_claims_are_known_after_a_restart_without_the_server(
    side: Side, proxy: FaultProxy, reference: PodReference, tmp_path: Path
) -> None:
    """The daemon's memory is gone, and what it was told of this pod isn't; nothing of another."""
    known = resolved(side, reference, claimed("vf-1"), claimed("vf-0"))
    proxy.refuse()
    with Side(tmp_path / "kubeconfig", memory=side.memory, following=False) as restarted:
        assert resolved(restarted, reference, claimed("vf-0")) == known[1:]
        for pod, device in ((reference, "vf-2"), (replace(reference, uid="later"), "vf-0")):
            assert "the Kubernetes API is away" in refusal(restarted, pod, claimed(device))


def test_another_pods_claim_is_refused(
    side: Side, cluster: Cluster, reference: PodReference
) -> None:
    earlier = PodReference(namespace="default", name="p", uid="earlier")
    assert "UID earlier" in refusal(side, earlier, claimed("vf-0"))
    assert resolved(side, reference, claimed("vf-0"))  # nothing is on its way any more
    cluster.admin.patch(f"{CLAIMS}/p-mine-x/status", {"status": {"reservedFor": None}})
    message = refusal(side, reference, claimed("vf-0"))
    assert "ResourceClaim default/p-mine-x is not reserved for pod default/p" in message


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        (claimed("vf-0", "none"), "ResourceClaim default/none, of which pod default/p has devices"),
        (claimed("vf-9"), f"device {DRIVER}/{NODE}/vf-9 is not allocated to ResourceClaim p-mine"),
        (claimed("vf-2"), "is not allocated to ResourceClaim p-mine-x"),
    ],
)
def test_what_the_cluster_does_not_know_is_no_device(
    side: Side, reference: PodReference, device: ClaimedDevice, problem: str
) -> None:
    assert problem in refusal(side, reference, device)


def test_a_device_without_slice_is_not_guessed(
    side: Side, cluster: Cluster, reference: PodReference
) -> None:
    """A driver that restarts publishes its slices anew."""
    cluster.admin.delete(f"{SLICES}/here-sriov")
    expected = f"device {DRIVER}/{NODE}/vf-0 of ResourceClaim p-mine-x is in no ResourceSlice (yet)"
    assert expected in refusal(side, reference, claimed("vf-0"))


def test_a_device_with_admin_access_is_no_networks(
    side: Side, cluster: Cluster, reference: PodReference
) -> None:
    """It may be in another pod's use: nobody is to move it."""
    admin = cluster.admin
    labelled = {"resource.kubernetes.io/admin-access": "true"}
    admin.patch("/api/v1/namespaces/default", {"metadata": {"labels": labelled}})
    watching = claim("watcher")
    watching["spec"]["devices"]["requests"][0]["exactly"]["adminAccess"] = True
    admin.create(watching)
    results = [result("vf-0", adminAccess=True), result("vf-1")]
    reserved = [{"resource": "pods", "name": "p", "uid": reference.uid}]
    status = {"allocation": {"devices": {"results": results}}, "reservedFor": reserved}
    try:
        admin.patch(f"{CLAIMS}/watcher/status", {"status": status})
        found = resolved(side, reference, claimed("vf-0", "watcher"), claimed("vf-1", "watcher"))
        assert [each.id for each in found] == ["", "0000:3b:02.1"]
    finally:
        admin.delete(f"{CLAIMS}/watcher")
        unlabelled = dict.fromkeys(labelled)
        admin.patch("/api/v1/namespaces/default", {"metadata": {"labels": unlabelled}})


def test_a_pools_newest_generation_counts(
    side: Side, cluster: Cluster, reference: PodReference
) -> None:
    newer = {"vf-0": {f"{NETWORK}/deviceID": text("0000:3b:0a.7")}}
    pool = {"name": NODE, "generation": 2, "resourceSliceCount": 1}
    cluster.admin.create(resource_slice("newer", newer, pool=pool))
    found = resolved(side, reference, claimed("vf-0"))
    assert [each.id for each in found] == ["0000:3b:0a.7"]


def test_devices_of_no_node_are_found_too(
    side: Side, cluster: Cluster, reference: PodReference
) -> None:
    """Network-attached ones."""
    cluster.admin.delete(f"{SLICES}/here-sriov")
    cluster.admin.create(resource_slice("everywhere", DEVICES, allNodes=True))
    found = resolved(side, reference, claimed("vf-0"))
    assert [each.id for each in found] == ["0000:3b:02.0"]
