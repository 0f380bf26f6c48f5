"""Which device of the pod goes to which network."""

from __future__ import annotations

import pytest

from metaplugin.attachments.devices import (
    AllocatedDevice,
    Allocation,
    AssignedDevice,
    ClaimedDevice,
    DeviceRequest,
    ResolvedDevice,
    assign_devices,
)
from metaplugin.attachments.plan import Network, PlannedAttachment, with_device, with_device_info
from metaplugin.attachments.runtime_conf import RuntimeConf
from metaplugin.cni.configuration import parse_network_config, plugin_request
from metaplugin.cni.errors import CNIError, InvalidNetworkConfig, TryAgainLater
from metaplugin.cni.raw import load_object

A, B, C, D = "0000:03:10.0", "0000:03:10.2", "0000:03:10.4", "0000:03:10.6"
VF, RDMA = "example.com/vf", "example.com/rdma"


def allocation(*devices: tuple[str, str, str]) -> Allocation:
    """Return what the kubelet reports: (container, resource, id)."""
    return Allocation(
        devices=tuple(
            AllocatedDevice(container=container, resource=resource, id=device)
            for container, resource, device in devices
        ),
        source="the kubelet at /socket",
    )


def wants(resource: str = VF, **said: str) -> DeviceRequest:
    where = said.pop("where", "networks[0]")
    return DeviceRequest(where=where, network="default/net", resource=resource, **said)


def ids(*requests: DeviceRequest | None, given: Allocation, **extra: object) -> list[str | None]:
    found = assign_devices(requests, given, *extra.values())  # type: ignore[arg-type]
    return [device.id if device else None for device in found]


TWO = allocation(("a", VF, A), ("b", VF, B))
CASES = [
    ("in order", TWO, [wants(), wants()], [A, B]),
    ("networks without", TWO, [None, wants(), None], [None, A, None]),
    (
        "two resources",
        allocation(("a", RDMA, C), ("a", VF, A), ("b", VF, B)),
        [wants(), wants(RDMA), wants()],
        [A, C, B],
    ),
    ("containers, not ids, make the order", allocation(("z", VF, B), ("a", VF, A)), [wants()], [B]),
    ("a named one", TWO, [wants(device_id=B), wants()], [B, A]),
    ("the named one is kept for who names it", TWO, [wants(), wants(device_id=A)], [B, A]),
    ("a container's", TWO, [wants(container="b"), wants()], [B, A]),
    ("the container's is kept", TWO, [wants(), wants(container="a")], [B, A]),
    (
        "an id is more than a container",
        allocation(("a", VF, A), ("a", VF, B)),
        [wants(container="a"), wants(device_id=A)],
        [B, A],
    ),
    (
        "a device that an init container hands on",
        allocation(("init", VF, A), ("app", VF, A), ("app", VF, B)),
        [wants(container="app"), wants(container="init")],
        [B, A],
    ),
    ("an id of no resource is nobody's promise", TWO, [wants("", device_id=C)], [C]),
    ("but is not given twice", TWO, [wants(), wants("", device_id=A)], [B, A]),
    (
        "hexadecimal capitals are the kubelet's to write",
        allocation(("a", VF, "0000:0a:10.0")),
        [wants(device_id="0000:0A:10.0")],
        ["0000:0a:10.0"],
    ),
    (
        "a device of two resources is one",
        allocation(("a", RDMA, A), ("a", VF, A), ("a", VF, B)),
        [wants(), wants(RDMA)],
        [B, A],
    ),
    (
        "ids mean something in their resource alone",
        allocation(("a", VF, "0"), ("a", RDMA, "0")),
        [wants(RDMA), wants()],
        ["0", "0"],
    ),
]


@pytest.mark.parametrize(
    ("given", "requests", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_each_network_gets_its_device(
    given: Allocation, requests: list[DeviceRequest | None], expected: list[str | None]
) -> None:
    """DEV-2, MULTUS-10."""
    assert ids(*requests, given=given) == expected


def claimed(device: str, container: str = "app", claim: str = "pod-claim-x7") -> ClaimedDevice:
    return ClaimedDevice(
        claim=claim, container=container, driver="d.example", pool="node", device=device
    )


RESOLVED = (
    ResolvedDevice(claimed=claimed("0"), id=A, resource=VF, pod_claim="nic", request="data"),
    ResolvedDevice(
        claimed=claimed("0", "side"), id=A, resource=VF, pod_claim="nic", request="data"
    ),
    ResolvedDevice(claimed=claimed("1"), id=B, pod_claim="nic", request="storage/fast"),
    ResolvedDevice(claimed=claimed("2"), id="", resource=VF, pod_claim="nic", request="gpu"),
    ResolvedDevice(claimed=claimed("3", claim="other"), id=C, resource=VF, pod_claim="spare"),
    ResolvedDevice(
        claimed=claimed("4", claim="made"), id=D, resource=RDMA, pod_claim="made", interface="dra0"
    ),
)
CLAIM_CASES = [
    ("by resource", [wants(), wants()], [A, C]),
    ("by the pod's name of the claim", [wants(claim="nic"), wants()], [A, C]),
    ("by the object's name", [wants(claim="other"), wants()], [C, A]),
    ("by request", [wants(claim="nic", request="storage"), wants()], [B, A]),
    ("by subrequest", [wants(claim="nic", request="storage/fast")], [B]),
    ("of no resource", [wants("", claim="nic", request="data")], [A]),
    ("a second one of the claim", [wants(claim="nic"), wants(claim="nic")], [A, B]),
    ("in another container", [wants(container="side")], [A]),
]


@pytest.mark.parametrize(
    ("requests", "expected"), [c[1:] for c in CLAIM_CASES], ids=[c[0] for c in CLAIM_CASES]
)
def test_claims_give_devices_too(requests: list[DeviceRequest], expected: list[str]) -> None:
    """Issue 6: DRA; a claim that containers share is one device."""
    assert ids(*requests, given=Allocation(), resolved=RESOLVED) == expected


REFUSED = [
    (
        "none of the resource",
        TWO,
        [wants(RDMA)],
        7,
        f"{RDMA}, and there is none; the kubelet at /socket reports {VF} {A} (a), {VF} {B} (b)",
    ),
    (
        "one too few",
        TWO,
        [wants(), wants(), wants(where="networks[2]")],
        7,
        f"networks[2]: network default/net takes a device of {VF}, and all of these are taken",
    ),
    ("another's", TWO, [wants(device_id=C)], 7, f"({C}), and there is none"),
    (
        "of a container without",
        TWO,
        [wants(container="c")],
        7,
        "(of container c), and there is none",
    ),
    (
        "of no such claim",
        TWO,
        [wants(claim="nic", request="r")],
        7,
        "(of claim nic, request r), and",
    ),
    (
        "the same of two resources",
        allocation(("a", RDMA, A), ("a", VF, A)),
        [wants(), wants(RDMA, where="w")],
        7,
        f"w: network default/net takes a device of {RDMA}, and all of these are taken",
    ),
    (
        "another spelling of what is no PCI address",
        allocation(("a", VF, "dev-a")),
        [wants(device_id="DEV-A")],
        7,
        "(DEV-A), and there is none",
    ),
    ("the same twice", TWO, [wants(device_id=A), wants(device_id=A)], 7, "all of these are taken"),
    (
        "the same twice, of no resource",
        TWO,
        [wants("", device_id=C), wants("", device_id=C.upper(), where="w")],
        7,
        f"w: device {C.upper()} is networks[0]'s already",
    ),
    (
        "nothing yet",
        Allocation(source="S"),
        [wants()],
        11,
        f"takes a device of {VF}, but S reports no device of the pod",
    ),
]


@pytest.mark.parametrize(
    ("given", "requests", "code", "told"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_a_device_that_is_not_there_is_told(
    given: Allocation, requests: list[DeviceRequest], code: int, told: str
) -> None:
    """A13.5, A25.17: resource, container and what the kubelet reported are named."""
    with pytest.raises(CNIError) as raised:
        assign_devices(requests, given)
    assert raised.value.code == code
    assert isinstance(raised.value, InvalidNetworkConfig | TryAgainLater)
    assert told in raised.value.msg


@pytest.mark.parametrize(
    "asked",
    [wants(claim="nic", request="dat"), wants(RDMA, claim="nic", request="data")],
    ids=["request's beginning", "other resource"],
)
def test_a_claims_device_is_of_that_request_and_resource(asked: DeviceRequest) -> None:
    """Issue 6: never another device than the one that is meant."""
    with pytest.raises(InvalidNetworkConfig, match="there is none"):
        assign_devices([asked], Allocation(), RESOLVED)


@pytest.mark.parametrize("asked", [wants(RDMA), wants(RDMA, claim="made")], ids=["one", "named"])
def test_a_device_whose_driver_made_its_interface_is_not_moved(asked: DeviceRequest) -> None:
    """A24.1: the driver has put it into the pod by itself."""
    with pytest.raises(InvalidNetworkConfig, match="there is none"):
        assign_devices([asked], Allocation(), RESOLVED)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (AssignedDevice(id=A, resource=VF), AssignedDevice(id=A, resource=VF), True),
        (AssignedDevice(id=A, resource=VF), AssignedDevice(id=A, resource=RDMA), True),
        (AssignedDevice(id=A, resource=VF), AssignedDevice(id=A), True),
        (AssignedDevice(id="0", resource=VF), AssignedDevice(id="0", resource=VF), True),
        (AssignedDevice(id="0", resource=VF), AssignedDevice(id="0", resource=RDMA), False),
        (AssignedDevice(id=A), AssignedDevice(id=A), False),
        (AssignedDevice(id="0", claim="c"), AssignedDevice(id="0", claim="c"), True),
    ],
)
def test_two_pods_have_the_same_device(
    one: AssignedDevice, other: AssignedDevice, same: bool
) -> None:
    """Issue 6: what nobody promised to anybody is the network's own affair, as with Multus."""
    assert (one.is_rival_of(other), other.is_rival_of(one)) == (same, same)


def planned(**plugin: object) -> PlannedAttachment:
    raw = {"name": "n", "plugins": [{"type": "a", **plugin}, {"type": "b"}]}
    network = Network(name="default/n", config=parse_network_config(raw, where="n"), resource=VF)
    return PlannedAttachment(
        name=network.name,
        config=network.config,
        runtime=RuntimeConf(ifname="net1", capability_args={"mac": "02:00:00:00:00:01"}),
        wants=wants(),
    )


def requests_of(attachment: PlannedAttachment) -> list[dict[str, object]]:
    config, given = attachment.config, attachment.runtime.capability_args
    return [
        load_object(plugin_request(config, plugin, capability_args=given), what="request")
        for plugin in config.plugins
    ]


def test_a_device_is_handed_over_in_every_way() -> None:
    """MULTUS-10, DEV-5: runtimeConfig where declared, the configuration's top level always."""
    capabilities = {"deviceID": True, "CNIDeviceInfoFile": True}
    got = with_device(planned(capabilities=capabilities), AssignedDevice(id=A, resource=VF))
    assert (got.wants, got.device) == (None, AssignedDevice(id=A, resource=VF))
    first, second = requests_of(with_device_info(got, "/path"))
    assert first["runtimeConfig"] == {"deviceID": A, "CNIDeviceInfoFile": "/path"}
    assert "runtimeConfig" not in second
    assert [(r["deviceID"], r["pciBusID"]) for r in (first, second)] == [(A, A), (A, A)]


def test_a_plugin_that_makes_its_own_device_gets_a_file_as_well() -> None:
    """DEV-1, DEV-5: memif and vhost-user sockets come of no device plugin."""
    bare = with_device(planned(), None)
    assert with_device_info(bare, "/path") == bare
    got = with_device_info(
        with_device(planned(capabilities={"CNIDeviceInfoFile": True}), None), "/p"
    )
    assert requests_of(got)[0]["runtimeConfig"] == {"CNIDeviceInfoFile": "/p"}
    assert "deviceID" not in requests_of(got)[0]
