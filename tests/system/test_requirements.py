"""Requirements of the CNI specification that no other test shows, with the recording plugin."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from typing import Any

import pytest

from tests.system.node import Node, noop_network

pytestmark = pytest.mark.system

PLAIN = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}], "dns": {"domain": "here"}}


def network(node: Node, name: str, **keys: Any) -> dict[str, Any]:
    """Return a network of 1.1.0 whose result names no interface that CHECK would look for."""
    return noop_network(node.root, name, result=PLAIN, **keys) | {"cniVersion": "1.1.0"}


def use_default(node: Node, **keys: Any) -> None:
    text = json.dumps(network(node, "default-net", **keys))
    (node.root / "default.conflist").write_text(text)


def calls(node: Node, command: str) -> list[dict[str, Any]]:
    return [call for call in node.noop_calls() if call["command"] == command]


def collect(node: Node, *valid: str) -> bytes:
    listed = [{"containerID": container_id, "ifname": "eth0"} for container_id in valid]
    return node.stdin(None, "1.1.0", **{"cni.dev/valid-attachments": listed})


def test_unknown_keys_of_the_runtimes_configuration_are_ignored(recording_node: Node) -> None:
    """CNI-IN-8."""
    pod = recording_node.pod("")
    stdin = recording_node.stdin(pod, tomorrow={"a": [None, 1.5]}, ipam=7, dns="x")
    assert recording_node.add(pod, stdin=stdin).exit_code == 0
    assert recording_node.delete(pod, stdin=stdin).exit_code == 0


def test_only_an_add_prints_on_success(recording_node: Node) -> None:
    """CNI-ERR-5, CNI-CHK-5, CNI-CHK-6, CNI-GC-7, also where delegates do print."""
    node = recording_node
    loud = {"print": '{"cniVersion": "1.1.0"}', "stderr": "hello"}
    use_default(node, onCHECK=loud, onDEL=loud, onGC=loud, onSTATUS=loud)
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    asked = node.stdin(None, "1.1.0")
    replies = [
        node.call("CHECK", pod),
        node.call("STATUS", None, stdin=asked),
        node.call("GC", None, stdin=collect(node, pod.container_id)),
        node.delete(pod),
    ]
    assert [(reply.exit_code, reply.stdout) for reply in replies] == [(0, b"")] * 4
    assert all("hello" in reply.stderr for reply in replies)


def test_check_gets_what_add_got_and_made_whatever_has_become_of_it(recording_node: Node) -> None:
    """CNI-DLG-11, CNI-DLG-19, CNI-CHK-1, CNI-CHK-2, MULTUS-26: configuration, cluster and network
    have gone or changed since."""
    node = recording_node
    use_default(node, x=1)
    node.define("extra", network(node, "extra", x=2))
    pod = node.pod("extra")
    assert node.add(pod).exit_code == 0
    use_default(node, x=3)
    (node.root / "manifests").rename(node.root / "gone")
    assert node.call("CHECK", pod, stdin=node.stdin(None)).exit_code == 0
    for added, checked in zip(calls(node, "ADD"), calls(node, "CHECK"), strict=True):
        request = json.loads(checked["stdin"])
        assert request.pop("prevResult") == PLAIN | {"cniVersion": "1.1.0"}
        assert request == json.loads(added["stdin"])
        same = {key: value for key, value in added["env"].items() if key != "CNI_COMMAND"}
        assert same == {k: v for k, v in checked["env"].items() if k != "CNI_COMMAND"}
    assert node.delete(pod).exit_code == 0


def test_check_of_what_was_never_added_fails(recording_node: Node) -> None:
    """CNI-CHK-7."""
    reply = recording_node.call("CHECK", recording_node.pod(""))
    assert (reply.exit_code, reply.code) == (1, 3)
    assert calls(recording_node, "CHECK") == []


def test_gc_goes_on_past_errors_and_tells_all_of_them(recording_node: Node) -> None:
    """CNI-GC-5: what failed stays on record, for the next time."""
    node = recording_node
    use_default(node, onGC={"code": 90, "msg": "collecting"}, onDEL={"code": 91, "msg": "stuck"})
    pods = [node.pod("") for _ in range(3)]
    for pod in pods:
        assert node.add(pod).exit_code == 0
    reply = node.call("GC", None, stdin=collect(node, pods[0].container_id))
    assert reply.exit_code == 1
    assert (reply.msg.count("stuck"), reply.msg.count("collecting")) == (2, 1)
    deleted = sorted(call["env"]["CNI_CONTAINERID"] for call in calls(node, "DEL"))
    assert deleted == sorted(pod.container_id for pod in pods[1:])
    assert len(node.records()) == 3
    assert node.locks() == []


def test_gc_is_not_passed_to_a_network_that_disables_it(recording_node: Node) -> None:
    """CNI-GC-6, CNI-DLG-15."""
    node = recording_node
    config = network(node, "default-net") | {"disableGC": True}
    (node.root / "default.conflist").write_text(json.dumps(config))
    node.define("extra", network(node, "extra"))
    pod = node.pod("extra")
    assert node.add(pod).exit_code == 0
    assert node.call("GC", None, stdin=collect(node, pod.container_id)).exit_code == 0
    assert [json.loads(call["stdin"])["name"] for call in calls(node, "GC")] == ["extra"]
    assert node.delete(pod).exit_code == 0


def test_gc_works_on_a_node_that_has_seen_no_add(recording_node: Node) -> None:
    """CNI-GC-8, CNI-GC-10: the default network's plugins hear that nothing is valid."""
    node = recording_node
    use_default(node)
    assert node.call("GC", None, stdin=collect(node)).exit_code == 0
    [call] = calls(node, "GC")
    request = json.loads(call["stdin"])
    assert request["cni.dev/valid-attachments"] == request["cni.dev/attachments"] == []
    assert call["env"] == {"CNI_COMMAND": "GC", "CNI_PATH": call["env"]["CNI_PATH"]}


def test_gc_spares_what_a_lost_record_might_be(recording_node: Node) -> None:
    """CNI-GC-4: state was lost, so what the delegates hold may be a live attachment's."""
    node = recording_node
    use_default(node)
    assert node.call("GC", None, stdin=collect(node, "unknown")).exit_code == 0
    assert calls(node, "GC") == []


def test_status_is_true_of_an_outage_of_the_cluster(recording_node: Node) -> None:
    """CNI-STA-1, CNI-STA-4: with a copy of the default network an ADD would work, without one
    not."""
    node = recording_node
    node.define("main", network(node, "main"), namespace="kube-system")
    node.daemon_keys["clusterNetwork"] = "main"
    node.restart()
    (node.root / "manifests").rename(node.root / "gone")
    asked = node.stdin(None, "1.1.0")
    assert node.call("STATUS", None, stdin=asked).code == 50
    (node.root / "gone").rename(node.root / "manifests")
    assert node.call("STATUS", None, stdin=asked).exit_code == 0
    (node.root / "manifests").rename(node.root / "gone")
    node.stop()
    node.start()
    assert node.call("STATUS", None, stdin=asked).exit_code == 0
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0


def test_a_status_that_never_ends_is_a_network_that_is_not_ready(recording_node: Node) -> None:
    """CNI-STA-6."""
    node = recording_node
    use_default(node, onSTATUS={"sleep": 60})
    reply = node.call("STATUS", None, stdin=node.stdin(None, "1.1.0"))
    assert (reply.exit_code, reply.code) == (1, 50)
    assert "default-net" in reply.msg
    assert reply.took < 40


def test_a_delegates_own_code_11_of_status_is_kept(recording_node: Node) -> None:
    """CNI-STA-3."""
    use_default(recording_node, onSTATUS={"code": 11, "msg": "soon"})
    reply = recording_node.call("STATUS", None, stdin=recording_node.stdin(None, "1.1.0"))
    assert (reply.code, "soon" in reply.msg) == (11, True)


def test_one_pods_delegates_never_run_at_the_same_time(recording_node: Node) -> None:
    """NPWG-52, NPWG-55: each begins after the one before it has ended."""
    node = recording_node
    for name in ("a", "b"):
        node.define(name, network(node, name, onADD={"sleep": 0.3}))
    pod = node.pod("a,b,a")
    assert node.add(pod).exit_code == 0
    began = [call["time"] for call in calls(node, "ADD")]
    assert began == sorted(began)
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(began[1:]))
    assert node.delete(pod).exit_code == 0


def test_an_address_is_the_same_however_a_plugin_spells_it(recording_node: Node) -> None:
    """CNI-CHK-6, NPWG-29."""
    node = recording_node
    spelt = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "net1", "sandbox": "SANDBOX"}],
        "ips": [{"address": "FD00:0:0::00A2/64", "interface": 0, "gateway": "FD00::0001"}],
        "routes": [{"dst": "::/0", "gw": "FD00::0001"}],
    }
    script = node.plugin("making")
    text = script.read_text().replace(
        'if command == "ADD":',
        'if command == "ADD":\n        make()',
        1,
    )
    make = (
        "def make() -> None:\n"
        '    name = os.path.basename(os.environ["CNI_NETNS"])\n'
        '    for line in ("link add net1 type bridge", "link set net1 up",\n'
        '                 "address add fd00::a2/64 dev net1 nodad"):\n'
        '        subprocess.run(["ip", "-n", name, *line.split()], check=True)\n\n\n'
    )
    script.write_text(text.replace("def record(", make + "def record(", 1))
    pod = node.pod('[{"name": "making", "default-route": []}]')
    result = json.loads(json.dumps(spelt).replace("SANDBOX", str(pod.netns)))
    config = noop_network(node.root, "making", result=result)
    config["plugins"][0]["type"] = "making"
    node.define("making", config)
    use_default(node)
    reply = node.add(pod)
    assert reply.exit_code == 0, reply.stdout
    check = node.call("CHECK", pod)
    assert check.exit_code == 0, check.stdout
    subprocess.run(["ip", "-n", pod.netns.name, "link", "del", "net1"], check=True)
    assert node.call("CHECK", pod).code == 101
    assert node.delete(pod).exit_code == 0
