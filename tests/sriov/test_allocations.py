"""Virtual functions that the kubelet gave: nobody names a PCI address but its pod-resources
service."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kubelet.podresources import FakeKubelet
from tests.kubelet.podresources import Pod as Given
from tests.sriov.ports import Port, VirtualFunction
from tests.system.node import REPOSITORY, Node, Pod, host_local, ip_json

pytestmark = pytest.mark.system

LEFT, RIGHT = "example.com/left", "example.com/right"  # a resource for each card's functions


@pytest.fixture(autouse=True)
def networks(node: Node) -> None:
    """Left and right by sriov, each in a VLAN of its own; dpdk of right's functions; a bond."""
    for name, resource, vlan in (("left", LEFT, 10), ("right", RIGHT, 20)):
        ipam = host_local(node.root, f"10.{vlan}.0.0/24")
        plugin = {"type": "sriov", "vlan": vlan, "ipam": ipam}
        node.define(name, {"cniVersion": "0.3.1", "plugins": [plugin]}, resource=resource)
        bare = {"type": "sriov", "vlan": vlan}
        node.define(f"bare-{name}", {"cniVersion": "0.3.1", "plugins": [bare]}, resource=resource)
    links = [{"name": "net1"}, {"name": "net2"}]
    bond = {"type": "bond", "mode": "active-backup", "miimon": 100, "links": links}
    node.define("bond", {"cniVersion": "1.0.0", "plugins": [bond]})
    node.plugin("bond", REPOSITORY / "tests" / "plugins" / "bond.py")


def admit(kubelet: FakeKubelet, pod: Pod, **resources: list[VirtualFunction]) -> Pod:
    """Have the kubelet give functions to the pod's container: of left, of right."""
    pod.uid = f"uid-{pod.name}"
    given = {
        f"example.com/{name}": [function.address for function in functions]
        for name, functions in resources.items()
    }
    kubelet.admit(pod.namespace, pod.name, Given(uid=pod.uid, containers={"app": given}))
    return pod


def link(pod: Pod, name: str) -> dict[str, object]:
    (found,) = ip_json("-details", "link", "show", name, namespace=pod.netns.name)
    return found


def test_each_pod_gets_its_functions_of_both_cards(
    node: Node, kubelet: FakeKubelet, cards: tuple[Port, ...]
) -> None:
    """DEV-2, MULTUS-10: two pods at once, two functions each."""
    left, right = (card.functions for card in cards)
    given = [(left[1], right[0]), (left[0], right[1])]
    macs = [[function.mac for function in pair] for pair in given]
    pods = [node.pod("left,right") for _ in given]
    for pod, (one, other) in zip(pods, given, strict=True):
        admit(kubelet, pod, left=[one], right=[other])
    with ThreadPoolExecutor() as pool:
        replies = list(pool.map(node.add, pods))
    assert [reply.msg for reply in replies] == ["", ""]
    assert [[link(pod, name)["address"] for name in ("net1", "net2")] for pod in pods] == macs
    assert [f.at_port()["vlan"] for pair in given for f in pair] == [10, 20] * 2
    assert [entry["mac"] for entry in node.status(pods[0])[1:]] == macs[0]
    with ThreadPoolExecutor() as pool:
        assert [reply.exit_code for reply in pool.map(node.delete, pods)] == [0, 0]
    assert [f.at_port()["vlan"] for pair in given for f in pair] == [0] * 4


def test_a_function_that_was_given_on_stays_with_its_new_owner(
    node: Node, kubelet: FakeKubelet, cards: tuple[Port, ...]
) -> None:
    """Issue 6: re-allocated before the old pod's DEL, while it still is in the old pod."""
    function = cards[0].functions[0]
    interface, mac = function.interface, function.mac
    old = admit(kubelet, node.pod("left"), left=[function])
    assert node.add(old).exit_code == 0
    kubelet.release(old.namespace, old.name)
    new = admit(kubelet, node.pod("left"), left=[function])
    answer = node.add(new)
    assert answer.exit_code == 0, answer.msg
    assert link(new, "net1")["address"] == mac
    assert node.pod_links(old) == {"eth0"}
    assert node.delete(old).exit_code == 0
    assert link(new, "net1")["address"] == mac
    assert function.at_port()["vlan"] == 10
    assert node.delete(new).exit_code == 0
    assert (function.interface, function.mac) == (interface, mac)


def test_a_bond_over_functions_of_two_cards(
    node: Node, kubelet: FakeKubelet, cards: tuple[Port, ...]
) -> None:
    """The bond comes after its links and goes before them; a link that fails changes nothing."""
    left, right = (card.functions[0] for card in cards)
    before = (left.interface, right.interface)
    pod = admit(kubelet, node.pod("bare-left,bare-right,bond@bond0"), left=[left], right=[right])
    answer = node.add(pod)
    assert answer.exit_code == 0, answer.msg
    assert [link(pod, name).get("master") for name in ("net1", "net2")] == ["bond0", "bond0"]
    assert link(pod, "bond0")["operstate"] == "UP"
    subprocess.run(["ip", "-n", pod.netns.name, "link", "set", "net1", "down"], check=True)
    assert link(pod, "bond0")["operstate"] == "UP"
    assert node.delete(pod).exit_code == 0
    assert (left.interface, right.interface) == before


def test_a_function_of_vfio_comes_from_the_allocation_too(
    node: Node, kubelet: FakeKubelet, userspace: VirtualFunction
) -> None:
    """DPDK: its VLAN is set at the port; the pod has no interface of it."""
    pod = admit(kubelet, node.pod("bare-right"), right=[userspace])
    answer = node.add(pod)
    assert answer.exit_code == 0, answer.msg
    assert (node.pod_links(pod), userspace.at_port()["vlan"]) == ({"eth0"}, 20)
    assert node.status(pod)[1]["name"] == "default/bare-right"
    assert node.delete(pod).exit_code == 0
    assert userspace.at_port()["vlan"] == 0


def test_a_promised_function_that_is_absent_fails_the_pod(
    node: Node, kubelet: FakeKubelet, cards: tuple[Port, ...]
) -> None:
    """Issue 6: nothing was moved for it."""
    function = cards[0].functions[0]
    before = (function.interface, function.at_port())
    pod = admit(kubelet, node.pod("left,right"), left=[function])
    answer = node.add(pod)
    assert answer.code == 7
    assert RIGHT in answer.msg
    assert (function.interface, function.at_port()) == before
    assert node.delete(pod).exit_code == 0
