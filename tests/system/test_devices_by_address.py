"""Devices that the pod's network selection names by PCI address, moved by Debian's host-device
plugin: on a made sysfs, where any kernel will do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.system.fake_sysfs import FakeSysfs, fake_sysfs
from tests.system.node import Node, host_local, ip_json

pytestmark = pytest.mark.system

PF = "0000:03:00.0"
FIRST, SECOND, UNBOUND = "0000:03:10.0", "0000:03:10.2", "0000:03:10.4"


@pytest.fixture
def sysfs() -> Iterator[FakeSysfs]:
    """A port with two virtual functions, and a third that vfio-pci drives."""
    with fake_sysfs() as tree:
        tree.function(PF, "pf0", driver="igb")
        tree.virtual_function(FIRST, "pf0v0", of=PF)
        tree.virtual_function(SECOND, "pf0v1", of=PF)
        tree.virtual_function(UNBOUND, of=PF, driver="vfio-pci")
        yield tree


@pytest.fixture
def node_with_devices(sysfs: FakeSysfs, node: Node) -> Node:
    ipam = host_local(node.root, "10.95.0.0/24")
    plugin = {"type": "host-device", "capabilities": {"deviceID": True}, "ipam": ipam}
    node.define("vf", {"cniVersion": "1.0.0", "plugins": [plugin]})
    return node


def selection(*elements: tuple[str, str]) -> str:
    return json.dumps([{"name": name, "deviceID": address} for name, address in elements])


def test_the_named_devices_are_moved_into_the_pod_and_back(node_with_devices: Node) -> None:
    """MULTUS-10: each element's own device, twice of one network."""
    node = node_with_devices
    before = node.host_links()
    pod = node.pod(selection(("vf", SECOND), ("vf", FIRST)))
    assert node.add(pod).exit_code == 0
    assert node.pod_links(pod) == {"eth0", "net1", "net2"}
    (net1,) = ip_json("link", "show", "net1", namespace=pod.netns.name)
    assert net1["ifalias"] == "pf0v1"
    assert {"pf0v0", "pf0v1"}.isdisjoint(node.host_links())
    assert node.delete(pod).exit_code == 0
    assert (node.host_links(), node.leases()) == (before, [])


def test_the_shim_alone_gives_the_device_back(node_with_devices: Node) -> None:
    """CNI-DEL-5: the record's DEL, with the daemon away."""
    node = node_with_devices
    pod = node.pod(selection(("vf", FIRST)))
    assert node.add(pod).exit_code == 0
    node.kill()
    assert node.delete(pod).exit_code == 0
    assert "pf0v0" in node.host_links()


def test_a_device_without_an_interface_is_attached_and_let_go(node_with_devices: Node) -> None:
    """DPDK: nothing appears in the pod, though the network gives it an address."""
    node = node_with_devices
    pod = node.pod(selection(("vf", UNBOUND)))
    answer = node.add(pod)
    assert answer.exit_code == 0, answer.msg
    assert node.pod_links(pod) == {"eth0"}
    entry = node.status(pod)[1]
    assert (entry["name"], entry["interface"]) == ("default/vf", "net1")
    assert node.leases() == ["cbr0/10.90.0.2", "vf/10.95.0.2"]
    assert node.delete(pod).exit_code == 0
    assert (node.records(), node.leases()) == ([], [])
