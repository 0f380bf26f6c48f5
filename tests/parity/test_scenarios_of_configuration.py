"""Part E's scenarios of where networks are found, and those of Multus's end-to-end tests with real
plugins."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.parity.cluster_node import ClusterNode, recording
from tests.system.node import Node, ip_json, macvlan_network, noop_network

pytestmark = pytest.mark.system


BARE = '{"current-context": "a", "contexts": [{"name": "a", "context": 5}], "clusters": 5}'


def single(node: Node, **keys: Any) -> dict[str, Any]:
    """Return a single plugin's configuration."""
    return {"cniVersion": "1.0.0", **noop_network(node.root)["plugins"][0], **keys}


def test_definitions_without_config_are_on_the_nodes_disk(cluster_node: ClusterNode) -> None:
    """E2.6, E2.8: by name in two files; a third with garbage concerns nobody."""
    node = cluster_node.node
    (node.root / "net.d" / "10-net1.conf").write_text(json.dumps(single(node, name="net1")))
    (node.root / "net.d" / "15-garbage.conf").write_text("asdf3")
    (node.root / "net.d" / "20-net2.conf").write_text(json.dumps(single(node, name="net2")))
    for name in ("net1", "net2", "net3"):
        cluster_node.define(name, None)
    pod = cluster_node.pod("net1,net2")
    assert cluster_node.add(pod).exit_code == 0
    assert [network for _, _, network in cluster_node.calls()] == ["weave1", "net1", "net2"]
    assert cluster_node.node.delete(pod).exit_code == 0
    nowhere = cluster_node.add(cluster_node.pod("net3"))
    assert nowhere.code == 7
    assert "default/net3" in nowhere.msg


def test_a_definition_lends_its_name(cluster_node: ClusterNode) -> None:
    """E2.7."""
    config = single(cluster_node.node)
    cluster_node.define("net1", config)
    pod = cluster_node.pod("net1")
    assert cluster_node.add(pod).exit_code == 0
    assert cluster_node.calls()[1] == ("ADD", "net1", "net1")
    assert cluster_node.node.delete(pod).exit_code == 0


@pytest.mark.parametrize(
    "by", ["E2.9 definition", "E2.12 name", "E2.13 folder", "E2.14 file"], ids=str
)
def test_a_default_network_is_found(idle_cluster_node: ClusterNode, by: str) -> None:
    """E2.9, E2.12, E2.13, E2.14."""
    node = idle_cluster_node.node
    folder = node.root / "primary"
    folder.mkdir()
    text = json.dumps(single(node, name="net1"))
    (folder / "10-net1.conf").write_text(text)
    (folder / "20-other.conf").write_text(json.dumps(single(node, name="other")))
    reference = {"folder": str(folder), "file": str(folder / "10-net1.conf")}
    node.daemon_keys["clusterNetwork"] = reference.get(by.split()[1], "net1")
    if "definition" in by:
        idle_cluster_node.define("net1", text, namespace="kube-system")
    if "name" in by:
        (node.root / "net.d" / "30-net1.conf").write_text(text)
    node.start()
    pod = idle_cluster_node.pod()
    assert idle_cluster_node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0
    assert idle_cluster_node.calls() == [("ADD", "eth0", "net1"), ("DEL", "eth0", "net1")]


@pytest.mark.parametrize("reference", ["nowhere", "/nowhere/at/all", ""])
def test_a_default_network_that_is_nowhere_is_told(
    idle_cluster_node: ClusterNode, reference: str
) -> None:
    """E2.15, E2.17, E3.6: no delegates and no clusterNetwork either."""
    node = idle_cluster_node.node
    node.daemon_keys |= {"clusterNetwork": reference, "confDir": "/nowhere"}
    node.start()
    pod = idle_cluster_node.pod()
    reply = idle_cluster_node.add(pod)
    assert reply.exit_code == 1
    assert reference in reply.msg
    assert node.call("STATUS", None, stdin=node.stdin(None, "1.1.0")).code == 50
    assert idle_cluster_node.calls() == []


@pytest.mark.parametrize("content", [None, "", "{", "[]", "x", '{"kind": "Config"}', BARE], ids=str)
def test_a_kubeconfig_that_is_none_keeps_the_daemon_from_starting(
    idle_cluster_node: ClusterNode, content: str | None
) -> None:
    """E2.19: an error that says so, at once."""
    node = idle_cluster_node.node
    path = node.root / "kubeconfig"
    path.unlink() if content is None else path.write_text(content)
    node.write_config()
    finished = node.run_daemon(node.root / "daemon.yaml")
    assert finished.returncode == 1
    assert "kubernetes: no usable credentials" in finished.stderr


def test_outside_a_pod_the_error_says_where_a_kubeconfig_is_named(
    idle_cluster_node: ClusterNode,
) -> None:
    node = idle_cluster_node.node
    node.daemon_keys["kubernetes"] = {"nodeName": "n"}
    node.write_config()
    finished = node.run_daemon(node.root / "daemon.yaml")
    assert finished.returncode == 1
    assert "Service host/port is not set" in finished.stderr
    assert "the node, installation.fallbackKubeconfig" in finished.stderr


@pytest.mark.parametrize("delegates", [True, False])
def test_without_a_cluster_the_delegates_are_all_there_is(
    idle_cluster_node: ClusterNode, delegates: bool
) -> None:
    """E2.20."""
    node = idle_cluster_node.node
    node.daemon_keys |= {"kubernetes": None, "clusterNetwork": ""}
    node.start()
    pod = node.pod(None)
    networks = [recording(node, "weave1"), recording(node, "other1")] if delegates else []
    stdin = node.stdin(pod, delegates=networks)
    reply = node.add(pod, stdin=stdin)
    assert reply.exit_code == (0 if delegates else 1)
    assert len(node.noop_calls()) == len(networks)
    assert node.delete(pod, stdin=stdin).exit_code == 0


def test_an_api_server_that_is_not_there_keeps_no_known_pod_waiting(
    idle_cluster_node: ClusterNode,
) -> None:
    """E2.21, E2.28: the daemon starts; a pod whose annotations the runtime passes is attached."""
    cluster_node = idle_cluster_node
    cluster_node.server.stop()
    cluster_node.node.start()
    pod = cluster_node.node.pod("")
    assert cluster_node.add(pod).exit_code == 0
    unknown = cluster_node.add(cluster_node.node.pod(None))
    assert unknown.code == 11
    assert cluster_node.node.delete(pod).exit_code == 0
    cluster_node.server.start()


def test_malformed_arguments_are_refused(cluster_node: ClusterNode) -> None:
    """E2.24: CNI_ARGS with ':' in place of '='."""
    pod = cluster_node.pod()
    reply = cluster_node.node.add(pod, CNI_ARGS=pod.args.replace("=", ":"))
    assert (reply.code, cluster_node.calls()) == (4, [])
    assert "CNI_ARGS" in reply.msg


def test_a_static_pod_is_known_by_its_mirror(cluster_node: ClusterNode) -> None:
    """E8.3: the runtime's UID is its configuration's hash; status goes to the mirror."""
    cluster_node.define("lan", recording(cluster_node.node, "lan", "1.1.1.3/24"))
    mirror = {"kubernetes.io/config.mirror": "0f1e2d", "kubernetes.io/config.source": "file"}
    pod = cluster_node.pod("lan", uid="0f1e2d", object_uid="of-the-mirror", annotations=mirror)
    assert cluster_node.add(pod).exit_code == 0
    assert [entry["name"] for entry in cluster_node.status(pod)] == ["weave1", "default/lan"]
    assert cluster_node.node.delete(pod).exit_code == 0


def test_pods_ask_for_the_addresses_of_a_tuned_macvlan(node: Node) -> None:
    """E8.2: macvlan and tuning, `ips` for each; the kernel has them."""
    chain = macvlan_network(node.root)
    chain["plugins"][0]["ipam"] = {"type": "static"}
    chain["plugins"].append({"type": "tuning", "sysctl": {"net.ipv4.conf.net1.arp_filter": "1"}})
    node.define("tuned", chain)
    pods = []
    for address in ("10.1.1.11", "10.1.1.12"):
        pod = node.pod(json.dumps([{"name": "tuned", "ips": [f"{address}/24"]}]))
        assert node.add(pod).exit_code == 0
        [link] = ip_json("address", "show", "net1", namespace=pod.netns.name)
        assert address in [found.get("local") for found in link["addr_info"]]
        assert sysctl(pod.netns.name, "net.ipv4.conf.net1.arp_filter") == "1"
        assert node.call("CHECK", pod).exit_code == 0
        pods.append(pod)
    for pod in pods:
        assert node.delete(pod).exit_code == 0
        assert node.pod_links(pod) == set()


def test_one_pod_of_two_has_its_default_route_elsewhere(node: Node) -> None:
    """E8.4: the kernel's routes of both, checked."""
    element: dict[str, Any] = {"name": "macvlan", "ips": ["10.91.0.21/24"]}
    asking = node.pod(json.dumps([element | {"default-route": ["10.91.0.254"]}]))
    other = node.pod(json.dumps([element | {"ips": ["10.91.0.22/24"]}]))
    for pod, expected in ((asking, ("net1", "10.91.0.254")), (other, ("eth0", "10.90.0.1"))):
        assert node.add(pod).exit_code == 0
        routes = ip_json("route", "show", "default", namespace=pod.netns.name)
        assert [(route["dev"], route["gateway"]) for route in routes] == [expected]
        assert node.delete(pod).exit_code == 0


def test_six_pods_at_once_are_all_attached(node: Node) -> None:
    """E8.1, E8.5: each has its own addresses."""
    pods = [node.pod("macvlan") for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(node.add, pods))
    assert [reply.exit_code for reply in replies] == [0] * 6
    assert len({reply.json["ips"][0]["address"] for reply in replies}) == 6
    assert len(node.leases()) == 12
    for pod in pods:
        assert node.delete(pod).exit_code == 0
    assert node.leases() == []


def test_a_file_beside_the_default_network_joins_its_chain(node: Node) -> None:
    """E8.6, CNI-DLG-16: dropped into the folder named after the network, for the next pod."""
    folder = node.root / "cbr0"
    folder.mkdir()
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}}
    (folder / "sysctltwiddle.conf").write_text(json.dumps(tuning))
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    assert sysctl(pod.netns.name, "net.ipv4.conf.eth0.arp_filter") == "1"
    (folder / "sysctltwiddle.conf").unlink()
    assert node.delete(pod).exit_code == 0


def sysctl(netns: str, key: str) -> str:
    path = Path("/proc/sys") / key.replace(".", "/")
    command = ["ip", "netns", "exec", netns, "cat", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
