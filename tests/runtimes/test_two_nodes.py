"""Two nodes on one wire, each a containerd, a daemon and records of its own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.runtimes.containerd import Containerd, running
from tests.runtimes.footprint import footprint
from tests.runtimes.host import Host
from tests.runtimes.networks import ETH0, MACVLAN
from tests.system.node import Node, bridge_network, macvlan_network, new_root

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

SWITCH = "switch"
ENDS = {"rangeStart": "0", "rangeEnd": "9"}  # last digits of a node's addresses


@pytest.fixture
def wire() -> Iterator[str]:
    """What both nodes' eth1 are plugged into."""
    subprocess.run(["ip", "link", "add", SWITCH, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", SWITCH, "up"], check=True)
    yield SWITCH
    subprocess.run(["ip", "link", "del", SWITCH], check=True)


@pytest.fixture
def nodes(wire: str) -> Iterator[tuple[Containerd, Containerd]]:
    with serving(wire, 1) as first, serving(wire, 2) as second:
        yield first, second


@contextlib.contextmanager
def serving(wire: str, number: int) -> Iterator[Containerd]:
    """Run a node whose macvlan addresses are its own part of the subnet."""
    host = Host(wire, f"port{number}")
    root = new_root()
    node = Node(root, bridge_network(root), prefix=host.prefix)
    network = macvlan_network(root)
    [[addresses]] = network["plugins"][0]["ipam"]["ranges"]
    addresses |= {end: f"{MACVLAN}{number}{digit}" for end, digit in ENDS.items()}
    node.define("macvlan", network)
    try:
        node.start()
        with running(node) as containerd:
            yield containerd
    finally:
        node.close()
        host.close()


def test_pods_of_different_nodes_reach_each_other(nodes: tuple[Containerd, Containerd]) -> None:
    """Both pods have the same address in their nodes' default networks; the macvlan is one."""
    pods = [containerd.run(name, "macvlan") for name, containerd in zip("ab", nodes, strict=True)]
    pairs = list(zip(nodes, pods, strict=True))
    assert [pod.address for pod in pods] == [f"{ETH0}2"] * 2
    addresses = [containerd.address(pod, "net1") for containerd, pod in pairs]
    assert addresses == [f"{MACVLAN}10", f"{MACVLAN}20"]
    for (containerd, pod), other in zip(pairs, reversed(addresses), strict=True):
        containerd.ping(pod, "net1", other)
    for containerd, pod in pairs:
        assert containerd.node.records() == [f"{pod.sandbox}@eth0"]
        done = containerd.check_all()
        assert done.returncode == 0, done.stdout
        containerd.remove(pod.sandbox)
        assert footprint(containerd.node) == {}
        assert containerd.sandbox_namespaces() == []


def test_a_dead_node_takes_nothing_from_the_other(nodes: tuple[Containerd, Containerd]) -> None:
    """The other's pods and daemon go on; the dead one's pod is removed once it is back."""
    first, second = nodes
    lost, live = first.run("a", "macvlan"), second.run("b", "macvlan")
    first.stop()
    first.node.kill()
    third = second.run("c", "macvlan")
    second.ping(third, "net1", second.address(live, "net1"))
    second.ping(third, "net1", f"{MACVLAN}10")  # its network needs neither
    first.node.restart()
    first.start()
    for containerd, pod in ((first, lost), (second, live), (second, third)):
        containerd.remove(pod.sandbox)
    assert [footprint(containerd.node) for containerd in nodes] == [{}, {}]
