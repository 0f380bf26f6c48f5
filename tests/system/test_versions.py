"""Plugins and runtimes of different versions of the specification together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.node import Node, bridge_network, ip_json, macvlan_network, noop_network

pytestmark = pytest.mark.system

UP_TO_0_3_1 = ["0.1.0", "0.2.0", "0.3.0", "0.3.1"]


def old_plugin(node: Node, name: str, versions: list[str]) -> None:
    node.plugin(name)
    (node.root / "plugins" / f"{name}.versions").write_text(json.dumps(versions))


def asked(node: Node, name: str) -> list[str]:
    """Return what the plugin refused, or was asked beside its network's calls."""
    path = node.root / "plugins" / f"{name}.asked"
    return path.read_text().split() if path.exists() else []


def made_of(node: Node, *types: str, version: str = "1.1.0", **first: Any) -> None:
    """Make the default network a chain of recording plugins."""
    log = {"log": str(node.root / "noop.log")}
    plugins = [{"type": kind, **log} for kind in types]
    plugins[0] |= first
    config = {"cniVersion": version, "name": "chain", "plugins": plugins}
    (node.root / "default.conflist").write_text(json.dumps(config))


def requests(node: Node, command: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (call["type"], json.loads(call["stdin"]))
        for call in node.noop_calls()
        if call["command"] == command
    ]


def with_details() -> dict[str, Any]:
    """Return a result with what versions before 1.1.0 can't say; CHECK looks for nothing of it."""
    return {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "x0", "sandbox": "/other/netns", "mtu": 1400, "pciID": "0000:00:01.0"}
        ],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "routes": [{"dst": "10.9.0.0/16", "gw": "10.1.2.1", "priority": 7}],
    }


def listed(node: Node, container_id: str) -> bytes:
    valid = [{"containerID": container_id, "ifname": "eth0"}]
    return node.stdin(None, "1.1.0", **{"cni.dev/valid-attachments": valid})


def test_debians_plugins_serve_a_network_of_1_1_0(node: Node) -> None:
    """CNI-SEL-1, CNI-VER-7, CNI-VER-9: they stop at 1.0.0, the runtime speaks 1.1.0."""
    config = bridge_network(node.root) | {"cniVersions": ["0.4.0", "1.0.0", "1.1.0"]}
    config["plugins"].append({"type": "tuning"})
    (node.root / "default.conflist").write_text(json.dumps(config))
    pod = node.pod("macvlan")
    reply = node.add(pod, stdin=node.stdin(pod, "1.1.0"))
    assert reply.exit_code == 0, reply.stdout
    assert reply.json["cniVersion"] == "1.1.0"
    assert [ip["address"] for ip in reply.json["ips"]] == ["10.90.0.2/24"]
    assert [link["ifname"] for link in ip_json("link", namespace=pod.netns.name)] == [
        "lo",
        "eth0",
        "net1",
    ]
    assert node.call("CHECK", pod, stdin=node.stdin(pod, "1.1.0")).stdout == b""
    status = node.call("STATUS", None, stdin=node.stdin(None, "1.1.0"))
    assert (status.exit_code, status.stdout) == (0, b"")
    collected = node.call("GC", None, stdin=listed(node, pod.container_id))
    assert (collected.exit_code, collected.stdout) == (0, b"")
    assert node.pod_links(pod) == {"eth0", "net1"}
    assert node.delete(pod, stdin=node.stdin(pod, "1.1.0")).stdout == b""
    assert (node.pod_links(pod), node.leases(), node.records()) == (set(), [], [])


def test_each_plugin_of_a_chain_is_run_in_a_version_that_it_speaks(recording_node: Node) -> None:
    """CNI-SEL-1, CNI-VER-8, CNI-VER-9, CNI-VER-10, CNI-DLG-3, CNI-DLG-10."""
    node = recording_node
    old_plugin(node, "old", UP_TO_0_3_1)
    pod = node.pod("")
    result = with_details()
    made_of(node, "noop", "old", "noop", result=result)
    reply = node.add(pod, stdin=node.stdin(pod, "1.1.0"))
    assert reply.exit_code == 0, reply.stdout
    (_, first), (_, second), (_, third) = requests(node, "ADD")
    assert [r["cniVersion"] for r in (first, second, third)] == ["1.1.0", "0.3.1", "1.1.0"]
    assert second["prevResult"] == {
        "cniVersion": "0.3.1",
        "interfaces": [{"name": "x0", "sandbox": "/other/netns"}],
        "ips": [{"version": "4", "interface": 0, "address": "127.0.0.1/8"}],
        "routes": [{"dst": "10.9.0.0/16", "gw": "10.1.2.1"}],
    }
    assert third["prevResult"] == result
    assert reply.json == result
    assert [entry["mtu"] for entry in node.status(pod)] == [1400]
    assert node.call("CHECK", pod, stdin=node.stdin(pod, "1.1.0")).exit_code == 0
    assert [kind for kind, _ in requests(node, "CHECK")] == ["noop", "noop"]
    assert node.call("STATUS", None, stdin=node.stdin(None, "1.1.0")).exit_code == 0
    assert node.call("GC", None, stdin=listed(node, pod.container_id)).exit_code == 0
    assert [kind for kind, _ in requests(node, "GC")] == ["noop", "noop"]
    assert node.delete(pod).exit_code == 0
    deleted = requests(node, "DEL")
    assert [(kind, r["cniVersion"]) for kind, r in deleted] == [
        ("noop", "1.1.0"),
        ("old", "0.3.1"),
        ("noop", "1.1.0"),
    ]
    assert ["prevResult" in r for _, r in deleted] == [True, False, True]
    assert node.records() == []


def test_a_plugin_is_asked_for_its_versions_once(recording_node: Node) -> None:
    """CNI-SEL-1: the next pod, and STATUS and GC, begin with what it said."""
    node = recording_node
    old_plugin(node, "old", UP_TO_0_3_1)
    made_of(node, "noop", "old")
    pods = [node.pod("") for _ in range(3)]
    assert [node.add(pod).exit_code for pod in pods] == [0, 0, 0]
    assert node.call("STATUS", None, stdin=node.stdin(None, "1.1.0")).exit_code == 0
    assert asked(node, "old") == ["ADD", "VERSION"]
    assert [r["cniVersion"] for kind, r in requests(node, "ADD") if kind == "old"] == ["0.3.1"] * 3
    assert [node.delete(pod).exit_code for pod in pods] == [0, 0, 0]
    assert asked(node, "old") == ["ADD", "VERSION"]


def test_a_failed_add_is_undone_in_each_plugins_version(recording_node: Node) -> None:
    """CNI-DEL-6, NPWG-53."""
    node = recording_node
    old_plugin(node, "old", UP_TO_0_3_1)
    made_of(node, "old")
    node.define("bad", noop_network(node.root, "bad", onADD={"code": 7, "msg": "no"}))
    assert node.add(node.pod("bad")).code == 7
    assert [(kind, r["cniVersion"]) for kind, r in requests(node, "DEL")] == [
        ("noop", "1.0.0"),
        ("old", "0.3.1"),
    ]
    assert node.records() == []


def test_without_a_daemon_a_del_is_replayed_in_the_plugins_version(recording_node: Node) -> None:
    """CNI-SEL-1, CNI-DLG-18, MULTUS-28."""
    node = recording_node
    old_plugin(node, "old", UP_TO_0_3_1)
    made_of(node, "noop", "old")
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    node.kill()
    reply = node.delete(pod)
    assert reply.exit_code == 0, reply.stdout
    assert [r["cniVersion"] for _, r in requests(node, "DEL")] == ["0.3.1", "1.1.0"]
    assert asked(node, "old") == ["ADD", "VERSION"]


def test_a_plugin_killed_in_its_negotiated_add_is_deleted_in_that_version(
    recording_node: Node,
) -> None:
    """CNI-DEL-7: the record says the version before the plugin does anything."""
    node = recording_node
    old_plugin(node, "old", UP_TO_0_3_1)
    made_of(node, "old", onADD={"sleep": 30})
    pod = node.pod("")
    process = node.popen("ADD", pod)
    assert process.stdin is not None
    process.stdin.write(node.stdin(pod))
    process.stdin.close()
    node.wait_for_noop_calls(1)
    node.kill()
    process.kill()
    process.wait()
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    reply = node.delete(pod)
    assert reply.exit_code == 0, reply.stdout
    assert [r["cniVersion"] for _, r in requests(node, "DEL")] == ["0.3.1"]


def test_a_plugin_replaced_by_an_older_one_still_deletes_and_checks(recording_node: Node) -> None:
    """CNI-DEL-4, CNI-VER-9: the record is in a version that its plugin no longer speaks."""
    node = recording_node
    node.plugin("old")
    made_of(node, "old")
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    old_plugin(node, "old", [*UP_TO_0_3_1, "0.4.0"])
    reply = node.call("CHECK", pod)
    assert (reply.exit_code, reply.code) == (1, 101)  # the recording plugin makes no interface
    assert [r["cniVersion"] for _, r in requests(node, "CHECK")] == ["0.4.0"]
    assert node.delete(pod).exit_code == 0
    [(_, deleted)] = requests(node, "DEL")
    assert deleted["cniVersion"] == deleted["prevResult"]["cniVersion"] == "0.4.0"


def test_an_old_ipam_plugin_serves_a_young_plugin(node: Node) -> None:
    """CNI-SEL-1, CNI-DEL-5: macvlan has made its interface when the IPAM plugin refuses."""
    old_plugin(node, "oldipam", UP_TO_0_3_1)
    address = {"version": "4", "address": "10.91.0.7/24"}
    config = macvlan_network(node.root, log=str(node.root / "noop.log"))
    config["plugins"][0] |= {
        "ipam": {"type": "oldipam"},
        "result": {"cniVersion": "0.3.1", "ips": [address]},
    }
    node.define("old", config)
    for _ in range(2):
        pod = node.pod("old")
        reply = node.add(pod)
        assert reply.exit_code == 0, reply.stdout
        assert [entry["ips"] for entry in node.status(pod)][1:] == [["10.91.0.7"]]
        assert node.pod_links(pod) == {"eth0", "net1"}
        assert node.call("CHECK", pod).exit_code == 0
        assert node.delete(pod).stdout == b""
        assert (node.pod_links(pod), node.records()) == (set(), [])
    assert asked(node, "oldipam") == ["ADD", "VERSION"]
    assert {r["cniVersion"] for _, r in requests(node, "ADD")} == {"0.3.1"}
    assert len(requests(node, "ADD")) == 2


def test_a_plugin_may_be_younger_than_its_network(recording_node: Node) -> None:
    """CNI-SEL-1, CNI-VER-8."""
    node = recording_node
    old_plugin(node, "young", ["1.0.0", "1.1.0"])
    made_of(node, "noop", "young", version="0.3.1")
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    [_, (_, request)] = requests(node, "ADD")
    assert request["cniVersion"] == request["prevResult"]["cniVersion"] == "1.0.0"
    assert node.delete(pod).exit_code == 0
    assert [r.get("prevResult", {}).get("cniVersion") for _, r in requests(node, "DEL")] == [
        "1.0.0",
        None,
    ]


@pytest.mark.parametrize(("place", "versions"), [(0, ["2.0.0"]), (1, ["0.1.0", "0.2.0"])])
def test_a_plugin_that_speaks_no_common_version_fails_the_pod_and_leaves_nothing(
    recording_node: Node, place: int, versions: list[str]
) -> None:
    """CNI-SEL-2, CNI-VER-5, CNI-DEL-6: it never ran, so its DEL can't fail."""
    node = recording_node
    old_plugin(node, "alien", versions)
    made_of(node, *(["alien", "noop"] if place == 0 else ["noop", "alien"]))
    pod = node.pod("")
    reply = node.add(pod)
    assert (reply.exit_code, reply.code) == (1, 1)
    assert "plugin alien: incompatible CNI versions" in reply.msg
    assert node.records() == []
    assert node.delete(pod).exit_code == 0
    assert [kind for kind, _ in requests(node, "DEL")] == ["noop"]


def test_code_1_of_a_plugin_that_speaks_the_version_is_passed_on(recording_node: Node) -> None:
    """CNI-ERR-3: the refusal was of something else."""
    node = recording_node
    config = noop_network(node.root, "n", onADD={"code": 1, "msg": "something else"})
    (node.root / "default.conflist").write_text(json.dumps(config))
    pod = node.pod("")
    reply = node.add(pod)
    assert (reply.code, "something else" in reply.msg) == (1, True)
    assert (node.records(), len(requests(node, "ADD"))) == ([], 1)


def test_a_plugin_that_is_run_again_keeps_the_time_for_undoing_it(recording_node: Node) -> None:
    """CNI-DEL-6, CNI-SEL-1: what its first run and its DEL took is gone from the request's."""
    node = recording_node
    node.stop()
    node.daemon_keys["deadlines"] = {"requestSeconds": 9, "rollbackSeconds": 4}
    node.start()
    old_plugin(node, "oldipam", UP_TO_0_3_1)
    made_of(
        node,
        "noop",
        ipam={"type": "oldipam"},
        onADD={"sleep": 3, "code": 1, "msg": "incompatible CNI versions"},
    )
    reply = node.add(node.pod(""))
    assert (reply.exit_code, "was killed" in reply.msg) == (1, True), reply.msg
    assert [r["cniVersion"] for _, r in requests(node, "DEL")] == ["0.3.1", "0.3.1"]
    assert node.records() == []
