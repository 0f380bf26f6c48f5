"""Multus's /healthz and /delegate, called as the dynamic networks controller calls them."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.node import Node, Pod, ip_json, macvlan_network, noop_network

pytestmark = pytest.mark.system


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("dummy", timeout=40)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def api_socket(node: Node) -> Path:
    return node.root / "api" / "multus.sock"


def ask(node: Node, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    connection = UnixConnection(api_socket(node))
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def envelope(
    command: str, pod: Pod, config: Any, ifname: str, attributes: dict[str, Any] | None = None
) -> bytes:
    """Return a request as Multus's CreateDelegateRequest makes it."""
    args = f"K8S_POD_NAMESPACE={pod.namespace};K8S_POD_NAME={pod.name};K8S_POD_UID={pod.uid}"
    request: dict[str, Any] = {
        "env": {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.container_id,
            "CNI_NETNS": str(pod.netns),
            "CNI_IFNAME": ifname,
            "CNI_ARGS": args,
        },
        "config": base64.b64encode(json.dumps(config).encode()).decode(),
    }
    if attributes:
        request["interfaceAttributes"] = attributes
    return json.dumps(request).encode()


def delegate(node: Node, *request: Any) -> tuple[int, bytes]:
    return ask(node, "POST", "/delegate", envelope(*request))


def offer_hot_plug(node: Node, *prefix: str) -> None:
    node.daemon_keys["delegateApi"] = {
        "socket": str(api_socket(node)),
        "shim": [*prefix, str(node.shim)],
        "cniPath": f"{node.root / 'plugins'}:/usr/lib/cni",
    }
    node.start()


@pytest.fixture
def plugging_node(idle_node: Node) -> Node:
    offer_hot_plug(idle_node)
    return idle_node


@pytest.fixture
def recorder(recording_node: Node) -> Node:
    """A node of the recording plugin that offers hot-plug."""
    recording_node.stop()
    offer_hot_plug(recording_node)
    return recording_node


def hot_network(node: Node) -> dict[str, Any]:
    return macvlan_network(node.root, "10.93.0.0/24") | {"name": "hot"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_health_is_told(plugging_node: Node, method: str) -> None:
    """MULTUS-36: the controller's probes GET it, its client POSTs."""
    assert ask(plugging_node, method, "/healthz") == (200, b"")


def test_an_interface_is_plugged_and_unplugged(plugging_node: Node) -> None:
    """MULTUS-36: attributes and result as the controller has them; the status is its to write."""
    node = plugging_node
    pod = node.pod()
    assert node.add(pod).exit_code == 0
    status, network = node.status(pod), hot_network(node)
    attributes = {"ips": ["10.93.0.77/24"], "mac": "02:00:00:00:00:77"}
    code, body = delegate(node, "ADD", pod, network, "hot0", attributes)
    assert code == 200, body
    result = json.loads(body)["Result"]
    assert result["cniVersion"] == "1.0.0"
    assert result["interfaces"] == [
        {"name": "hot0", "mac": "02:00:00:00:00:77", "sandbox": str(pod.netns)}
    ]
    (link,) = ip_json("address", "show", "hot0", namespace=pod.netns.name)
    assert link["address"] == "02:00:00:00:00:77"
    assert node.records() == [f"{pod.container_id}@eth0", f"{pod.container_id}@hot0"]
    assert delegate(node, "CHECK", pod, network, "hot0") == (200, b"")
    assert node.call("CHECK", pod).exit_code == 0
    node.restart()
    assert node.status(pod) == status
    assert delegate(node, "DEL", pod, network, "hot0") == (200, b"")
    assert node.pod_links(pod) == {"eth0"}
    assert node.records() == [f"{pod.container_id}@eth0"]
    assert delegate(node, "DEL", pod, network, "hot0") == (200, b"")
    assert node.delete(pod).exit_code == 0
    assert node.leases() == node.locks() == []


def test_what_was_plugged_goes_with_its_pod(plugging_node: Node) -> None:
    """A25.9: the runtime knows nothing of the interface, and sends one DEL."""
    node = plugging_node
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    for ifname in ("hot0", "hot1"):
        assert delegate(node, "ADD", pod, hot_network(node), ifname)[0] == 200
    assert node.delete(pod).exit_code == 0
    assert node.pod_links(pod) == set()
    assert node.records() == node.leases() == []


def test_what_was_plugged_goes_with_its_pod_later_when_the_daemon_was_away(
    plugging_node: Node,
) -> None:
    """A25.9: a shim alone deletes what the runtime names; the next clean-up does the rest."""
    node = plugging_node
    pod, other = node.pod(), node.pod()
    assert node.add(pod).exit_code == 0
    assert delegate(node, "ADD", pod, hot_network(node), "hot0")[0] == 200
    node.kill()
    assert node.delete(pod).exit_code == 0
    assert node.records() == [f"{pod.container_id}@hot0"]
    subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    node.start()
    assert node.add(other).exit_code == 0
    node.wait_for_records(1)
    assert node.delete(other).exit_code == 0
    assert node.leases() == []


def damage(node: Node, record: str) -> None:
    (node.root / "state" / "attachments" / record).write_bytes(b"\xff" * 500)


def test_what_was_plugged_goes_with_its_pod_though_its_record_is_damaged(
    plugging_node: Node,
) -> None:
    """ROB-7: the controller plugs what somebody has added to the pod's annotation, which the
    cluster still has; the runtime's own copy is of the sandbox's start."""
    node = plugging_node
    pod = node.pod("")
    element = {"name": "macvlan", "interface": "hot0"}
    metadata = {
        "name": pod.name,
        "namespace": pod.namespace,
        "uid": pod.uid,
        "annotations": {"k8s.v1.cni.cncf.io/networks": json.dumps([element])},
    }
    node.write_manifest("pod.yaml", {"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    assert node.add(pod).exit_code == 0
    network = macvlan_network(node.root) | {"name": "macvlan"}
    assert delegate(node, "ADD", pod, network, "hot0")[0] == 200
    assert node.leases() != []
    damage(node, f"{pod.container_id}@hot0")
    assert node.delete(pod).exit_code == 0
    assert node.pod_links(pod) == set()
    assert node.records() == node.leases() == []


def test_a_damaged_record_that_nothing_says_more_of_is_told_at_the_pods_end(
    recorder: Node,
) -> None:
    """ROB-7: neither forgotten silently nor in the way of the pod's own release."""
    node = recorder
    pod = node.pod()
    assert node.add(pod).exit_code == 0
    assert delegate(node, "ADD", pod, noop_network(node.root, "hot"), "hot0")[0] == 200
    name = f"{pod.container_id}@hot0"
    damage(node, name)
    for _ in range(2):
        reply = node.delete(pod)
        assert (reply.code, name in reply.msg) == (11, True)
        assert node.records() == [name]
    assert [call["env"]["CNI_IFNAME"] for call in node.noop_calls()] == ["eth0", "hot0", "eth0"]
    (node.root / "state" / "attachments" / name).unlink()
    assert node.delete(pod).exit_code == 0


def test_a_plugged_interface_is_unplugged_though_a_record_is_damaged(recorder: Node) -> None:
    """MULTUS-36, ROB-7: its own, which the request makes up for, or the pod's, which isn't
    needed."""
    node = recorder
    pod = node.pod()
    network = noop_network(node.root, "hot")
    assert node.add(pod).exit_code == 0
    for ifname in ("hot0", "hot1"):
        assert delegate(node, "ADD", pod, network, ifname)[0] == 200
    damage(node, f"{pod.container_id}@hot0")
    assert delegate(node, "DEL", pod, network, "hot0") == (200, b"")
    damage(node, f"{pod.container_id}@eth0")
    assert delegate(node, "DEL", pod, network, "hot1") == (200, b"")
    assert node.records() == [f"{pod.container_id}@eth0"]


@pytest.mark.parametrize("ifname", ["eth0", "net1"])
def test_nothing_of_a_pod_whose_record_is_damaged_is_unplugged(recorder: Node, ifname: str) -> None:
    """MULTUS-36, ROB-7: a made-up DEL would give the record up, and the pod's own DEL be a success
    that releases nothing."""
    node = recorder
    node.define("extra", noop_network(node.root, "extra"))
    pod = node.pod("extra")
    assert node.add(pod).exit_code == 0
    damage(node, f"{pod.container_id}@eth0")
    code, body = delegate(node, "DEL", pod, noop_network(node.root, "extra"), ifname)
    assert (code, "damaged" in json.loads(body)["msg"]) == (400, True)
    assert [call["command"] for call in node.noop_calls()] == ["ADD", "ADD"]
    assert node.delete(pod).exit_code == 0
    assert [call["command"] for call in node.noop_calls()][2:] == ["DEL", "DEL"]
    assert node.records() == []


def test_an_interface_of_the_pods_own_add_is_unplugged(plugging_node: Node) -> None:
    """MULTUS-36: by what its ADD had, though the definition has changed since."""
    node = plugging_node
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    changed = {"cniVersion": "1.0.0", "name": "macvlan", "type": "never-installed"}
    code, body = delegate(node, "DEL", pod, changed, "net1")
    assert (code, body) == (200, b"")
    assert node.pod_links(pod) == {"eth0"}
    assert len(node.leases()) == 1
    assert node.call("CHECK", pod).exit_code == 0
    assert delegate(node, "ADD", pod, hot_network(node), "net1")[0] == 200
    assert node.delete(pod).exit_code == 0
    assert node.records() == node.leases() == []


def test_the_default_networks_interface_is_not_unplugged(plugging_node: Node) -> None:
    node = plugging_node
    pod = node.pod()
    assert node.add(pod).exit_code == 0
    code, body = delegate(node, "DEL", pod, hot_network(node), "eth0")
    assert code == 400
    assert "goes with its pod" in json.loads(body)["msg"]
    assert node.call("CHECK", pod).exit_code == 0


def test_a_failed_plug_is_undone_and_told(recorder: Node) -> None:
    """MULTUS-36, NPWG-54: the plugin's own code; the pod keeps what it has."""
    node = recorder
    pod = node.pod()
    assert node.add(pod).exit_code == 0
    failing = noop_network(node.root, "failing", onADD={"code": 88, "msg": "no"})
    code, body = delegate(node, "ADD", pod, failing, "hot0")
    assert code == 400
    assert json.loads(body)["code"] == 88
    assert [c["command"] for c in node.noop_calls()] == ["ADD", "ADD", "DEL"]
    assert node.records() == [f"{pod.container_id}@eth0"]
    code, body = delegate(node, "ADD", pod, noop_network(node.root), "hot0", {"mac": "02::1"})
    assert (code, "mac" in json.loads(body)["msg"]) == (400, True)
    asking = {"mac": "02:00:00:00:00:01"}
    code, body = delegate(node, "ADD", pod, noop_network(node.root), "hot0", asking)
    assert "can't honour mac" in json.loads(body)["msg"]


def test_plugins_get_the_pod_and_the_attributes(recorder: Node) -> None:
    """MULTUS-36, MULTUS-12: capabilities, cni-args, CNI_ARGS; nothing of the daemon's own."""
    node = recorder
    pod = node.pod(uid="some-uid")
    network = noop_network(node.root, "hot", capabilities={"mac": True, "ips": True})
    attributes = {"ips": ["10.0.0.1/24"], "mac": "02:00:00:00:00:01", "cni-args": {"a": 1}}
    assert delegate(node, "ADD", pod, network, "hot0", attributes)[0] == 200
    (call,) = node.noop_calls()
    request = json.loads(call["stdin"])
    assert request["runtimeConfig"] == {"ips": ["10.0.0.1/24"], "mac": "02:00:00:00:00:01"}
    assert request["args"] == {"cni": {"a": 1}}
    assert request["name"] == "hot"
    args = dict(item.split("=", 1) for item in call["env"]["CNI_ARGS"].split(";"))
    assert args["K8S_POD_UID"] == "some-uid"
    assert (args["IP"], args["MAC"]) == ("10.0.0.1/24", "02:00:00:00:00:01")


def test_a_plug_whose_caller_has_gone_is_undone(recorder: Node) -> None:
    """MULTUS-36: the controller would plug again after its restart."""
    node = recorder
    pod = node.pod()
    slow = noop_network(node.root, "slow", onADD={"sleep": 1})
    connection = UnixConnection(api_socket(node))
    connection.request("POST", "/delegate", envelope("ADD", pod, slow, "hot0"))
    node.wait_for_noop_calls(1)
    connection.close()
    calls = node.wait_for_noop_calls(2)
    assert [c["command"] for c in calls] == ["ADD", "DEL"]
    node.wait_for_records(0)


def test_plugged_interfaces_are_valid_attachments_for_the_plugins_gc(recorder: Node) -> None:
    """CNI-GC-3: the runtime lists only its own, in the same network as the plugged one."""
    node = recorder
    pod = node.pod()
    network = noop_network(node.root, "default-net") | {"cniVersion": "1.1.0"}
    (node.root / "default.conflist").write_text(json.dumps(network))
    assert node.add(pod).exit_code == 0
    assert delegate(node, "ADD", pod, network, "hot0")[0] == 200
    valid = {"cni.dev/valid-attachments": [{"containerID": pod.container_id, "ifname": "eth0"}]}
    reply = node.call("GC", None, stdin=node.stdin(None, "1.1.0", **valid))
    assert reply.exit_code == 0, reply.stdout
    request = json.loads(node.noop_calls()[-1]["stdin"])
    assert [a["ifname"] for a in request["cni.dev/valid-attachments"]] == ["eth0", "hot0"]


def test_a_shim_that_runs_elsewhere_than_the_runtimes_is_refused(idle_node: Node) -> None:
    """MULTUS-36: a daemon in a container would make interfaces in its own namespace."""
    node = idle_node
    offer_hot_plug(node, "/usr/bin/unshare", "--net")
    pod = node.pod()
    assert node.add(pod).exit_code == 0
    code, body = delegate(node, "ADD", pod, hot_network(node), "hot0")
    assert code == 400
    assert "does not run where the runtime's do" in json.loads(body)["msg"]
    assert node.pod_links(pod) == {"eth0"}
    assert node.records() == [f"{pod.container_id}@eth0"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", b"", 404),
        ("POST", "/cni", b"{}", 404),
        ("GET", "/delegate", b"", 405),
        ("POST", "/delegate", b"", 400),
        ("POST", "/delegate", b"[" * 100_000, 400),
        ("POST", "/delegate", b'{"env": {}}', 400),
        ("POST", "/delegate", b'{"env": {"CNI_COMMAND": "GC"}, "config": "e30="}', 400),
        ("POST", "/delegate", b'{"env": {"CNI_COMMAND": "ADD"}, "config": "?"}', 400),
        ("POST", "/delegate", b'{"env": {"CNI_COMMAND": "ADD"}, "config": "e30="}', 400),
        ("POST", "/delegate", b'{"env": {"CNI_COMMAND": "ADD\\u0000"}, "config": "e30="}', 400),
    ],
)
def test_bad_requests_are_refused(
    recorder: Node, method: str, path: str, body: bytes, status: int
) -> None:
    """MULTUS-36: and the next one is served."""
    assert ask(recorder, method, path, body)[0] == status
    assert ask(recorder, "GET", "/healthz")[0] == 200
    assert recorder.noop_calls() == []


def test_what_is_no_http_is_refused(recorder: Node) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(api_socket(recorder)))
        raw.sendall(b"\0\1\2 no HTTP\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert ask(recorder, "GET", "/healthz")[0] == 200


def test_the_socket_is_for_root_alone(recorder: Node) -> None:
    """MULTUS-36, SECURITY: and a folder that others can enter isn't taken, nor changed."""
    path = api_socket(recorder)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert recorder.stop() == 0
    assert not path.exists()
    path.parent.chmod(0o755)
    done = recorder.run_daemon(recorder.root / "daemon.yaml")
    assert done.returncode == 1
    assert "delegateApi.socket" in done.stderr
    assert path.parent.stat().st_mode & 0o777 == 0o755


def test_without_its_key_there_is_no_second_socket(recording_node: Node) -> None:
    assert not api_socket(recording_node).exists()


def test_a_pods_annotations_make_no_hot_plug_of_a_runtimes_request(node: Node) -> None:
    """CNI-DEL-1, SECURITY: users write them; such a pod is deleted as any other."""
    pod = node.pod()
    annotations = {"note": "metaplugin-hot-plug"}
    runtime = {"io.kubernetes.cri.pod-annotations": annotations}
    stdin = node.stdin(pod, runtimeConfig=runtime)
    assert node.add(pod, stdin=stdin).exit_code == 0
    reply = node.delete(pod, stdin=stdin)
    assert (reply.exit_code, reply.msg) == (0, "")
    assert node.records() == node.leases() == []


def test_unplugging_takes_no_auxiliary_chain_for_the_interface(recorder: Node) -> None:
    """MULTUS-36, MULTUS-24: a chain's name is an interface that nobody makes."""
    node = recorder
    chain = node.root / "chain"
    chain.mkdir()
    tuning = {"type": "noop", "log": str(node.root / "chain.log")}
    (chain / "10.conf").write_text(json.dumps({"cniVersion": "1.0.0", "name": "x", **tuning}))
    node.stop()
    node.daemon_keys["auxiliaryChain"] = "chain"
    node.start()
    pod = node.pod()
    assert node.add(pod).exit_code == 0
    network = noop_network(node.root, "hot")
    assert delegate(node, "ADD", pod, network, "net1")[0] == 200
    assert delegate(node, "DEL", pod, network, "net1") == (200, b"")
    last = node.noop_calls()[-1]
    assert (last["command"], json.loads(last["stdin"])["name"]) == ("DEL", "hot")
    assert [c["command"] for c in node.noop_calls(node.root / "chain.log")] == ["ADD"]
    assert node.records() == [f"{pod.container_id}@eth0"]


def test_the_name_of_the_pods_record_is_no_interface_to_unplug(recorder: Node) -> None:
    """MULTUS-36, MULTUS-21: a pod that chose its default network may have it under another name;
    its attachments are the runtime's to release."""
    node = recorder
    node.define("chosen", noop_network(node.root, "chosen"))
    pod = node.pod()
    choice = json.dumps([{"name": "chosen", "namespace": "default", "interface": "first"}])
    runtime = {"io.kubernetes.cri.pod-annotations": {"v1.multus-cni.io/default-network": choice}}
    assert node.add(pod, stdin=node.stdin(pod, runtimeConfig=runtime)).exit_code == 0
    code, body = delegate(node, "DEL", pod, noop_network(node.root), "eth0")
    assert code == 400, body
    assert node.records() == [f"{pod.container_id}@eth0"]
    assert [call["command"] for call in node.noop_calls()] == ["ADD"]


def test_a_name_that_the_pod_has_without_an_interface_is_not_plugged(recorder: Node) -> None:
    """MULTUS-36: some plugins make no interface (devices for user space); unplugging the name
    would be the pod's own."""
    node = recorder
    node.define("device", noop_network(node.root, "device"))
    pod = node.pod("device")
    assert node.add(pod).exit_code == 0
    code, body = delegate(node, "ADD", pod, noop_network(node.root, "hot"), "net1")
    assert (code, "net1" in json.loads(body)["msg"]) == (400, True)
    assert node.records() == [f"{pod.container_id}@eth0"]


def test_check_passes_when_the_interface_of_the_default_route_was_unplugged(
    plugging_node: Node,
) -> None:
    """CNI-CHECK, MULTUS-36: what was taken away on demand is no change."""
    node = plugging_node
    pod = node.pod('[{"name": "macvlan", "default-route": ["10.91.0.254"]}]')
    assert node.add(pod).exit_code == 0
    assert delegate(node, "DEL", pod, hot_network(node), "net1") == (200, b"")
    reply = node.call("CHECK", pod)
    assert (reply.exit_code, reply.msg) == (0, "")
    assert node.delete(pod).exit_code == 0


def test_the_policy_holds_for_what_is_plugged(recorder: Node) -> None:
    """NPWG-56, ROB-5: its configuration is a net-attach-def's, which users write."""
    node = recorder
    node.stop()
    node.daemon_keys["policy"] = {
        "allowedPlugins": {"default": ["noop"], "*": []},
        "deniedKeys": ["dataDir"],
    }
    node.start()
    pod, stranger = node.pod(), node.pod(namespace="other")
    denied = noop_network(node.root, "hot", dataDir="/etc")
    code, body = delegate(node, "ADD", pod, denied, "hot0")
    assert (code, "dataDir" in json.loads(body)["msg"]) == (400, True)
    attributes = {"cni-args": {"dataDir": "/etc"}}
    code, body = delegate(node, "ADD", pod, noop_network(node.root, "hot"), "hot0", attributes)
    assert (code, "dataDir" in json.loads(body)["msg"]) == (400, True)
    code, body = delegate(node, "ADD", stranger, noop_network(node.root, "hot"), "hot0")
    assert (code, "may not use" in json.loads(body)["msg"]) == (400, True)
    assert node.noop_calls() == []
    assert delegate(node, "ADD", pod, noop_network(node.root, "hot"), "hot0")[0] == 200


def test_undeclared_capabilities_are_let_pass_where_the_operator_says_so(recorder: Node) -> None:
    """NPWG-25, MULTUS-36: in a plug as in an annotation."""
    node = recorder
    node.stop()
    node.daemon_keys["undeclaredCapabilities"] = "warn"
    node.start()
    asking = {"mac": "02:00:00:00:00:01"}
    code, body = delegate(node, "ADD", node.pod(), noop_network(node.root), "hot0", asking)
    assert code == 200, body


def test_what_was_plugged_goes_with_its_pod_in_gc(recorder: Node) -> None:
    """CNI-GC-3, A25.9: the network namespace may stay long after."""
    node = recorder
    network = noop_network(node.root, "default-net") | {"cniVersion": "1.1.0"}
    (node.root / "default.conflist").write_text(json.dumps(network))
    gone, live = node.pod(), node.pod()
    for pod in (gone, live):
        assert node.add(pod).exit_code == 0
        assert delegate(node, "ADD", pod, network, "hot0")[0] == 200
    valid = {"cni.dev/valid-attachments": [{"containerID": live.container_id, "ifname": "eth0"}]}
    reply = node.call("GC", None, stdin=node.stdin(None, "1.1.0", **valid))
    assert reply.exit_code == 0, reply.stdout
    assert node.records() == [f"{live.container_id}@eth0", f"{live.container_id}@hot0"]
    request = json.loads(node.noop_calls()[-1]["stdin"])
    kept = {(a["containerID"], a["ifname"]) for a in request["cni.dev/valid-attachments"]}
    assert kept == {(live.container_id, "eth0"), (live.container_id, "hot0")}


def test_a_check_by_the_operator_is_no_runtimes_place(recording_node: Node) -> None:
    """MULTUS-36: `metaplugin check` may be run in the daemon's container."""
    node = recording_node
    node.stop()
    pod, elsewhere = node.pod(), node.pod()
    enter = ("/usr/bin/nsenter", f"--net={elsewhere.netns}")
    offer_hot_plug(node, *enter)
    assert node.add(pod).exit_code == 0
    assert node.call("CHECK", pod, prefix=enter).code == 101  # no such interface was made
    assert delegate(node, "ADD", pod, noop_network(node.root, "hot"), "hot0")[0] == 400


def test_hot_plugged_plugins_that_hang_leave_time_for_the_pods_own(recorder: Node) -> None:
    """CNI-DEL-4, A25.9: the default network's DEL is the last, and releases its address."""
    node = recorder
    node.stop()
    node.daemon_keys["deadlines"] = {"requestSeconds": 9, "rollbackSeconds": 1}
    node.start()
    pod = node.pod()
    assert node.add(pod).exit_code == 0
    for ifname in ("hot0", "hot1"):
        hanging = noop_network(node.root, ifname, onDEL={"sleep": 60})
        assert delegate(node, "ADD", pod, hanging, ifname)[0] == 200
    reply = node.delete(pod)
    assert reply.exit_code == 1, reply.stdout
    deleted = [json.loads(c["stdin"])["name"] for c in node.noop_calls() if c["command"] == "DEL"]
    assert deleted == ["hot1", "hot0", "default-net"]
    assert node.records() == [f"{pod.container_id}@hot0", f"{pod.container_id}@hot1"]


def test_the_status_stays_ours_when_nothing_was_plugged(recorder: Node) -> None:
    """MULTUS-36: a refused request gives nobody the annotation; its repeats take no
    room."""
    node = recorder
    pod = node.pod()
    assert node.add(pod).exit_code == 0
    status, record = node.status(pod), node.root / "state" / "attachments" / node.records()[0]
    failing, sizes = noop_network(node.root, "failing", onADD={"code": 88, "msg": "no"}), set()
    for _ in range(3):
        assert delegate(node, "ADD", pod, failing, "hot0")[0] == 400
        sizes.add(record.stat().st_size)
    assert len(sizes) == 1
    node.kill()
    written = node.root / "status" / f"default_{pod.name}.yaml"
    written.unlink()
    node.restart()
    deadline = time.monotonic() + 30
    while not written.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert node.status(pod) == status
