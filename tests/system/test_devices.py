"""Devices from the kubelet's allocation to the pod's interfaces: a real daemon, a real gRPC
pod-resources server, Debian's host-device plugin on a made sysfs, and a plugin that records."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubelet.podresources import Claimed, FakeKubelet
from tests.kubelet.podresources import Pod as Given
from tests.system.fake_sysfs import FakeSysfs, fake_sysfs
from tests.system.node import Node, Pod, Reply, host_local, ip_json, new_root, noop_network

pytestmark = pytest.mark.system

VF, FAST = "example.com/vf", "example.com/fast"
PF = "0000:03:00.0"
ADDRESSES = [f"0000:03:10.{n}" for n in range(0, 8, 2)]
RESOURCE = "k8s.v1.cni.cncf.io/resourceName"


@pytest.fixture
def sysfs() -> Iterator[FakeSysfs]:
    """A port with four virtual functions, pf0v0 to pf0v3."""
    with fake_sysfs() as tree:
        tree.function(PF, "pf0", driver="igb")
        for number, address in enumerate(ADDRESSES):
            tree.virtual_function(address, f"pf0v{number}", of=PF)
        yield tree


@pytest.fixture
def node(sysfs: FakeSysfs, kubelet: FakeKubelet, idle_node: Node) -> Node:
    """A node of real plugins: `vf` and `fast` move devices into pods."""
    ipam = host_local(idle_node.root, "10.95.0.0/24")
    plugin = {"type": "host-device", "capabilities": {"deviceID": True}, "ipam": ipam}
    for name, resource in (("vf", VF), ("fast", FAST)):
        define(idle_node, name, {"cniVersion": "1.0.0", "plugins": [plugin]}, resource)
    idle_node.use(kubelet)
    idle_node.start()
    return idle_node


@pytest.fixture
def recorder(kubelet: FakeKubelet) -> Iterator[Node]:
    """A node of the recording plugin: `vf` and `fast` are its networks of devices."""
    root = new_root()
    node = Node(root, noop_network(root, "default-net"))
    node.plugin("noop")
    capabilities = {"deviceID": True, "CNIDeviceInfoFile": True}
    for name, resource in (("vf", VF), ("fast", FAST)):
        define(node, name, noop_network(root, name, capabilities=capabilities), resource)
    node.use(kubelet)
    node.start()
    yield node
    sys.stdout.write(node.log.read_text())
    node.close()


def define(node: Node, name: str, config: dict[str, Any], resource: str) -> None:
    document = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"namespace": "default", "name": name, "annotations": {RESOURCE: resource}},
        "spec": {"config": json.dumps(config)},
    }
    node.write_manifest(f"{name}.yaml", document)


def admit(kubelet: FakeKubelet, pod: Pod, **containers: dict[str, list[str]]) -> Pod:
    """Have the kubelet give devices to a pod, by container."""
    pod.uid = pod.uid or f"uid-{pod.name}"
    kubelet.admit(pod.namespace, pod.name, Given(uid=pod.uid, containers=containers))
    return pod


def alias(pod: Pod, ifname: str) -> str:
    """Return which of the node's interfaces one of the pod's was."""
    (link,) = ip_json("link", "show", ifname, namespace=pod.netns.name)
    return str(link["ifalias"])


def devices(node: Node, container_id: str) -> dict[str, str]:
    """Return what the recording plugin got at ADD, by interface."""
    calls = [call for call in node.noop_calls() if call["command"] == "ADD"]
    mine = [call for call in calls if call["env"]["CNI_CONTAINERID"] == container_id]
    given = {call["env"]["CNI_IFNAME"]: json.loads(call["stdin"]).get("deviceID") for call in mine}
    return {ifname: device for ifname, device in given.items() if device}


def test_each_network_gets_its_device_of_its_resource(node: Node, kubelet: FakeKubelet) -> None:
    """DEV-2, MULTUS-10: two resources, two containers, one network twice."""
    before = node.host_links()
    pod = node.pod("vf, fast, vf")
    admit(kubelet, pod, z={VF: [ADDRESSES[2]]}, a={VF: [ADDRESSES[0]], FAST: [ADDRESSES[1]]})
    assert node.add(pod).exit_code == 0
    assert [alias(pod, f"net{n}") for n in (1, 2, 3)] == ["pf0v2", "pf0v1", "pf0v0"]
    assert len(kubelet.asked) == 1
    assert node.call("CHECK", pod).exit_code == 0
    kubelet.stop()
    assert node.delete(pod).exit_code == 0
    assert len(kubelet.asked) == 1
    assert (node.host_links(), node.leases(), node.records()) == (before, [], [])


def test_an_element_says_which_device_it_means(node: Node, kubelet: FakeKubelet) -> None:
    elements = [
        {"name": "vf"},
        {"name": "vf", "container": "b"},
        {"name": "vf", "deviceID": ADDRESSES[0]},
    ]
    pod = node.pod(json.dumps(elements))
    admit(kubelet, pod, a={VF: ADDRESSES[:2]}, b={VF: ADDRESSES[2:3]})
    assert node.add(pod).exit_code == 0
    assert [alias(pod, f"net{n}") for n in (1, 2, 3)] == ["pf0v1", "pf0v2", "pf0v0"]
    assert node.delete(pod).exit_code == 0


def test_a_device_of_a_claim_is_handed_over(recorder: Node, kubelet: FakeKubelet) -> None:
    """A24.1, without an API server: by the claim's name, the id that of its CDI device."""
    pod = recorder.pod(json.dumps([{"name": "vf"}, {"name": "fast", "claim": "pod-nic"}]))
    claim = Claimed(
        claim="pod-nic", driver="d", pool="node", device="vf0", cdi=(f"d/nic={ADDRESSES[1]}",)
    )
    pod.uid = "u"
    devices_of_app = {VF: [ADDRESSES[0]]}
    given = Given(uid="u", containers={"app": devices_of_app}, claims={"app": [claim]})
    kubelet.admit(pod.namespace, pod.name, given)
    assert recorder.add(pod).exit_code == 0
    expected = {"net1": ADDRESSES[0], "net2": ADDRESSES[1]}
    assert devices(recorder, pod.container_id) == expected
    assert recorder.delete(pod).exit_code == 0


def nothing_is_left(node: Node, before: set[str], pod: Pod) -> bool:
    return (node.host_links(), node.pod_links(pod), node.leases(), node.records()) == (
        before,
        set(),
        [],
        [],
    ) and node.entries("devinfo", "cni") == []


def test_a_promised_device_that_is_absent_fails_the_pod(node: Node, kubelet: FakeKubelet) -> None:
    """A13.5, A25.17: with resource, container and what the kubelet reported."""
    before = node.host_links()
    pod = admit(kubelet, node.pod("vf, fast"), app={VF: [ADDRESSES[0]]})
    reply = node.add(pod)
    assert (reply.exit_code, reply.code) == (1, 7)
    assert f"networks[1]: network default/fast takes a device of {FAST}" in reply.msg
    assert f"{VF} {ADDRESSES[0]} (app)" in reply.msg
    assert nothing_is_left(node, before, pod)


def test_another_pods_device_is_nobodys_to_name(node: Node, kubelet: FakeKubelet) -> None:
    """The author of a pod chooses among its own devices."""
    before = node.host_links()
    pod = node.pod(json.dumps([{"name": "vf", "deviceID": ADDRESSES[3]}]))
    admit(kubelet, pod, app={VF: [ADDRESSES[0]]})
    reply = node.add(pod)
    assert (reply.exit_code, reply.code) == (1, 7)
    assert nothing_is_left(node, before, pod)


@pytest.mark.parametrize("kind", ["absent", "stale", "late"])
def test_without_a_kubelet_nothing_is_half_attached(
    node: Node, kubelet: FakeKubelet, kind: str
) -> None:
    """CNI-ERR-8: the kubelet restarts; a retry, with another container id, then succeeds."""
    before = node.host_links()
    pod = node.pod("vf")
    if kind == "late":
        kubelet.delay_s = 10
    else:
        kubelet.stop(stale=kind == "stale")
    reply = node.add(pod)
    assert (reply.exit_code, reply.code) == (1, 11)
    assert str(kubelet.socket) in reply.msg
    assert nothing_is_left(node, before, pod)
    admit(kubelet, pod, app={VF: [ADDRESSES[0]]})
    kubelet.released.set()
    if kind != "late":
        kubelet.start()
    pod.container_id = os.urandom(32).hex()
    assert node.add(pod).exit_code == 0
    assert alias(pod, "net1") == "pf0v0"
    assert node.delete(pod).exit_code == 0


def test_a_retry_with_another_container_id_gets_the_same_devices(
    recorder: Node, kubelet: FakeKubelet
) -> None:
    """The kubelet's answers come in an order of their own each time; a restart changes nothing."""
    pod = recorder.pod("vf, vf, fast, vf")
    admit(kubelet, pod, a={VF: ADDRESSES[:2], FAST: ADDRESSES[3:]}, b={VF: ADDRESSES[2:3]})
    seen = []
    for attempt in range(4):
        pod.container_id = f"{attempt}" + os.urandom(31).hex()
        assert recorder.add(pod).exit_code == 0
        seen.append(devices(recorder, pod.container_id))
        assert recorder.delete(pod).exit_code == 0
        if attempt == 1:
            recorder.restart()
    expected = dict(zip(["net1", "net2", "net3", "net4"], [0, 1, 3, 2], strict=True))
    assert seen == [{ifname: ADDRESSES[n] for ifname, n in expected.items()}] * 4


def test_many_pods_at_once_get_each_their_own(recorder: Node, kubelet: FakeKubelet) -> None:
    """Issue 6: 30 pods with 2 devices each: none twice, none missing."""
    kubelet.limited = True
    pods = [recorder.pod("vf, fast") for _ in range(30)]
    for number, pod in enumerate(pods):
        given = {VF: [f"0000:04:{number:02x}.0"], FAST: [f"0000:05:{number:02x}.0"]}
        admit(kubelet, pod, app=given)
    with ThreadPoolExecutor(30) as pool:
        replies = list(pool.map(recorder.add, pods))
    assert [reply.stdout for reply in replies if reply.exit_code] == []
    for number, pod in enumerate(pods):
        expected = {"net1": f"0000:04:{number:02x}.0", "net2": f"0000:05:{number:02x}.0"}
        assert devices(recorder, pod.container_id) == expected
    with ThreadPoolExecutor(30) as pool:
        assert not any(reply.exit_code for reply in pool.map(recorder.delete, pods))
    assert recorder.entries("devinfo", "cni") == []


@pytest.mark.parametrize("daemon", ["there", "away"])
def test_a_device_that_was_given_on_stays_with_its_new_owner(
    node: Node, kubelet: FakeKubelet, daemon: str
) -> None:
    """Issue 6: re-allocated before the old pod's DEL, which then leaves it alone."""
    before = node.host_links()
    old = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(old).exit_code == 0
    kubelet.release(old.namespace, old.name)
    new = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    kubelet.asked.clear()
    assert node.add(new).exit_code == 0
    assert len(kubelet.asked) == 2  # its devices, then both pods' at one moment
    assert (alias(new, "net1"), node.pod_links(old)) == ("pf0v0", {"eth0"})
    if daemon == "away":
        node.kill()
    assert node.delete(old).exit_code == 0
    assert alias(new, "net1") == "pf0v0"
    if daemon == "away":
        node.restart()
    assert node.call("CHECK", new).exit_code == 0
    assert node.delete(new).exit_code == 0
    assert (node.host_links(), node.leases(), node.records()) == (before, [], [])


def test_a_device_is_waited_for_while_its_old_owner_releases_it(
    recorder: Node, kubelet: FakeKubelet
) -> None:
    """The old DEL runs just now: the new owner's plugin is run after it, and it once."""
    slow = noop_network(recorder.root, "slow", onDEL={"sleep": 2})
    define(recorder, "slow", slow, VF)
    old = admit(kubelet, recorder.pod("slow"), app={VF: [ADDRESSES[0]]})
    assert recorder.add(old).exit_code == 0
    kubelet.release(old.namespace, old.name)
    new = admit(kubelet, recorder.pod("vf"), app={VF: [ADDRESSES[0]]})
    with ThreadPoolExecutor(1) as pool:
        deletion = pool.submit(recorder.delete, old)
        recorder.wait_for_noop_calls(3)
        assert recorder.add(new).exit_code == 0
        assert deletion.result().exit_code == 0
    calls = [call for call in recorder.noop_calls() if call["env"]["CNI_IFNAME"] == "net1"]
    assert [call["command"] for call in calls] == ["ADD", "DEL", "ADD"]
    assert calls[2]["time"] - calls[1]["time"] >= 2
    assert recorder.delete(new).exit_code == 0


def test_a_device_of_a_sandbox_that_is_gone_is_taken_over(node: Node, kubelet: FakeKubelet) -> None:
    """No DEL has come, and the namespace went with a reboot or a crash: the kernel gave it back."""
    old = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(old).exit_code == 0
    subprocess.run(["ip", "-n", old.netns.name, "link", "set", "net1", "netns", "1"], check=True)
    subprocess.run(["ip", "link", "set", "net1", "name", "pf0v0"], check=True)
    subprocess.run(["ip", "netns", "del", old.netns.name], check=True)
    new = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(new).exit_code == 0
    assert node.delete(old, CNI_NETNS="").exit_code == 0
    assert alias(new, "net1") == "pf0v0"
    assert node.delete(new).exit_code == 0


def test_a_device_of_a_record_that_was_given_up_is_free(
    recorder: Node, kubelet: FakeKubelet
) -> None:
    """Its DEL fails for ever; it must not be run again once the device is another pod's."""
    node = recorder
    node.daemon_keys |= {"deadlines": {"giveUpSeconds": 1}}
    node.restart()
    behaviour = {"code": 88, "msg": "no such port"}
    capabilities = {"deviceID": True}
    stuck = noop_network(node.root, "vf", capabilities=capabilities, onDEL=behaviour)
    define(node, "vf", stuck, VF)
    old = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(old).exit_code == 0
    assert node.delete(old).code == 88
    time.sleep(1.1)
    assert node.delete(old).exit_code == 0
    define(node, "vf", noop_network(node.root, "vf", capabilities=capabilities), VF)
    new = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(new).exit_code == 0
    assert devices(node, new.container_id) == {"net1": ADDRESSES[0]}
    assert node.records() == [f"{new.container_id}@eth0"]
    assert node.delete(new).exit_code == 0


def test_a_named_device_of_a_live_pod_stays_there(node: Node, kubelet: FakeKubelet) -> None:
    """A net-attach-def without a resource lends no right to what the kubelet gave to another."""
    first = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(first).exit_code == 0
    plugin = {"type": "host-device", "capabilities": {"deviceID": True}}
    node.define("free", {"cniVersion": "1.0.0", "plugins": [plugin]})
    thief = node.pod(json.dumps([{"name": "free", "deviceID": ADDRESSES[0].upper()}]))
    reply = node.add(thief)
    assert (reply.exit_code, reply.code) == (1, 11)
    assert f"is with pod default/{first.name}" in reply.msg
    assert (alias(first, "net1"), node.pod_links(thief)) == ("pf0v0", set())
    assert node.delete(first).exit_code == 0


@pytest.mark.parametrize("path", ["../devices/{}", "./{}", "{}/", "/{}"])
def test_a_path_to_another_pods_device_is_refused(
    node: Node, kubelet: FakeKubelet, path: str
) -> None:
    """ROB-3: host-device would follow it, and take the device before its pod is attached."""
    plugin = {"type": "host-device", "capabilities": {"deviceID": True}}
    node.define("free", {"cniVersion": "1.0.0", "plugins": [plugin]})
    element = {"name": "free", "deviceID": path.format(ADDRESSES[0])}
    thief = node.pod(json.dumps([element]))
    reply = node.add(thief)
    assert (reply.exit_code, reply.code) == (1, 7)
    assert "networks[0].deviceID" in reply.msg
    owner = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(owner).exit_code == 0
    assert node.delete(owner).exit_code == 0


def test_an_old_sandbox_of_the_same_pod_gives_its_devices_up(
    node: Node, kubelet: FakeKubelet
) -> None:
    """A sandbox is made anew before the old one's DEL; the kubelet has the same pod for both."""
    pod = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(pod).exit_code == 0
    again = node.pod("vf", name=pod.name, uid=pod.uid)
    assert node.add(again).exit_code == 0
    assert alias(again, "net1") == "pf0v0"
    assert node.delete(pod).exit_code == 0
    assert alias(again, "net1") == "pf0v0"
    assert node.delete(again).exit_code == 0


def test_a_live_pod_keeps_what_the_kubelet_says_is_its(node: Node, kubelet: FakeKubelet) -> None:
    """Given to two pods, it stays where it is, and the other is told whose it is."""
    first = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(first).exit_code == 0
    second = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    reply = node.add(second)
    assert (reply.exit_code, reply.code) == (1, 11)
    assert f"pod default/{first.name}" in reply.msg
    assert (alias(first, "net1"), node.pod_links(second)) == ("pf0v0", set())
    assert len(node.records()) == 1
    assert node.delete(first).exit_code == 0
    assert node.add(second).exit_code == 0
    assert node.delete(second).exit_code == 0


INFO = {"type": "pci", "version": "1.1.0", "pci": {"pci-address": ADDRESSES[0], "new": [1]}}


def describe(node: Node, resource: str, device: str, content: str | dict[str, Any]) -> Path:
    """Write what a device plugin says of a device."""
    folder = node.root / "devinfo" / "dp"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{resource.replace('/', '-')}-{device}-device.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("daemon", ["there", "away"])
def test_device_information_reaches_plugin_and_status_and_goes_with_the_pod(
    recorder: Node, kubelet: FakeKubelet, daemon: str
) -> None:
    """DEV-1 to DEV-8: from the device plugin's file, by CNIDeviceInfoFile, to device-info; the
    folder is made, for everybody to read."""
    node = recorder
    describe(node, VF, ADDRESSES[0], INFO)
    pod = admit(kubelet, node.pod("vf, vf"), app={VF: ADDRESSES[:2]})
    assert node.add(pod).exit_code == 0
    made = [call for call in node.noop_calls() if call["command"] == "ADD"][1:]
    paths = [json.loads(call["stdin"])["runtimeConfig"]["CNIDeviceInfoFile"] for call in made]
    names = [f"{pod.container_id}@eth0:net{n}" for n in (1, 2)]
    assert paths == [str(node.root / "devinfo" / "cni" / name) for name in names]
    assert node.entries("devinfo", "cni") == names[:1]  # of the second nothing is known
    assert stat.S_IMODE((node.root / "devinfo" / "cni").stat().st_mode) == 0o755
    assert [entry.get("device-info") for entry in node.status(pod)] == [None, INFO, None]
    if daemon == "away":
        node.kill()
    other = node.root / "devinfo" / "cni" / f"{pod.container_id}@eth0x:net1"
    other.write_text("another's")
    assert node.delete(pod).exit_code == 0
    assert node.entries("devinfo", "cni") == [other.name]
    assert node.entries("devinfo", "dp") != []


def test_what_a_plugin_writes_is_the_status(recorder: Node, kubelet: FakeKubelet) -> None:
    """DEV-6, DEV-7: vhost-user, by a plugin of the test's that makes its own device."""
    info = {"type": "vhost-user", "version": "1.1.0", "vhost-user": {"mode": "server", "path": "s"}}
    script = f"""#!/bin/sh
path=$(sed 's/.*"CNIDeviceInfoFile": *"\\([^"]*\\)".*/\\1/')
[ $CNI_COMMAND = ADD ] || exit 0
echo '{json.dumps(info)}' > "$path"
echo '{{"cniVersion": "1.0.0", "interfaces": [{{"name": "net1", "mac": "02:00:00:00:00:07"}}]}}'
"""
    source = recorder.root / "user.sh"
    source.write_text(script)
    recorder.plugin("userspace", source)
    plugin = {"type": "userspace", "capabilities": {"CNIDeviceInfoFile": True}}
    recorder.define("user", {"cniVersion": "1.0.0", "plugins": [plugin]})
    pod = recorder.pod("user")
    assert recorder.add(pod).exit_code == 0
    assert recorder.status(pod)[1] == {
        "name": "default/user",
        "interface": "net1",
        "mac": "02:00:00:00:00:07",
        "dns": {},
        "device-info": info,
    }
    assert kubelet.asked == []
    assert recorder.delete(pod).exit_code == 0
    assert recorder.entries("devinfo", "cni") == []


def test_a_failed_add_leaves_no_device_information(recorder: Node, kubelet: FakeKubelet) -> None:
    """DEV-4."""
    describe(recorder, VF, ADDRESSES[0], INFO)
    bad = noop_network(recorder.root, "bad", onADD={"code": 7})
    recorder.define("bad", bad)
    pod = admit(kubelet, recorder.pod("vf, bad"), app={VF: ADDRESSES[:1]})
    assert recorder.add(pod).code == 7
    assert (recorder.entries("devinfo", "cni"), recorder.records()) == ([], [])


@pytest.mark.parametrize("kind", ["fifo", "symlink", "huge", "no JSON", "no object", "bad pci"])
def test_bad_device_information_does_no_harm(
    recorder: Node, kubelet: FakeKubelet, kind: str
) -> None:
    """ROB-9: the pod starts without it, and the log says why."""
    path = describe(recorder, VF, ADDRESSES[0], "{}")
    if kind in ("fifo", "symlink"):
        path.unlink()
    secret = recorder.root / "secret"
    secret.write_text(json.dumps(INFO))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        path.symlink_to(secret)
    else:
        texts = {"huge": json.dumps(INFO) + " " * (64 << 10), "no JSON": "{", "no object": "[]"}
        path.write_text(texts.get(kind, '{"type": "pci", "pci": 1}'))
    pod = admit(kubelet, recorder.pod("vf"), app={VF: ADDRESSES[:1]})
    assert recorder.add(pod).exit_code == 0
    assert "device-info" not in recorder.status(pod)[1]
    assert "device information not used" in recorder.log.read_text()
    assert recorder.delete(pod).exit_code == 0


def test_a_device_without_an_interface_is_checked_and_deleted(
    recorder: Node, kubelet: FakeKubelet
) -> None:
    """Issue 6, DPDK: the result names an interface in the sandbox that no kernel has."""
    pod = admit(kubelet, recorder.pod("vf"), app={VF: ADDRESSES[:1]})
    assert recorder.add(pod).exit_code == 0
    assert recorder.status(pod)[1]["interface"] == "net1"
    # The recording plugin makes no eth0 either: that is all that is amiss.
    found = recorder.call("CHECK", pod).msg
    assert found == f"pod default/{pod.name}: network default-net: interface eth0 is gone"
    assert recorder.delete(pod).exit_code == 0


def test_a_default_route_over_no_interface_is_refused(recorder: Node, kubelet: FakeKubelet) -> None:
    pod = recorder.pod(json.dumps([{"name": "vf", "default-route": ["10.0.0.1"]}]))
    admit(kubelet, pod, app={VF: ADDRESSES[:1]})
    reply = recorder.add(pod)
    assert (reply.exit_code, reply.code) == (1, 7)
    assert "'net1' is none of the kernel's" in reply.msg
    assert recorder.records() == []


def test_a_guid_reaches_a_plugin_for_infiniband(recorder: Node, kubelet: FakeKubelet) -> None:
    """NPWG-31: runtimeConfig.infinibandGUID beside deviceID, and cni-args for ib-sriov."""
    capabilities = {"infinibandGUID": True}
    network = noop_network(recorder.root, "ib", capabilities=capabilities)
    define(recorder, "ib", network, VF)
    element = {
        "name": "ib",
        "infiniband-guid": "02:00:00:00:00:00:00:01",
        "cni-args": {"guid": "g"},
    }
    pod = admit(kubelet, recorder.pod(json.dumps([element])), app={VF: ADDRESSES[:1]})
    assert recorder.add(pod).exit_code == 0
    config = json.loads(recorder.noop_calls()[-1]["stdin"])
    assert config["runtimeConfig"] == {"infinibandGUID": "02:00:00:00:00:00:00:01"}
    assert (config["deviceID"], config["args"]) == (ADDRESSES[0], {"cni": {"guid": "g"}})
    assert recorder.delete(pod).exit_code == 0


def test_the_default_network_and_those_of_every_pod_get_devices_too(kubelet: FakeKubelet) -> None:
    """MULTUS-12, MULTUS-13."""
    root = new_root()
    node = Node(root, noop_network(root, "unused"))
    node.plugin("noop")
    for name in ("first", "always", "own"):
        define(node, name, noop_network(root, name), VF)
    node.daemon_keys |= {"clusterNetwork": "default/first", "defaultNetworks": ["default/always"]}
    try:
        node.use(kubelet)
        node.start()
        pod = admit(kubelet, node.pod("own"), app={VF: ADDRESSES[:3]})
        assert node.add(pod).exit_code == 0
        expected = dict(zip(["eth0", "net1", "net2"], ADDRESSES, strict=False))
        assert devices(node, pod.container_id) == expected
        assert node.delete(pod).exit_code == 0
    finally:
        sys.stdout.write(node.log.read_text())
        node.close()


def test_orphans_go_when_a_daemon_starts(recorder: Node) -> None:
    """A file whose record is gone, whoever removed it; Multus's files there are left alone."""
    folder = recorder.root / "devinfo" / "cni"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("c1@eth0:net1", "default-vf-c1_net1"):
        (folder / name).write_text("{}")
    recorder.restart()
    assert recorder.add(recorder.pod("")).exit_code == 0
    recorder.stop()
    assert recorder.entries("devinfo", "cni") == ["default-vf-c1_net1"]


def test_a_damaged_record_of_devices_is_not_guessed_at(
    recorder: Node, kubelet: FakeKubelet
) -> None:
    """The device may be another pod's by now: nothing is released for it, and that is told."""
    pod = admit(kubelet, recorder.pod("vf"), app={VF: ADDRESSES[:1]})
    assert recorder.add(pod).exit_code == 0
    record = recorder.root / "state" / "attachments" / recorder.records()[0]
    record.write_bytes(b"MPR1")
    asked, calls = len(kubelet.asked), len(recorder.noop_calls())
    reply = recorder.delete(pod)
    assert (reply.exit_code, reply.code) == (1, 11)
    assert "which device networks default/vf had" in reply.msg
    assert len(kubelet.asked) == asked
    assert [call["env"]["CNI_IFNAME"] for call in recorder.noop_calls()[calls:]] == ["eth0"]
    record.unlink()
    assert yaml.safe_load((recorder.root / "daemon.yaml").read_text())["kubelet"]


def test_a_failed_plugin_of_devices_leaves_nothing(node: Node, kubelet: FakeKubelet) -> None:
    """host-device refuses the DEL of a device that it never moved."""
    before = node.host_links()
    pod = admit(kubelet, node.pod("vf, fast"), app={VF: ADDRESSES[:1], FAST: ["0000:09:00.0"]})
    assert node.add(pod).exit_code == 1
    assert nothing_is_left(node, before, pod)


def troubled_plugin(node: Node) -> Path:
    """Install a plugin that fails while the returned file is there; also an IPAM plugin."""
    trouble, source = node.root / "trouble", node.root / "troubled.sh"
    answer = '{"cniVersion": "1.0.0", "ips": [{"address": "10.95.1.2/24"}]}'
    source.write_text(
        f"""#!/bin/sh
[ ! -e {trouble} ] || {{ echo '{{"cniVersion": "1.0.0", "code": 5, "msg": "no"}}'; exit 1; }}
echo '{answer}'
"""
    )
    node.plugin("troubled", source)
    return trouble


def test_a_device_that_is_back_does_not_keep_a_pod_from_going(
    node: Node, kubelet: FakeKubelet
) -> None:
    """host-device refuses a second DEL, which another network's failure brings about."""
    before = node.host_links()
    trouble = troubled_plugin(node)
    node.define("troubled", {"cniVersion": "1.0.0", "plugins": [{"type": "troubled"}]})
    pod = admit(kubelet, node.pod("vf, troubled"), app={VF: ADDRESSES[:1]})
    assert node.add(pod).exit_code == 0
    trouble.touch()
    reply = node.delete(pod)
    assert (reply.exit_code, "troubled" in reply.msg) == (1, True)
    assert node.host_links() == before
    trouble.unlink()
    assert node.delete(pod).exit_code == 0
    assert nothing_is_left(node, before, pod)


def test_a_device_that_is_still_there_is_not_given_up(node: Node, kubelet: FakeKubelet) -> None:
    """host-device, whose IPAM plugin fails, hasn't moved it back."""
    before = node.host_links()
    trouble = troubled_plugin(node)
    plugin = {"type": "host-device", "ipam": {"type": "troubled"}}
    define(node, "far", {"cniVersion": "1.0.0", "plugins": [plugin]}, VF)
    pod = admit(kubelet, node.pod("far"), app={VF: ADDRESSES[:1]})
    assert node.add(pod).exit_code == 0
    trouble.touch()
    assert node.delete(pod).exit_code == 1
    assert (alias(pod, "net1"), len(node.records())) == ("pf0v0", 1)
    trouble.unlink()
    assert node.delete(pod).exit_code == 0
    assert nothing_is_left(node, before, pod)


def test_a_daemon_killed_before_a_device_is_moved(node: Node, kubelet: FakeKubelet) -> None:
    """The record names the device already, and host-device refuses its DEL."""
    before = node.host_links()
    node.define("slow", noop_network(node.root, "slow", onADD={"sleep": 20}))
    node.plugin("noop")
    pod = admit(kubelet, node.pod("slow, vf"), app={VF: ADDRESSES[:1]})
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(node.add, pod)
        node.wait_for_noop_calls(1)
        node.kill()
        adding.result()
    node.restart()
    assert node.delete(pod).exit_code == 0
    assert nothing_is_left(node, before, pod)


def test_a_take_over_that_was_cut_off_ends_with_the_old_pods_del(
    node: Node, kubelet: FakeKubelet
) -> None:
    """The daemon died after the old pod's plugin, before its record was written without it: the new
    pod waits, as the plugin's refusal might mean anything, until the old pod's DEL has looked."""
    before = node.host_links()
    old = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(old).exit_code == 0
    kubelet.release(old.namespace, old.name)
    subprocess.run(["ip", "-n", old.netns.name, "link", "set", "net1", "netns", "1"], check=True)
    subprocess.run(["ip", "link", "set", "net1", "name", "pf0v0"], check=True)
    new = admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[0]]})
    assert node.add(new).exit_code == 1
    assert nothing_is_left_of(node, new)
    assert node.delete(old).exit_code == 0
    assert node.add(new).exit_code == 0
    assert alias(new, "net1") == "pf0v0"
    assert node.delete(new).exit_code == 0
    assert nothing_is_left(node, before, new)


def nothing_is_left_of(node: Node, pod: Pod) -> bool:
    mine = [name for name in node.records() if name.startswith(pod.container_id)]
    return (node.pod_links(pod), mine) == (set(), [])


def with_another_sandbox(pod: Pod) -> None:
    """Put a new namespace and container id in place of a failed attempt's, as runtimes do. The
    kernel gives a namespace's functions back to the node as it goes; it would take our veths along.
    """
    for link in ip_json("-d", "link", "show", namespace=pod.netns.name):
        if link.get("ifalias") or link["ifname"].startswith("pf0v"):
            name = link.get("ifalias") or link["ifname"]
            given_back = ["ip", "-n", pod.netns.name, "link", "set", link["ifname"], "down"]
            subprocess.run(given_back, check=True)
            given_back[-1:] = ["name", name, "netns", "1"]
            subprocess.run(given_back, check=True)
    subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    subprocess.run(["ip", "netns", "add", pod.netns.name], check=True)
    pod.container_id = os.urandom(32).hex()


def until_done(node: Node, call: Callable[[], Reply]) -> None:
    """Repeat a call as the kubelet does."""
    replies = []
    for _ in range(40):
        replies.append(call())
        if replies[-1].exit_code == 0:
            return
        time.sleep(0.25)
    raise AssertionError(f"never done: {[reply.stdout for reply in replies[-2:]]}")


@pytest.mark.timeout(240)
def test_devices_change_hands_while_daemons_die(node: Node, kubelet: FakeKubelet) -> None:
    """Issue 6: each of four functions goes from pod to pod twice, the old pod's DEL beside
    the new one's ADD, and the daemon is killed at a moment of each time."""
    before = node.host_links()
    owners: list[Pod] = []
    for turn in range(3):
        old, owners = owners, []
        for pod in old:
            kubelet.release(pod.namespace, pod.name)
        for number in range(4):
            owners.append(admit(kubelet, node.pod("vf"), app={VF: [ADDRESSES[number - turn]]}))

        def attach(pod: Pod) -> Reply:
            reply = node.add(pod)
            if reply.exit_code:
                until_done(node, lambda: node.delete(pod))
                with_another_sandbox(pod)
            return reply

        with ThreadPoolExecutor(8) as pool:
            adding = [pool.submit(until_done, node, partial(attach, pod)) for pod in owners]
            going = [
                pool.submit(until_done, node, partial(node.delete, pod)) for pod in reversed(old)
            ]
            time.sleep(0.15 * (turn + 1))
            node.kill()
            node.restart()
            for done in (*adding, *going):
                done.result()
        expected = [f"pf0v{(number - turn) % 4}" for number in range(4)]
        assert [alias(pod, "net1") for pod in owners] == expected
    for pod in owners:
        assert node.delete(pod).exit_code == 0
    assert nothing_is_left(node, before, owners[0])
