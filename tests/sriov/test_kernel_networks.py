"""Networks of kinds that the machine's own kernel may lack, by Debian's plugins."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.system.node import Node, Pod, host_local, ip_json

pytestmark = pytest.mark.system

KINDS: dict[str, list[dict[str, Any]]] = {
    "vlan": [{"type": "vlan", "master": "lan0", "vlanId": 7}],
    "ipvlan": [{"type": "ipvlan", "master": "lan0", "mode": "l2"}],
    "macvlan": [{"type": "macvlan", "master": "lan0"}],
    "ptp": [{"type": "ptp"}],
}


def details(pod: Pod, name: str = "net1") -> dict[str, Any]:
    (link,) = ip_json("-details", "link", "show", name, namespace=pod.netns.name)
    return link


def define(node: Node, name: str, plugins: list[dict[str, Any]]) -> None:
    ipam = {"ipam": host_local(node.root, "10.96.0.0/24")}
    first = ipam | plugins[0]
    node.define(name, {"cniVersion": "1.0.0", "plugins": [first, *plugins[1:]]})


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_each_kind_is_attached_and_detached(node: Node, kind: str) -> None:
    """CNI-ADD-1, CNI-DEL-5: the interface is of that kind, CHECK finds it, DEL takes it away."""
    define(node, kind, KINDS[kind])
    pod = node.pod(kind)
    answer = node.add(pod)
    assert answer.exit_code == 0, answer.msg
    link = details(pod)
    assert link["linkinfo"]["info_kind"] == {"ptp": "veth"}.get(kind, kind)
    if kind == "vlan":
        assert link["linkinfo"]["info_data"]["id"] == 7
    stdin = node.stdin(pod, prevResult=answer.json)
    assert node.call("CHECK", pod, stdin=stdin).exit_code == 0
    assert [entry["interface"] for entry in node.status(pod)] == ["eth0", "net1"]
    assert node.delete(pod).exit_code == 0
    assert node.pod_links(pod) == set()


def test_two_networks_of_a_pod_are_in_vrfs_of_their_own(node: Node) -> None:
    """CNI-ADD-1: a chained plugin's work, on each of two networks with the same subnet."""
    for name in ("red", "blue"):
        bridge = {"type": "bridge", "bridge": f"br-{name}"}
        define(node, name, [bridge, {"type": "vrf", "vrfname": name}])
    pod = node.pod("red,blue")
    assert node.add(pod).exit_code == 0
    assert [details(pod, name)["master"] for name in ("net1", "net2")] == ["red", "blue"]
    assert node.delete(pod).exit_code == 0


def test_a_bridges_port_is_in_its_networks_vlan(node: Node) -> None:
    """CNI-ADD-1: a bridge that filters VLANs."""
    define(node, "tagged", [{"type": "bridge", "bridge": "br-tagged", "vlan": 12}])
    pod = node.pod("tagged")
    assert node.add(pod).exit_code == 0
    (port,) = ip_json("link", "show", "master", "br-tagged")
    assert untagged_vlan(port["ifname"]) == 12
    assert node.delete(pod).exit_code == 0


def untagged_vlan(port: str) -> int:
    """Return the VLAN of the frames that come to a bridge's port without a tag."""
    command = ["bridge", "-json", "vlan", "show", "dev", port]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (entry,) = json.loads(output)
    return next(int(each["vlan"]) for each in entry["vlans"] if "PVID" in each.get("flags", ()))
