"""The flows end to end: real daemon, real shim, real bridge, macvlan, host-local and recording
plugins."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.system.node import Node, bridge_network, ip_json, macvlan_network, noop_network

pytestmark = pytest.mark.system


def test_a_pod_gets_its_default_network_and_each_selected_one(node: Node) -> None:
    """CNI-ADD-1, NPWG-35, NPWG-49, MULTUS-5, MULTUS-20, CNI-DEL-5."""
    pod = node.pod("macvlan, macvlan@second")
    reply = node.add(pod)
    assert reply.exit_code == 0, reply.stdout
    assert [ip["address"] for ip in reply.json["ips"]] == ["10.90.0.2/24"]
    assert node.pod_links(pod) == {"eth0", "net1", "second"}
    names = [(entry["name"], entry["interface"]) for entry in node.status(pod)]
    assert names == [
        ("cbr0", "eth0"),
        ("default/macvlan", "net1"),
        ("default/macvlan", "second"),
    ]
    assert node.call("CHECK", pod).exit_code == 0
    assert node.delete(pod).stdout == b""
    assert node.pod_links(pod) == set()
    assert (node.leases(), node.records(), node.locks()) == ([], [], [])
    assert node.entries("status") == []


def test_annotations_come_from_the_cluster_when_the_runtime_gives_none(node: Node) -> None:
    """MULTUS-6, MULTUS-7."""
    metadata = {
        "name": "watched",
        "namespace": "default",
        "uid": "u1",
        "annotations": {"k8s.v1.cni.cncf.io/networks": '[{"name": "macvlan"}]'},
    }
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    node.write_manifest("watched.yaml", document)
    pod = node.pod(None, name="watched", uid="u1")
    assert node.add(pod).exit_code == 0
    assert node.pod_links(pod) == {"eth0", "net1"}
    assert node.delete(pod).exit_code == 0


def test_a_pod_of_another_uid_is_not_taken_for_this_one(node: Node) -> None:
    """MULTUS-33."""
    metadata = {"name": "twin", "namespace": "default", "uid": "old"}
    node.write_manifest("twin.yaml", {"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    reply = node.add(node.pod(None, name="twin", uid="new"))
    assert (reply.exit_code, reply.code) == (1, 11)
    assert "UID old" in reply.msg


def test_an_unknown_pod_is_asked_for_again_later(node: Node) -> None:
    """MULTUS-34: no made-up success."""
    reply = node.add(node.pod(None, name="nobody"))
    assert reply.code == 11
    assert "default/nobody" in reply.msg


def test_requested_address_mac_and_name_are_what_the_kernel_has(node: Node) -> None:
    """NPWG-10, NPWG-13, NPWG-16."""
    element = {
        "name": "macvlan",
        "interface": "data0",
        "ips": ["10.91.0.77/24"],
        "mac": "02:11:22:33:44:55",
    }
    pod = node.pod(json.dumps([element]))
    assert node.add(pod).exit_code == 0
    [link] = ip_json("address", "show", "data0", namespace=pod.netns.name)
    assert link["address"] == "02:11:22:33:44:55"
    assert "10.91.0.77" in [address["local"] for address in link["addr_info"]]
    [entry] = [entry for entry in node.status(pod) if entry["interface"] == "data0"]
    assert (entry["mac"], entry["ips"]) == ("02:11:22:33:44:55", ["10.91.0.77"])
    assert node.delete(pod).exit_code == 0


def test_the_default_route_moves_to_the_network_that_asks_for_it(node: Node) -> None:
    """NPWG-27, NPWG-30, CNI-ADD-1, CNI-CHK-4."""
    pod = node.pod('[{"name": "macvlan", "default-route": ["10.91.0.254"]}]')
    reply = node.add(pod)
    assert reply.exit_code == 0, reply.stdout
    routes = ip_json("route", "show", "default", namespace=pod.netns.name)
    assert [(route["gateway"], route["dev"]) for route in routes] == [("10.91.0.254", "net1")]
    assert "0.0.0.0/0" not in [route["dst"] for route in reply.json.get("routes", [])]
    gateways = {entry["interface"]: entry.get("gateway") for entry in node.status(pod)}
    assert gateways == {"eth0": None, "net1": ["10.91.0.254"]}
    assert node.call("CHECK", pod).exit_code == 0
    subprocess.run(
        ["ip", "-n", pod.netns.name, "route", "replace", "default", "via", "10.90.0.1"], check=True
    )
    check = node.call("CHECK", pod)
    assert check.code == 101
    assert "10.91.0.254" in check.msg
    assert node.delete(pod).exit_code == 0


@pytest.mark.parametrize(
    "gateways",
    [
        ["fd91::1"],
        ["10.91.0.1"],
        ["10.91.0.1", "fd91::1"],
        ["fd91::1", "fd91::fe", "10.91.0.1", "10.91.0.254"],
        [],
    ],
    ids=str,
)
def test_default_routes_go_by_family(node: Node, gateways: list[str]) -> None:
    """NPWG-27, NPWG-29, NPWG-30: the kernel, the result, CHECK and status agree."""
    default = bridge_network(node.root)
    default["plugins"][0]["ipam"] = dual_stack(node.root, "90") | {
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    }
    (node.root / "default.conflist").write_text(json.dumps(default))
    second = macvlan_network(node.root)
    second["plugins"][0]["ipam"] = dual_stack(node.root, "91")
    node.define("dual", second)
    pod = node.pod(json.dumps([{"name": "dual", "default-route": gateways}]))
    reply = node.add(pod)
    assert reply.exit_code == 0, reply.stdout
    expected = {
        family: [("net1", gateway) for gateway in gateways if (":" in gateway) == (family == "-6")]
        or [("eth0", kept)]
        for family, kept in (("-4", "10.90.0.1"), ("-6", "fd90::1"))
    }
    found = {
        family: [
            (route["dev"], route["gateway"])
            for route in ip_json(family, "route", "show", "default", namespace=pod.netns.name)
        ]
        for family in expected
    }
    assert expected == found
    kept = [family for family, routes in expected.items() if routes[0][0] == "eth0"]
    assert len(reply.json.get("routes", [])) == len(kept)
    shown = {entry["interface"]: entry.get("gateway", []) for entry in node.status(pod)}
    assert sorted(shown["net1"]) == sorted(gateways)
    assert len(shown["eth0"]) == len(kept)
    assert node.call("CHECK", pod).exit_code == 0
    assert node.delete(pod).exit_code == 0


@pytest.mark.parametrize("gateways", [["10.77.0.1"], ["10.91.0.254", "10.77.0.1"]], ids=len)
def test_a_gateway_that_can_not_be_reached_is_told_and_undone(
    node: Node, gateways: list[str]
) -> None:
    """NPWG-27, CNI-DEL-6."""
    pod = node.pod(json.dumps([{"name": "macvlan", "default-route": gateways}]))
    reply = node.add(pod)
    assert (reply.exit_code, reply.code) == (1, 7)
    assert "10.77.0.1" in reply.msg
    assert node.pod_links(pod) == set()
    assert (node.leases(), node.records(), node.locks()) == ([], [], [])


def test_an_empty_list_moves_the_default_route_to_the_networks_own_gateway(node: Node) -> None:
    """NPWG-29, NPWG-30, CNI-ADD-1: also where the plugin found one there and left it."""
    second = macvlan_network(node.root)
    second["plugins"][0]["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    node.define("routed", second)
    pod = node.pod('[{"name": "routed", "default-route": []}]')
    reply = node.add(pod)
    assert reply.exit_code == 0, reply.stdout
    routes = ip_json("route", "show", "default", namespace=pod.netns.name)
    assert [(route["gateway"], route["dev"]) for route in routes] == [("10.91.0.1", "net1")]
    assert reply.json.get("routes", []) == []
    shown = {entry["interface"]: entry.get("gateway") for entry in node.status(pod)}
    assert shown == {"eth0": None, "net1": ["10.91.0.1"]}
    assert node.call("CHECK", pod).exit_code == 0
    assert node.delete(pod).exit_code == 0


def test_an_empty_list_keeps_a_route_as_its_plugin_made_it(node: Node) -> None:
    """NPWG-29, CNI-CHK-6: metric, MTU, and no gateway at all."""
    node.plugin("tunnel", Path(__file__).parents[1] / "plugins" / "tunnel.sh")
    node.define("tunnel", {"cniVersion": "1.0.0", "type": "tunnel"})
    pod = node.pod('[{"name": "tunnel", "default-route": []}]')
    reply = node.add(pod)
    assert reply.exit_code == 0, reply.stdout
    [route] = ip_json("route", "show", "default", namespace=pod.netns.name)
    assert (route["dev"], route["metric"]) == ("net1", 50)
    assert route["metrics"] == [{"mtu": 1300}]
    assert "gateway" not in route
    assert (reply.json.get("routes", []), "gateway" in node.status(pod)[1]) == ([], False)
    assert node.call("CHECK", pod).exit_code == 0
    subprocess.run(["ip", "-n", pod.netns.name, "route", "del", "default"], check=True)
    assert "default route is absent, not direct by net1" in node.call("CHECK", pod).msg
    assert node.delete(pod).exit_code == 0


def dual_stack(root: Path, number: str) -> dict[str, object]:
    ranges = [[{"subnet": f"10.{number}.0.0/24"}], [{"subnet": f"fd{number}::/64"}]]
    return {"type": "host-local", "dataDir": str(root / "leases"), "ranges": ranges}


def test_check_finds_what_went_missing(node: Node) -> None:
    """CNI-CHK-2, CNI-CHK-3, CNI-CHK-4."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    subprocess.run(["ip", "-n", pod.netns.name, "link", "del", "net1"], check=True)
    check = node.call("CHECK", pod)
    assert check.exit_code == 1
    assert "net1" in check.msg
    assert node.delete(pod).exit_code == 0
    assert node.call("CHECK", pod).code == 3


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_the_result_is_in_the_runtimes_version(recording_node: Node, version: str) -> None:
    """CNI-VER-7."""
    pod = recording_node.pod("")
    reply = recording_node.add(pod, stdin=recording_node.stdin(pod, version))
    assert reply.json["cniVersion"] == version
    assert recording_node.delete(pod).exit_code == 0


def test_a_failed_attachment_undoes_the_others_in_reverse(recording_node: Node) -> None:
    """CNI-ERR-3, CNI-DLG-10, CNI-DLG-18, CNI-DLG-19, NPWG-52, NPWG-53: at each position."""
    node, root = recording_node, recording_node.root
    for name in ("a", "b", "c"):
        keys = {"result": {"cniVersion": "1.0.0", "dns": {"domain": name}}, "x": [None, 1.5]}
        node.define(name, noop_network(root, name, **keys))
    for position, failing in enumerate(("a", "b", "c"), start=1):
        node.define("bad", noop_network(root, "bad", onADD={"code": 77, "msg": "no room"}))
        names = ["a", "b", "c"]
        names[position - 1] = "bad"
        (root / "noop.log").unlink(missing_ok=True)
        pod = node.pod(",".join(names))
        reply = node.add(pod)
        assert (reply.exit_code, reply.code) == (1, 77), failing
        assert "no room" in reply.msg
        assert f"net{position}" in reply.msg
        calls = node.noop_calls()
        adds = [call for call in calls if call["command"] == "ADD"]
        deletes = [call for call in calls if call["command"] == "DEL"]
        ifnames = [call["env"]["CNI_IFNAME"] for call in adds]
        assert ifnames == ["eth0", "net1", "net2", "net3"][: position + 1]
        assert [call["env"]["CNI_IFNAME"] for call in deletes] == ifnames[::-1]
        for added, deleted in zip(adds, reversed(deletes), strict=True):
            request = json.loads(deleted["stdin"])
            previous = request.pop("prevResult", None)
            assert request == json.loads(added["stdin"])
            assert (previous is None) == (added is adds[-1])
            if previous and request["name"] in names:
                assert previous["dns"] == {"domain": request["name"]}
            same = {k: v for k, v in added["env"].items() if k != "CNI_COMMAND"}
            assert same == {k: v for k, v in deleted["env"].items() if k != "CNI_COMMAND"}
        assert (node.records(), node.locks()) == ([], [])


def test_a_chain_runs_forwards_for_add_and_backwards_for_del(recording_node: Node) -> None:
    """CNI-DLG-3, CNI-DLG-9, CNI-DLG-10."""
    node = recording_node
    node.plugin("noop2")
    chain = noop_network(node.root, "chain")
    chain["plugins"].append({"type": "noop2", "log": str(node.root / "noop.log")})
    node.define("chain", chain)
    pod = node.pod("chain")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0
    calls = [(call["command"], call["type"]) for call in node.noop_calls()]
    assert calls == [
        ("ADD", "noop"),
        ("ADD", "noop"),
        ("ADD", "noop2"),
        ("DEL", "noop2"),
        ("DEL", "noop"),
        ("DEL", "noop"),
    ]
    first, second = (json.loads(node.noop_calls()[i]["stdin"]) for i in (1, 2))
    assert "prevResult" not in first
    assert second["prevResult"]["interfaces"][0]["name"] == "net1"


def test_the_runtimes_capabilities_and_arguments_go_to_the_default_network_alone(
    recording_node: Node,
) -> None:
    """NPWG-57, MULTUS-2, MULTUS-9, CNI-DLG-7, CNI-DLG-8: those that nobody knows included."""
    node = recording_node
    capable = {"capabilities": {"portMappings": True, "example.org/x": True, "cgroupPath": True}}
    (node.root / "default.conflist").write_text(
        json.dumps(noop_network(node.root, "default-net", **capable))
    )
    node.define("extra", noop_network(node.root, "extra", **capable))
    pod = node.pod("extra")
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    config = json.loads(node.stdin(pod))
    given = {"portMappings": ports, "example.org/x": [{"y": None}], "cgroupPath": "/a"}
    config["runtimeConfig"] |= given | {"undeclared": 1}
    reply = node.add(pod, stdin=json.dumps(config).encode(), CNI_ARGS=f"{pod.args};FOO=a=b")
    assert reply.exit_code == 0
    default, extra = node.noop_calls()
    assert json.loads(default["stdin"])["runtimeConfig"] == given
    assert "runtimeConfig" not in json.loads(extra["stdin"])
    assert "FOO=a=b" in default["env"]["CNI_ARGS"]
    assert "FOO" not in extra["env"]["CNI_ARGS"]
    assert f"K8S_POD_NAME={pod.name}" in extra["env"]["CNI_ARGS"]
    assert node.delete(pod).exit_code == 0


def test_a_second_add_of_a_live_sandbox_changes_nothing(node: Node) -> None:
    """CNI-ADD-2, CNI-ADD-3."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    before = ip_json("address", namespace=pod.netns.name)
    again = node.add(pod)
    assert again.code == 4
    assert before == ip_json("address", namespace=pod.netns.name)
    assert node.delete(pod).exit_code == 0


def test_an_interface_that_is_there_already_is_left_alone(node: Node) -> None:
    """CNI-ADD-2, NPWG-18."""
    pod = node.pod("macvlan")
    subprocess.run(
        ["ip", "-n", pod.netns.name, "link", "add", "net1", "type", "bridge"], check=True
    )
    reply = node.add(pod)
    assert reply.exit_code == 1
    assert "net1" in reply.msg
    assert node.pod_links(pod) == {"net1"}
    assert (node.leases(), node.records(), node.locks()) == ([], [], [])


# a thread is a clone as well, so what counts is a process that begins or another program
EXECUTING = "trace=execve,execveat,fork,vfork"


def test_delegates_run_where_the_runtime_called(recording_node: Node) -> None:
    """CNI-DLG-12: every delegate's parent is the shim; the daemon executes nothing."""
    node = recording_node
    assert node.daemon is not None
    log = node.root / "execs"
    strace = subprocess.Popen(
        ["strace", "-f", "-e", EXECUTING, "-o", log, "-p", str(node.daemon.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert strace.stderr is not None
    assert "attached" in strace.stderr.readline()
    pod = node.pod("")
    context = node.root / "context"
    where = "readlink /proc/self/ns/net /proc/self/ns/mnt; cat /proc/self/cgroup"
    runtime = ("sh", "-c", f'({where}) > {context}; exec "$0"')
    for command in ("ADD", "DEL"):
        process = node.popen(command, pod, prefix=("unshare", "--mount", "--net", *runtime))
        out, _ = process.communicate(node.stdin(pod), 30)
        assert process.returncode == 0, out
        netns, mntns, cgroup = context.read_text().split("\n", 2)
        [call] = [call for call in node.noop_calls() if call["command"] == command]
        assert call["ppid"] == process.pid
        assert (call["netns"], call["mntns"], call["cgroup"]) == (netns, mntns, cgroup)
        for kind, found in (("net", netns), ("mnt", mntns)):
            assert found != Path(f"/proc/{node.daemon.pid}/ns/{kind}").readlink().as_posix()
    strace.terminate()
    strace.wait()
    strace.stderr.close()
    traced = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    assert [line for line in traced if not line.startswith(("---", "+++"))] == []


def test_gc_releases_what_the_runtime_no_longer_lists(node: Node) -> None:
    """CNI-GC-2, CNI-GC-3, CNI-GC-4, CNI-GC-9."""
    live, gone = node.pod("macvlan"), node.pod("macvlan")
    assert node.add(live).exit_code == 0
    assert node.add(gone).exit_code == 0
    leases = node.leases()
    subprocess.run(["ip", "netns", "del", gone.netns.name], check=True)
    valid = [{"containerID": live.container_id, "ifname": "eth0"}]
    collect = node.stdin(None, "1.1.0", **{"cni.dev/valid-attachments": valid})
    reply = node.call("GC", None, stdin=collect)
    assert (reply.exit_code, reply.stdout) == (0, b"")
    assert node.records() == [f"{live.container_id}@eth0"]
    assert len(node.leases()) == len(leases) - 2
    assert node.call("CHECK", live).exit_code == 0
    assert node.delete(live).exit_code == 0
    assert node.leases() == []


@pytest.mark.parametrize("valid", [None, {}, [{"containerID": "../x", "ifname": "eth0"}]], ids=str)
def test_gc_without_a_well_formed_list_deletes_nothing(node: Node, valid: object) -> None:
    """CNI-GC-2."""
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    extra = {} if valid is None else {"cni.dev/valid-attachments": valid}
    reply = node.call("GC", None, stdin=node.stdin(None, "1.1.0", **extra))
    assert reply.exit_code == 1
    assert node.records() == [f"{pod.container_id}@eth0"]
    assert node.call("CHECK", pod).exit_code == 0
    assert node.delete(pod).exit_code == 0


def test_gc_of_a_runtime_that_has_no_pod_left_releases_what_it_made(recording_node: Node) -> None:
    """CNI-GC-2, CNI-GC-3: CRI-O at its start, with no sandbox; libcni then sends null."""
    node = recording_node
    assert node.add(node.pod("")).exit_code == 0
    keys = ("cni.dev/valid-attachments", "cni.dev/attachments")
    collect = node.stdin(None, "1.1.0", **dict.fromkeys(keys))
    assert b'"cni.dev/valid-attachments": null' in collect
    assert node.call("GC", None, stdin=collect).exit_code == 0
    assert node.records() == []
    assert [call["command"] for call in node.noop_calls()][:2] == ["ADD", "DEL"]


def test_gc_is_passed_to_delegates_with_their_own_interface_names(recording_node: Node) -> None:
    """CNI-GC-1, CNI-GC-11."""
    node = recording_node
    network = noop_network(node.root, "extra") | {"cniVersion": "1.1.0"}
    node.define("extra", network)
    pod = node.pod("extra")
    assert node.add(pod).exit_code == 0
    valid = [{"containerID": pod.container_id, "ifname": "eth0"}]
    collect = node.stdin(None, "1.1.0", **{"cni.dev/valid-attachments": valid})
    assert node.call("GC", None, stdin=collect).exit_code == 0
    [call] = [call for call in node.noop_calls() if call["command"] == "GC"]
    expected = [{"containerID": pod.container_id, "ifname": "net1"}]
    assert json.loads(call["stdin"])["cni.dev/valid-attachments"] == expected
    assert node.delete(pod).exit_code == 0


def test_status_tells_what_an_add_could_do(recording_node: Node) -> None:
    """CNI-STA-1, CNI-STA-2, CNI-STA-3, CNI-STA-5, CNI-STA-6."""
    node = recording_node
    default = node.root / "default.conflist"
    ask = node.stdin(None, "1.1.0")
    assert node.call("STATUS", None, stdin=ask).exit_code == 0
    failing = noop_network(node.root, "default-net", onSTATUS={"code": 51, "msg": "half"})
    default.write_text(json.dumps(failing | {"cniVersion": "1.1.0"}))
    assert node.call("STATUS", None, stdin=ask).code == 51
    default.write_text(
        json.dumps(macvlan_network(node.root) | {"name": "x"}).replace("macvlan", "no")
    )
    missing = node.call("STATUS", None, stdin=ask)
    assert missing.code == 50
    assert "'no'" in missing.msg
    default.unlink()
    assert node.call("STATUS", None, stdin=ask).code == 50
    node.kill()
    away = node.call("STATUS", None, stdin=ask)
    assert away.code == 50
    assert away.took < 8


@pytest.mark.parametrize(
    ("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "0.4.0")]
)
def test_commands_younger_than_the_version_are_refused(
    recording_node: Node, command: str, version: str
) -> None:
    """CNI-VER-9."""
    pod = recording_node.pod("")
    reply = recording_node.call(command, pod, stdin=recording_node.stdin(pod, version))
    assert reply.code == 1
    assert recording_node.noop_calls() == []


def test_version_needs_no_daemon(idle_node: Node) -> None:
    """CNI-VER-1, CNI-VER-2, CNI-VER-3, CNI-VER-4."""
    reply = idle_node.call("VERSION", None, stdin=b'{"cniVersion": "0.4.0"}')
    assert reply.json == {
        "cniVersion": "0.4.0",
        "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }
