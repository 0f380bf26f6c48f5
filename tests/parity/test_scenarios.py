"""What Multus's own tests pin down, as black boxes: an annotation goes in; delegates' calls,
result, network-status and events come out. Each docstring or case names its row of part E.

Weave1, other1, net1… are networks of the recording plugin; the runtime passes no annotations on, so
that they come from the API server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.parity.cluster_node import ClusterNode, recording
from tests.system.node import Reply, noop_network

pytestmark = pytest.mark.system

ADDRESSES = {"net1": "1.1.1.3/24", "net2": "1.1.1.4/24", "net3": "1.1.1.5/24"}
OPEN = {"namespaceIsolation": False}


def define_all(cluster_node: ClusterNode, **keys: Any) -> None:
    """Define net1 to net3 in namespace test, and net1 in kube-system and in other."""
    for name, address in ADDRESSES.items():
        config = recording(cluster_node.node, name, address, **keys)
        cluster_node.define(name, config, namespace="test")
    for namespace in ("kube-system", "other"):
        config = recording(cluster_node.node, f"{namespace}-net1", **keys)
        cluster_node.define("net1", config, namespace=namespace)


@dataclass(frozen=True)
class Attached:
    """The networks of an annotation, by interface, and what status says of their names."""

    networks: str
    interfaces: tuple[tuple[str, str], ...]  # interface, CNI network
    status: tuple[str, ...]  # names
    keys: dict[str, Any] = field(default_factory=dict)  # of the daemon


TWO = Attached("net1,net2", (("net1", "net1"), ("net2", "net2")), ("test/net1", "test/net2"))
ATTACHED = {
    "E1.8 E2.1 two by name": TWO,
    "E2.27 of a namespace": Attached(
        "kube-system/net1", (("net1", "kube-system-net1"),), ("kube-system/net1",), OPEN
    ),
    "E2.27 to an interface": Attached(
        "net1@my_interface", (("my_interface", "net1"),), ("test/net1",)
    ),
    "E2.27 both": Attached(
        "other/net1@my_interface", (("my_interface", "other-net1"),), ("other/net1",), OPEN
    ),
    "E2.3 json, another namespace, old keys": Attached(
        '[{"name": "net1"}, {"name": "net2", "ipRequest": "10.0.0.1", "macRequest": "x"},'
        '{"name": "net1", "namespace": "other"}]',
        (("net1", "net1"), ("net2", "net2"), ("net3", "other-net1")),
        ("test/net1", "test/net2", "other/net1"),
        OPEN,
    ),
    "E2.5 a default route in the middle": Attached(
        '[{"name": "net1"}, {"name": "net2", "default-route": []}, {"name": "net3"}]',
        (("net1", "net1"), ("net2", "net2"), ("net3", "net3")),
        ("test/net1", "test/net2", "test/net3"),
    ),
    "E2.23 a namespace that is open": Attached(
        "kube-system/net1",
        (("net1", "kube-system-net1"),),
        ("kube-system/net1",),
        {"globalNamespaces": ["kube-system", "donkey-kong"]},
    ),
    "E2.27 blanks do not matter": Attached(" net1 , net2 ", TWO.interfaces, TWO.status),
}


@pytest.mark.parametrize("case", ATTACHED.values(), ids=ATTACHED.keys())
def test_a_selection_is_attached_in_order_and_told(
    idle_cluster_node: ClusterNode, case: Attached
) -> None:
    """E1.8, E1.9, E2.1, E2.3, E2.5, E2.23, E2.27: ADD in order, the default network's result,
    status and one event for each; DEL in reverse, though the pod and its networks are gone."""
    cluster_node = idle_cluster_node
    cluster_node.node.daemon_keys.update(case.keys)
    define_all(cluster_node)
    cluster_node.node.start()
    pod = cluster_node.pod(case.networks, namespace="test")
    reply = cluster_node.add(pod)
    assert reply.exit_code == 0, reply.stdout
    assert [ip["address"] for ip in reply.json["ips"]] == ["1.1.1.2/24"]
    expected = [("eth0", "weave1"), *case.interfaces]
    assert cluster_node.calls() == [("ADD", *pair) for pair in expected]
    status = cluster_node.status(pod)
    assert [entry["name"] for entry in status] == ["weave1", *case.status]
    assert [entry.get("default", False) for entry in status] == [True] + [False] * len(case.status)
    events = cluster_node.events(pod, len(expected))
    assert [event for event in events if not event.startswith("Normal AddedInterface")] == []
    assert len(events) == len(expected)
    cluster_node.server.delete("Pod", "test", pod.name)
    for name in ADDRESSES:
        cluster_node.server.delete("NetworkAttachmentDefinition", "test", name)
    assert cluster_node.node.delete(pod).exit_code == 0
    assert cluster_node.calls()[len(expected) :] == [("DEL", *pair) for pair in expected[::-1]]


def test_the_events_of_two_networks_are_these(cluster_node: ClusterNode) -> None:
    """E1.8: word for word, and no others."""
    define_all(cluster_node)
    pod = cluster_node.pod("net1,net2", namespace="test")
    assert cluster_node.add(pod).exit_code == 0
    assert cluster_node.events(pod, 3) == [
        "Normal AddedInterface Add eth0 [1.1.1.2/24] from weave1",
        "Normal AddedInterface Add net1 [1.1.1.3/24] from test/net1",
        "Normal AddedInterface Add net2 [1.1.1.4/24] from test/net2",
    ]
    assert cluster_node.node.delete(pod).exit_code == 0


REFUSED: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "E2.2 a network that is missing": ("net1,missing", 7, ("'missing'", "'test'")),
    "E2.4 no json": ("[adsfasdfasdfasf]", 6, ("networks",)),
    "E2.22 isolation": ("kube-system/net1", 7, ("'test'", "'kube-system'")),
    "E2.26 two slashes": ("a/b/net1", 7, ("networks[0]",)),
    "E2.26 two ats": ("net1@a@b", 7, ("networks[0]",)),
    "E2.26 two users": ("root@someIP/root@someOtherIP", 7, ("networks[0]",)),
    "E2.26 an interface with a blank": ("net1@my interface", 7, ("networks[0].interface",)),
    "E2.26 an interface too long": ("net1@sixteen_letters_", 7, ("networks[0].interface",)),
}


@pytest.mark.parametrize(("networks", "code", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_a_selection_that_can_not_be_is_refused_before_anything_runs(
    cluster_node: ClusterNode, networks: str, code: int, named: tuple[str, ...]
) -> None:
    """E2.2, E2.4, E2.22, E2.26: a clear error, and an event that says the same."""
    define_all(cluster_node)
    pod = cluster_node.pod(networks, namespace="test")
    reply = cluster_node.add(pod)
    assert (reply.exit_code, reply.code) == (1, code)
    assert [text for text in named if text not in reply.msg] == []
    assert cluster_node.calls() == []
    [event] = cluster_node.events(pod, 1)
    assert event.startswith(("Warning FailedAddingInterface", "Warning NoNetworkFound"))
    assert named[0] in event


def inline(cluster_node: ClusterNode, second: dict[str, Any], *, name: str = "other1") -> Any:
    return [
        recording(cluster_node.node, "weave1", "1.1.1.2/24"),
        noop_network(cluster_node.node.root, name, **second),
    ]


SECOND: dict[str, tuple[dict[str, Any], int]] = {
    "E1.2 both give an address": (
        {"result": {"cniVersion": "1.0.0", "ips": [{"address": "1.1.1.5/24"}]}},
        0,
    ),
    "E1.3 the second gives nothing": ({"result": {"cniVersion": "1.0.0"}}, 0),
    "E1.6 the second fails": ({"onADD": {"code": 100, "msg": "expected plugin failure"}}, 100),
}


@pytest.mark.parametrize(("second", "code"), SECOND.values(), ids=SECOND.keys())
def test_two_inline_delegates(cluster_node: ClusterNode, second: dict[str, Any], code: int) -> None:
    """E1.2, E1.3, E1.6: the first one's result; both deleted in reverse, the failing one too."""
    delegates = inline(cluster_node, second)
    pod = cluster_node.pod()
    reply = cluster_node.add(pod, delegates=delegates)
    assert reply.code == code
    if code:
        assert "expected plugin failure" in reply.msg
        assert "other1" in reply.msg
    else:
        assert [ip["address"] for ip in reply.json["ips"]] == ["1.1.1.2/24"]
        assert cluster_node.node.delete(pod).exit_code == 0
    assert cluster_node.calls() == [
        ("ADD", "eth0", "weave1"),
        ("ADD", "net1", "other1"),
        ("DEL", "net1", "other1"),
        ("DEL", "eth0", "weave1"),
    ]


def test_a_delegate_without_a_name_is_refused_before_any_other_runs(
    cluster_node: ClusterNode,
) -> None:
    """E1.7: Multus has attached the first one by then, and takes it back."""
    delegates = inline(cluster_node, {}, name="")
    reply = cluster_node.add(cluster_node.pod(), delegates=delegates)
    assert (reply.code, cluster_node.calls()) == (7, [])
    assert "delegates[1]: name" in reply.msg


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_a_truncated_configuration_is_an_error(cluster_node: ClusterNode, command: str) -> None:
    """E1.5, E3.2."""
    pod = cluster_node.pod()
    stdin = cluster_node.node.stdin(pod)[:-10]
    assert cluster_node.node.call(command, pod, stdin=stdin).code == 6
    assert cluster_node.calls() == []


def test_a_default_network_of_a_definition(cluster_node: ClusterNode) -> None:
    """E1.10, E2.9: by `clusterNetwork` in the runtime's configuration, in kube-system; a pod that
    chooses the same one has it once."""
    define_all(cluster_node)
    chosen = {"v1.multus-cni.io/default-network": "kube-system/net1"}
    for choice in ({}, chosen):
        pod = cluster_node.pod(annotations=choice, namespace="kube-system")
        before = len(cluster_node.calls())
        extra = {"clusterNetwork": "net1", "delegates": []}
        assert cluster_node.add(pod, **extra).exit_code == 0
        assert cluster_node.node.delete(pod).exit_code == 0
        made = cluster_node.calls()[before:]
        assert made == [(command, "eth0", "kube-system-net1") for command in ("ADD", "DEL")]


def test_a_pod_that_comes_late_is_attached_when_the_runtime_tries_again(
    cluster_node: ClusterNode,
) -> None:
    """E1.11, E1.22: code 11 and no delegate until it is there; Multus waits, or makes it up."""
    pod = cluster_node.pod(exists=False)
    late = cluster_node.add(pod)
    assert (late.code, cluster_node.calls()) == (11, [])
    cluster_node.create(pod, "")
    assert cluster_node.add(pod).exit_code == 0
    assert cluster_node.node.delete(pod).exit_code == 0


def test_a_del_whose_record_is_lost_is_made_of_what_the_cluster_says(
    cluster_node: ClusterNode,
) -> None:
    """E1.12, E1.13: a file of the container's is there after ADD; without it DEL runs both."""
    define_all(cluster_node)
    pod = cluster_node.pod("net1", namespace="test")
    assert cluster_node.add(pod).exit_code == 0
    [record] = cluster_node.node.records()
    assert record.startswith(pod.container_id)
    (cluster_node.node.root / "state" / "attachments" / record).unlink()
    assert cluster_node.node.delete(pod).exit_code == 0
    assert cluster_node.calls()[2:] == [("DEL", "net1", "net1"), ("DEL", "eth0", "weave1")]


REQUEST = {
    "mac": "c2:11:22:33:44:66",
    "ips": ["10.0.0.1"],
    "bandwidth": {
        "ingressRate": 2048,
        "ingressBurst": 1600,
        "egressRate": 4096,
        "egressBurst": 1600,
    },
    "portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8000, "containerPort": 8001, "protocol": "udp"},
    ],
}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_what_the_pod_asks_for_is_the_plugins_runtime_config(
    cluster_node: ClusterNode, version: str
) -> None:
    """E1.14: exactly that, in every version."""
    capabilities = dict.fromkeys(REQUEST, True)
    config = noop_network(cluster_node.node.root, "net1", capabilities=capabilities)
    cluster_node.define("net1", config | {"cniVersion": version})
    pod = cluster_node.pod(json.dumps([{"name": "net1", **REQUEST}]))
    assert cluster_node.add(pod).exit_code == 0
    given = json.loads(cluster_node.node.noop_calls()[1]["stdin"])
    assert (given["runtimeConfig"], given["cniVersion"]) == (REQUEST, version)
    assert cluster_node.node.delete(pod).exit_code == 0


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_a_list_of_delegates_gets_the_runtimes_ports_and_lives_and_dies(
    cluster_node: ClusterNode, version: str
) -> None:
    """E1.15, E1.16, E1.17: name and version injected; CHECK of both after ADD."""
    node = cluster_node.node
    quiet = {"result": {"cniVersion": version}}
    first = noop_network(node.root, "weave-list", capabilities={"portMappings": True}, **quiet)
    delegates = [
        network | {"cniVersion": version}
        for network in (first, noop_network(node.root, "b", **quiet))
    ]
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    extra = {"delegates": delegates, "runtimeConfig": {"portMappings": ports}}
    pod = cluster_node.pod()
    stdin = node.stdin(pod, version, **extra)
    assert node.call("ADD", pod, stdin=stdin).exit_code == 0
    given = json.loads(node.noop_calls()[0]["stdin"])
    assert (given["name"], given["cniVersion"]) == ("weave-list", version)
    assert given["runtimeConfig"] == {"portMappings": ports}
    if version != "0.3.1":
        assert node.call("CHECK", pod, stdin=stdin).exit_code == 0
        assert [call for call in cluster_node.calls() if call[0] == "CHECK"] == [
            ("CHECK", "eth0", "weave-list"),
            ("CHECK", "net1", "b"),
        ]
    assert node.call("DEL", pod, stdin=stdin).exit_code == 0
    assert cluster_node.calls()[-1] == ("DEL", "eth0", "weave-list")


@pytest.mark.parametrize(("object_uid", "code"), [("testUID", 11), ("foobar", 0)])
def test_a_pods_uid_must_be_the_one_that_the_runtime_names(
    cluster_node: ClusterNode, object_uid: str, code: int
) -> None:
    """E1.18, E1.19, E2.28: both are told where they differ."""
    define_all(cluster_node)
    pod = cluster_node.pod("net1", namespace="test", uid="foobar", object_uid=object_uid)
    reply = cluster_node.add(pod)
    assert reply.code == code
    if code:
        assert "foobar" in reply.msg
        assert "testUID" in reply.msg
    assert len(cluster_node.calls()) == (0 if code else 2)


@pytest.mark.parametrize("uid", ["testUID", ""])
def test_the_environment_of_delegates(cluster_node: ClusterNode, uid: str) -> None:
    """E1.20: the default network's is the runtime's own, to the letter; others get the pod's
    keys."""
    define_all(cluster_node)
    pod = cluster_node.pod("net1", namespace="test", uid=uid)
    assert cluster_node.add(pod).exit_code == 0
    default, extra = (call["env"] for call in cluster_node.node.noop_calls())
    assert default["CNI_ARGS"] == pod.args
    assert extra["CNI_ARGS"] == pod.args.replace("IgnoreUnknown=1", "IgnoreUnknown=true")
    assert (extra["CNI_COMMAND"], extra["CNI_IFNAME"]) == ("ADD", "net1")
    same = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_PATH")
    assert [default[key] for key in same] == [extra[key] for key in same]
    assert cluster_node.node.delete(pod).exit_code == 0


def sandboxless(cluster_node: ClusterNode, command: str, **extra: Any) -> Reply:
    stdin = cluster_node.node.stdin(None, "1.1.0", **extra)
    return cluster_node.node.call(command, None, stdin=stdin)


def lists_of_1_1(cluster_node: ClusterNode, **keys: Any) -> list[dict[str, Any]]:
    root = cluster_node.node.root
    return [noop_network(root, name, **keys) | {"cniVersion": "1.1.0"} for name in ("a", "b")]


def test_status_asks_the_default_network_alone(cluster_node: ClusterNode) -> None:
    """E1.21, E4.2: once, with name and version injected, and no variable but CNI_COMMAND."""
    delegates = lists_of_1_1(cluster_node)
    assert sandboxless(cluster_node, "STATUS", delegates=delegates).exit_code == 0
    [call] = cluster_node.node.noop_calls()
    expected = {**delegates[0]["plugins"][0], "name": "a", "cniVersion": "1.1.0"}
    assert json.loads(call["stdin"]) == expected
    given = {key for key in call["env"] if key != "CNI_PATH"}
    assert given == {"CNI_COMMAND"}


def test_a_status_error_keeps_its_code_and_words(cluster_node: ClusterNode) -> None:
    """E1.23."""
    delegates = lists_of_1_1(cluster_node, onSTATUS={"code": 50, "msg": "status failed"})
    reply = sandboxless(cluster_node, "STATUS", delegates=delegates)
    assert reply.code == 50
    assert "status failed" in reply.msg


def test_gc_names_each_networks_attachments(cluster_node: ClusterNode) -> None:
    """E1.24: those of the network, by its own interface name, of sandboxes that the runtime
    lists."""
    quiet = {"result": {"cniVersion": "1.1.0"}}
    delegates = lists_of_1_1(cluster_node, **quiet)
    pod = cluster_node.pod()
    assert cluster_node.add(pod, delegates=delegates).exit_code == 0
    valid = [{"containerID": pod.container_id, "ifname": "eth0"}]
    extra = {"delegates": delegates, "cni.dev/valid-attachments": valid}
    assert sandboxless(cluster_node, "GC", **extra).exit_code == 0
    collected = {
        (given := json.loads(call["stdin"]))["name"]: given["cni.dev/valid-attachments"]
        for call in cluster_node.node.noop_calls()
        if call["command"] == "GC"
    }
    assert collected["a"] == valid
    assert collected.get("b", [{**valid[0], "ifname": "net1"}]) == [{**valid[0], "ifname": "net1"}]
    assert cluster_node.node.delete(pod).exit_code == 0


def test_gc_of_a_node_without_attachments_runs_each_plugin_once(cluster_node: ClusterNode) -> None:
    """E1.25."""
    delegates = lists_of_1_1(cluster_node)[:1]
    extra = {"delegates": delegates, "cni.dev/valid-attachments": []}
    assert sandboxless(cluster_node, "GC", **extra).exit_code == 0
    assert cluster_node.calls() == [("GC", "", "a")]
