"""What Multus v4.3.0 gets wrong, silently, when it attaches, must hold here (A25)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.apiserver.faults import Silence, Slow, on
from tests.parity.cluster_node import ClusterNode, recording
from tests.system.node import Node, bridge_network, ip_json, macvlan_network, noop_network

pytestmark = pytest.mark.system


def given(node: Node, network: str, command: str = "ADD") -> dict[str, Any]:
    """Return what that network's plugin got on standard input."""
    inputs = [json.loads(c["stdin"]) for c in node.noop_calls() if c["command"] == command]
    [found] = [config for config in inputs if config["name"] == network]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_the_default_route_is_really_moved_in_either_family(node: Node, family: str) -> None:
    """A25.2: in the kernel, in the result, in what CHECK expects."""
    subnets = {"-4": ("10.90.0.0/24", "10.91.0.0/24"), "-6": ("fd90::/64", "fd91::/64")}[family]
    gateway, everything = {"-4": ("10.91.0.9", "0.0.0.0/0"), "-6": ("fd91::9", "::/0")}[family]
    default = bridge_network(node.root, subnet=subnets[0])
    default["plugins"][0]["ipam"]["routes"] = [{"dst": everything}]
    (node.root / "default.conflist").write_text(json.dumps(default))
    node.define("second", macvlan_network(node.root, subnets[1]))
    pod = node.pod(json.dumps([{"name": "second", "default-route": [gateway]}]))
    reply = node.add(pod)
    assert reply.exit_code == 0, reply.stdout
    routes = ip_json(family, "route", "show", "default", namespace=pod.netns.name)
    assert [(route["dev"], route["gateway"]) for route in routes] == [("net1", gateway)]
    assert everything not in [route["dst"] for route in reply.json.get("routes", [])]
    assert node.call("CHECK", pod).exit_code == 0
    assert node.delete(pod).exit_code == 0


@pytest.mark.parametrize("name", ["kube-system", "default"])
def test_a_pod_named_like_a_namespace_has_its_status(cluster_node: ClusterNode, name: str) -> None:
    """A25.3."""
    pod = cluster_node.pod(name=name)
    assert cluster_node.add(pod).exit_code == 0
    assert [entry["name"] for entry in cluster_node.status(pod)] == ["weave1"]
    assert cluster_node.node.delete(pod).exit_code == 0


AT_THE_TOP: dict[str, Any] = {
    "logLevel": "debug",
    "logFile": "/x",
    "clusterNetwork": "",
    "ipam": {"type": "host-local"},
    "dns": {"nameservers": ["1.1.1.1"]},
    "prevResult": {"cniVersion": "0.2.0", "ip4": {"ip": "1.1.1.1/24"}},
    "defaultnetworkfile": "/y",
    "defaultnetworkwaitseconds": 5,
}


def test_delegates_get_no_key_of_the_daemons(recording_node: Node) -> None:
    """A25.10, A2, E3.5: nor of what else stands in the runtime's configuration."""
    node = recording_node
    pod = node.pod("")
    stdin = node.stdin(pod, **AT_THE_TOP)
    assert node.add(pod, stdin=stdin).exit_code == 0
    plugin = noop_network(node.root)["plugins"][0]
    expected = {**plugin, "name": "default-net", "cniVersion": "1.0.0"}
    assert given(node, "default-net") == expected
    assert node.delete(pod, stdin=stdin).exit_code == 0
    deleted = given(node, "default-net", "DEL")
    del deleted["prevResult"]
    assert deleted == expected


CAPABILITIES = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "dns": {"servers": ["1.1.1.1"]},
    "ipRanges": [[{"subnet": "10.1.0.0/16"}]],
    "cgroupPath": "/kubepods/x",
    "aliases": {"net": ["a"]},
    "org.example/unknown": {"deep": [None, 1.5]},
}


def test_what_the_runtime_says_reaches_the_default_network_whole_and_no_other(
    recording_node: Node,
) -> None:
    """A25.11, A25.12: capabilities that nobody knows, and CNI_ARGS with `=` in a value."""
    node = recording_node
    declared = {"capabilities": dict.fromkeys(CAPABILITIES, True)}
    default = noop_network(node.root, "default-net", **declared)
    (node.root / "default.conflist").write_text(json.dumps(default))
    node.define("extra", noop_network(node.root, "extra", **declared))
    pod = node.pod("extra")
    config = json.loads(node.stdin(pod))
    config["runtimeConfig"] |= CAPABILITIES
    arguments = f"{pod.args};BLAHBLAH=foo=bar=;EMPTY="
    reply = node.add(pod, stdin=json.dumps(config).encode(), CNI_ARGS=arguments)
    assert reply.exit_code == 0, reply.stdout
    assert given(node, "default-net")["runtimeConfig"] == CAPABILITIES
    assert "runtimeConfig" not in given(node, "extra")
    first, second = (call["env"]["CNI_ARGS"] for call in node.noop_calls())
    assert first == arguments
    assert "BLAHBLAH" not in second
    assert node.delete(pod).exit_code == 0


def test_a_slow_answer_about_a_pod_that_is_not_watched_yet_is_waited_for(
    cluster_node: ClusterNode,
) -> None:
    """A25.13."""
    cluster_node.server.disturb_watches(Silence())
    cluster_node.server.inject(Slow(1.0), on(verb="get", resource="pods"))
    pod = cluster_node.pod()
    assert cluster_node.add(pod).exit_code == 0
    assert cluster_node.node.delete(pod).exit_code == 0


def test_a_pod_that_is_not_there_is_no_success(cluster_node: ClusterNode) -> None:
    """A25.14: nothing runs, nothing is made up, and the runtime may try again."""
    pod = cluster_node.pod(exists=False)
    reply = cluster_node.add(pod)
    assert (reply.exit_code, reply.code) == (1, 11)
    assert "ips" not in reply.json
    assert cluster_node.calls() == []
    assert cluster_node.node.records() == []


def test_each_selection_has_its_own_device(recording_node: Node) -> None:
    """A25.16: what one element says of a device reaches its own attachment alone."""
    node = recording_node
    for name in ("a", "b"):
        node.define(name, noop_network(node.root, name, capabilities={"deviceID": True}))
    devices = {"a": "0000:03:02.0", "b": "0000:03:02.1"}
    elements = [{"name": name, "deviceID": device} for name, device in devices.items()]
    pod = node.pod(json.dumps(elements))
    assert node.add(pod).exit_code == 0
    for name, device in devices.items():
        config = given(node, name)
        said = (config["deviceID"], config["pciBusID"], config["runtimeConfig"]["deviceID"])
        assert said == (device, device, device)
    assert "deviceID" not in given(node, "default-net")
    assert node.delete(pod).exit_code == 0


def test_a_network_of_devices_is_not_attached_without_one(cluster_node: ClusterNode) -> None:
    """A25.17: also one that the selection names, as nobody can say whether it is the pod's."""
    resource = {"k8s.v1.cni.cncf.io/resourceName": "example.com/vf"}
    cluster_node.define("vf", recording(cluster_node.node, "vf"), annotations=resource)
    for selection in ("vf", '[{"name": "vf", "deviceID": "0000:03:02.0"}]'):
        reply = cluster_node.add(cluster_node.pod(selection))
        assert (reply.exit_code, reply.code) == (1, 11)
        assert "kubelet.sock" in reply.msg
    assert cluster_node.calls() == []


@pytest.mark.parametrize("broken", ["{", "[]", '{"name": "other"}', "\ufeff{}"])
def test_a_malformed_file_concerns_no_other_network(recording_node: Node, broken: str) -> None:
    """A25.19: met before, between and after; and a list comes before a single plugin's file."""
    node = recording_node
    folder = node.root / "net.d"
    for name in ("00-a.conf", "00-a.conflist", "20-z.conf", "99-z.conflist"):
        (folder / name).write_text(broken)
    single = noop_network(node.root)["plugins"][0] | {"name": "disk", "cniVersion": "1.0.0"}
    (folder / "10-disk.conf").write_text(json.dumps(single | {"from": "conf"}))
    chain = noop_network(node.root, "disk", **{"from": "conflist"})
    (folder / "50-disk.conflist").write_text(json.dumps(chain))
    node.define("disk", "")
    pod = node.pod("disk")
    assert node.add(pod).exit_code == 0
    assert given(node, "disk")["from"] == "conflist"
    assert node.delete(pod).exit_code == 0


def test_a_default_network_by_the_name_of_a_configuration_makes_no_warning(
    idle_cluster_node: ClusterNode,
) -> None:
    """A25.21."""
    node = idle_cluster_node.node
    node.daemon_keys["clusterNetwork"] = "on-disk"
    config = recording(node, "on-disk", "1.1.1.9/24")
    (node.root / "net.d" / "10.conflist").write_text(json.dumps(config))
    node.start()
    pod = idle_cluster_node.pod()
    assert idle_cluster_node.add(pod).exit_code == 0
    said = ["Normal AddedInterface Add eth0 [1.1.1.9/24] from on-disk"]
    assert idle_cluster_node.events(pod, 1) == said
    assert node.delete(pod).exit_code == 0


def test_one_requests_log_settings_are_no_others(idle_cluster_node: ClusterNode) -> None:
    """A25.22: nor the daemon's."""
    node = idle_cluster_node.node
    node.daemon_keys["logLevel"] = "error"
    node.start()
    pod = idle_cluster_node.pod()
    file = node.root / "of-the-request.log"
    reply = idle_cluster_node.add(pod, logLevel="debug", logFile=str(file), logToStderr=True)
    assert reply.exit_code == 0
    assert node.delete(pod).exit_code == 0
    assert (node.log.read_text(), file.exists()) == ("", False)


SHAPES: dict[str, dict[str, Any]] = {
    "capabilities a list": {"capabilities": ["mac"]},
    "capabilities a text": {"capabilities": "mac"},
    "a capability a number": {"capabilities": {"mac": 1}},
    "args a list": {"args": []},
    "args.cni a text": {"args": {"cni": "x"}},
    "args.cni a list": {"args": {"cni": [1]}},
}


@pytest.mark.parametrize("keys", SHAPES.values(), ids=SHAPES.keys())
def test_an_unexpected_type_is_an_error_and_harms_no_other_pod(
    recording_node: Node, keys: dict[str, Any]
) -> None:
    """A25.25."""
    node = recording_node
    node.define("odd", noop_network(node.root, "odd", **keys))
    reply = node.add(node.pod('[{"name": "odd", "cni-args": {"k": 1}}]'))
    assert (reply.exit_code, reply.code) == (1, 7)
    assert next(iter(keys)) in reply.msg
    assert node.noop_calls() == []
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0


@pytest.mark.parametrize(
    "text", ["kube-system/secret", '[{"name": "secret"}]'], ids=["short", "json"]
)
def test_isolation_holds_for_the_default_network_of_a_pods_choice(
    cluster_node: ClusterNode, text: str
) -> None:
    """A25.28: by no road does a pod get a network of a namespace that isn't open to it."""
    cluster_node.define("secret", recording(cluster_node.node, "secret"), namespace="kube-system")
    annotations = {"v1.multus-cni.io/default-network": text}
    pod = cluster_node.pod(annotations=annotations, namespace="tenant")
    cluster_node.add(pod)
    assert "secret" not in [network for _, _, network in cluster_node.calls()]


def test_the_reason_why_there_is_no_default_network_is_told(recording_node: Node) -> None:
    """A25.31."""
    node = recording_node
    (node.root / "default.conflist").unlink()
    reply = node.add(node.pod(""))
    assert str(node.root / "default.conflist") in reply.msg
    assert "No such file or directory" in reply.msg
    (node.root / "default.conflist").write_text(
        '{"cniVersion": "1.0.0", "name": "x", "plugins": 1}'
    )
    assert "plugins" in node.add(node.pod("")).msg


@pytest.mark.parametrize("code", [7, 11, 50, 51, 111, 999])
def test_a_delegates_code_and_details_reach_the_runtime(recording_node: Node, code: int) -> None:
    """A25.31: "try again later" can be told from what is final."""
    node = recording_node
    failing = noop_network(node.root, "default-net", onADD={"code": code, "msg": "because"})
    (node.root / "default.conflist").write_text(json.dumps(failing))
    reply = node.add(node.pod(""))
    assert (reply.code, reply.json["details"]) == (code, "noop")
    assert "because" in reply.msg
