"""Real virtual functions: an igb card's, moved into pods and back by real plugins, and what its
port then says of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sriov.ports import Port, VirtualFunction, wait_until
from tests.system.node import Node, Pod, host_local, ip_json, noop_network

pytestmark = pytest.mark.system

ASKED_MAC = "02:00:00:00:00:55"


@pytest.fixture(autouse=True)
def networks(node: Node) -> None:
    """vlan100 and plain by sriov, moved by host-device (with tuning for the MAC address)."""
    ipam = host_local(node.root, "10.97.0.0/24")
    sriov = {"type": "sriov", "ipam": ipam}
    for name, keys in {"plain": {}, "vlan100": {"vlan": 100}, "vlan5000": {"vlan": 5000}}.items():
        node.define(name, {"cniVersion": "0.3.1", "plugins": [sriov | keys]})
    node.define("dpdk", {"cniVersion": "0.3.1", "plugins": [{"type": "sriov", "vlan": 100}]})
    moved = {"type": "host-device", "capabilities": {"deviceID": True}, "ipam": ipam}
    tuning = {"type": "tuning", "capabilities": {"mac": True}}
    node.define("moved", {"cniVersion": "1.0.0", "plugins": [moved, tuning]})
    bare = {key: value for key, value in moved.items() if key != "ipam"}
    node.define("bare", {"cniVersion": "1.0.0", "plugins": [bare]})
    node.define("jumbo", {"cniVersion": "1.0.0", "plugins": [moved, tuning | {"mtu": 20000}]})
    node.define("failing", noop_network(node.root, "failing", onADD={"code": 7, "msg": "no"}))


@pytest.fixture
def first(cards: tuple[Port, ...]) -> Iterator[VirtualFunction]:
    """The first card's first function; afterwards it must be on the node as it was."""
    yield from unchanged(cards[0].functions[0])


@pytest.fixture
def second(cards: tuple[Port, ...]) -> Iterator[VirtualFunction]:
    """The first card's second function."""
    yield from unchanged(cards[0].functions[1])


@pytest.fixture
def other(cards: tuple[Port, ...]) -> Iterator[VirtualFunction]:
    """The second card's first function."""
    yield from unchanged(cards[1].functions[0])


def unchanged(function: VirtualFunction) -> Iterator[VirtualFunction]:
    before = state(function)
    yield function
    assert state(function) == before


def state(function: VirtualFunction) -> dict[str, Any]:
    """Return what an attachment may change. Its MAC address is the interface's: the port has none
    until the interface has been up."""
    own = {"interface": function.interface, "address": function.mac}
    return function.at_port() | own


def selection(*elements: tuple[str, VirtualFunction], **keys: str) -> str:
    return json.dumps([{"name": n, "deviceID": vf.address, **keys} for n, vf in elements])


def mac_in(pod: Pod, name: str = "net1") -> str:
    (link,) = ip_json("link", "show", name, namespace=pod.netns.name)
    return str(link["address"])


def answers(pod: Pod, address: str, *, seconds: int) -> bool:
    """Tell whether an address answers the pod within so many seconds."""
    ping = ["ping", "-n", "-q", "-c", "1", "-w", str(seconds), address]
    command = ["ip", "netns", "exec", pod.netns.name, *ping]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def address(node: Node, pod: Pod) -> str:
    return str(node.status(pod)[1]["ips"][0])


def test_a_function_is_in_the_pod_with_its_vlan_at_the_port(
    node: Node, first: VirtualFunction
) -> None:
    """MULTUS-10: the function that the pod names, and no other, until DEL."""
    interface, mac = first.interface, first.mac
    pod = node.pod(selection(("vlan100", first)))
    answer = node.add(pod)
    assert answer.exit_code == 0, answer.msg
    assert interface not in node.host_links()
    assert mac_in(pod) == mac == node.status(pod)[1]["mac"]
    assert first.at_port()["vlan"] == 100
    assert node.delete(pod).exit_code == 0
    assert (first.interface, first.mac, first.at_port()["vlan"]) == (interface, mac, 0)


def test_the_mac_address_that_a_pod_asks_for_is_the_ports_too(
    node: Node, first: VirtualFunction
) -> None:
    """NPWG-13: `mac` reaches the plugin that declares it, and the card takes it."""
    pod = node.pod(selection(("moved", first), mac=ASKED_MAC))
    answer = node.add(pod)
    assert answer.exit_code == 0, answer.msg
    assert mac_in(pod) == ASKED_MAC == first.at_port()["address"]
    assert node.delete(pod).exit_code == 0


def test_pods_reach_each_other_through_the_card_in_their_vlan_alone(
    node: Node, first: VirtualFunction, second: VirtualFunction, cards: tuple[Port, ...]
) -> None:
    third = cards[0].functions[2]
    pods = [
        node.pod(selection((name, function)))
        for name, function in (("vlan100", first), ("vlan100", second), ("plain", third))
    ]
    for pod in pods:
        assert node.add(pod).exit_code == 0
    one, same, apart = pods
    assert answers(one, address(node, same), seconds=20)
    assert not answers(apart, address(node, same), seconds=3)
    for pod in pods:
        assert node.delete(pod).exit_code == 0


def test_a_pod_has_functions_of_two_ports(
    node: Node, first: VirtualFunction, other: VirtualFunction
) -> None:
    pod = node.pod(selection(("plain", first), ("moved", other)))
    macs = [first.mac, other.mac]
    assert node.add(pod).exit_code == 0
    assert [mac_in(pod, name) for name in ("net1", "net2")] == macs
    assert node.delete(pod).exit_code == 0


def test_a_failed_network_gives_the_function_back(node: Node, first: VirtualFunction) -> None:
    """The function is on the node when the error is told, before any DEL."""
    interface = first.interface
    elements = [{"name": "vlan100", "deviceID": first.address}, {"name": "failing"}]
    pod = node.pod(json.dumps(elements))
    answer = node.add(pod)
    assert answer.code == 7
    assert "default/failing" in answer.msg
    assert (first.interface, first.at_port()["vlan"]) == (interface, 0)
    assert node.delete(pod).exit_code == 0


def test_a_function_is_back_when_its_namespace_has_died(node: Node, first: VirtualFunction) -> None:
    """CNI-DEL-3: the kernel brings it back, under the pod's name for it; DEL still succeeds, and
    the next pod can have it. (Both plugins then leave their IPAM plugin's address reserved.)"""
    interface, mac = first.interface, first.mac
    pod = node.pod(selection(("bare", first)))
    assert node.add(pod).exit_code == 0
    subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    wait_until(lambda: first.is_here)
    assert node.delete(pod).exit_code == 0
    again = node.pod(selection(("bare", first)))
    assert node.add(again).exit_code == 0
    assert mac_in(again) == mac
    assert node.delete(again).exit_code == 0
    subprocess.run(["ip", "link", "set", first.interface, "name", interface], check=True)


def test_an_option_that_the_driver_refuses_leaves_nothing(
    node: Node, first: VirtualFunction
) -> None:
    """CNI-DEL-6: an MTU beyond the card's; the plugin before it had moved the function already."""
    pod = node.pod(selection(("jumbo", first)))
    answer = node.add(pod)
    assert answer.exit_code == 1
    assert "network default/jumbo (net1): plugin tuning: " in answer.msg
    assert "invalid argument" in answer.msg.lower()
    assert node.pod_links(pod) == set()
    assert node.delete(pod).exit_code == 0


def test_an_option_that_the_port_refuses_is_told(node: Node, first: VirtualFunction) -> None:
    """The DEL of this release of sriov-cni fails where its ADD had; the function isn't in the
    pod, so that it counts as released."""
    pod = node.pod(selection(("vlan5000", first)))
    answer = node.add(pod)
    assert "network default/vlan5000 (net1): plugin sriov: " in answer.msg
    assert "failed to set vf 0 vlan: invalid argument" in answer.msg
    assert node.pod_links(pod) == set()
    assert "plugin sriov: error reading cached NetConf" in node.log.read_text()
    assert node.delete(pod).exit_code == 0
    assert node.records() == []


def test_a_function_of_vfio_is_handed_over_without_an_interface(
    node: Node, userspace: VirtualFunction
) -> None:
    """DPDK: nothing to see in the pod; its VLAN is set at the port, and taken away by DEL."""
    function = userspace
    pod = node.pod(selection(("dpdk", function)))
    answer = node.add(pod)
    assert answer.exit_code == 0, answer.msg
    assert node.pod_links(pod) == {"eth0"}
    assert function.at_port()["vlan"] == 100
    entry = node.status(pod)[1]
    assert (entry["name"], entry.get("ips")) == ("default/dpdk", None)
    assert node.delete(pod).exit_code == 0
    assert function.at_port()["vlan"] == 0


def test_the_shim_alone_gives_the_function_back(node: Node, first: VirtualFunction) -> None:
    """CNI-DEL-7: with the daemon away, from the record."""
    pod = node.pod(selection(("vlan100", first)))
    assert node.add(pod).exit_code == 0
    node.kill()
    try:
        assert node.delete(pod).exit_code == 0
        assert first.at_port()["vlan"] == 0
    finally:
        node.restart()
