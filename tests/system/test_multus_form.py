"""Multus's own configurations with `type` changed, and what they can say, in real runs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.node import Node, Pod, Reply, ip_json, noop_network

pytestmark = pytest.mark.system

PLAIN = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"


def outer(node: Node, pod: Pod | None, version: str = "1.0.0", **keys: Any) -> bytes:
    """Return a configuration as Multus has it, `type` changed."""
    return node.stdin(pod, version, **{"name": "multus-cni-network"} | keys)


def choosing(node: Node, pod: Pod, text: str, **keys: Any) -> bytes:
    """Return a configuration whose pod chooses its default network."""
    runtime = {"io.kubernetes.cri.pod-annotations": {DEFAULT_NETWORK: text}}
    return outer(node, pod, runtimeConfig=runtime, **keys)


def ran(node: Node, command: str = "ADD") -> list[tuple[str, str]]:
    """Return the network and interface of each call of the recording plugin."""
    return [
        (json.loads(call["stdin"])["name"], call["env"]["CNI_IFNAME"])
        for call in node.noop_calls()
        if call["command"] == command
    ]


def refused(reply: Reply, code: int, *words: str) -> None:
    assert (reply.exit_code, reply.code) == (1, code)
    assert [word for word in words if word not in reply.msg] == []


def test_a_thin_configuration_works_with_its_type_changed(recording_node: Node) -> None:
    """MULTUS-11, MULTUS-18, MULTUS-19: all its keys, also those that mean nothing here."""
    node = recording_node
    keys: dict[str, Any] = {
        "confDir": "/nowhere",
        "cniDir": "/var/lib/cni/multus",
        "binDir": str(node.root / "plugins"),
        "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig",
        "logFile": "/var/log/multus.log",
        "logLevel": "verbose",
        "logToStderr": True,
        "logOptions": {"maxAge": 5},
        "namespaceIsolation": False,
        "retryDeleteOnError": True,
        "capabilities": {"portMappings": True},
        "tomorrow": {"a": 1},
        "delegates": [noop_network(node.root, name, result=PLAIN) for name in ("main", "second")],
    }
    pod = node.pod("")
    stdin = outer(node, pod, **keys)
    assert node.add(pod, stdin=stdin, CNI_PATH="/nowhere").exit_code == 0
    assert node.call("CHECK", pod, stdin=stdin, CNI_PATH="/nowhere").exit_code == 0
    assert node.delete(pod, stdin=stdin, CNI_PATH="/nowhere").exit_code == 0
    assert ran(node) == [("main", "eth0"), ("second", "net1")]
    assert ran(node, "DEL") == [("second", "net1"), ("main", "eth0")]
    node.add(node.pod(""), stdin=stdin)
    warnings = [line for line in node.log.read_text().splitlines() if "Multus's form" in line]
    assert len(warnings) == 1
    assert "cniDir, retryDeleteOnError, logFile" in warnings[0]


def test_the_shim_searches_multus_bin_dir_first_and_without_a_daemon_too(
    recording_node: Node,
) -> None:
    """MULTUS-19: CNI_PATH comes after binDir, which the runtime's configuration names."""
    node = recording_node
    folder = node.root / "bindir"
    folder.mkdir()
    (node.root / "plugins" / "noop").rename(folder / "noop")
    node.plugin("noop", Path("/bin/false"))
    pod = node.pod("")
    stdin = outer(node, pod, binDir=str(folder), clusterNetwork=str(node.root / "default.conflist"))
    assert node.add(pod, stdin=stdin).exit_code == 0
    node.kill()
    assert node.delete(pod, stdin=stdin).exit_code == 0
    assert ran(node, "DEL") == [("default-net", "eth0")]


def test_a_kubeconfig_without_a_cluster_of_ours_is_refused(recording_node: Node) -> None:
    """MULTUS-18, MULTUS-19: pods would lose their networks without a word."""
    node = recording_node
    node.daemon_keys["manifests"] = None
    node.restart()
    pod = node.pod("")
    keys: dict[str, Any] = {"kubeconfig": "/etc/k", "delegates": [noop_network(node.root, "main")]}
    refused(node.add(pod, stdin=outer(node, pod, **keys)), 7, "kubeconfig")
    del keys["kubeconfig"]
    assert node.add(pod, stdin=outer(node, pod, **keys)).exit_code == 0
    assert node.delete(pod, stdin=outer(node, pod, kubeconfig=5)).exit_code == 0


def test_isolation_is_off_in_multus_form_unless_somebody_says_so(recording_node: Node) -> None:
    """MULTUS-16."""
    node = recording_node
    node.define("shared", noop_network(node.root, "shared"), namespace="other")
    file = {"clusterNetwork": str(node.root / "default.conflist")}
    pod = node.pod("other/shared")
    assert node.add(pod, stdin=outer(node, pod, **file)).exit_code == 0
    again = node.pod("other/shared")
    refused(node.add(again), 7, "other")
    isolated = outer(node, again, **file, namespaceIsolation=True, globalNamespaces="x")
    refused(node.add(again, stdin=isolated), 7, "other")
    opened = outer(node, again, **file, namespaceIsolation=True, globalNamespaces=" x , other")
    assert node.add(again, stdin=opened).exit_code == 0
    node.daemon_keys["namespaceIsolation"] = True
    node.restart()
    last = node.pod("other/shared")
    refused(node.add(last, stdin=outer(node, last, **file)), 7, "other")


def test_the_default_network_by_every_kind_of_reference(recording_node: Node) -> None:
    """MULTUS-13: net-attach-def with and without namespace, configuration name, file, folder."""
    node = recording_node
    node.define("nad", noop_network(node.root, "by-nad"), namespace="networks")
    node.define("nad", noop_network(node.root, "by-full-name"), namespace="other")
    (node.root / "net.d" / "z.conf").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "named", "type": "false"})
    )
    (node.root / "net.d" / "broken.conflist").write_text("{")
    listed = noop_network(node.root, "named")
    (node.root / "net.d" / "zz.conflist").write_text(json.dumps(listed))
    folder = node.root / "runtime"
    folder.mkdir()
    for name, kind in (("00-multus.conf", "multus-shim"), ("01-renamed.conf", "metaplugin")):
        (folder / name).write_text(
            json.dumps({"cniVersion": "1.0.0", "name": "x", "type": kind, "clusterNetwork": "y"})
        )
    (folder / "10-main.conflist").write_text(json.dumps(noop_network(node.root, "in-folder")))
    for reference, expected in {
        "nad": "by-nad",
        "other/nad": "by-full-name",
        "named": "named",
        str(folder): "in-folder",
        str(folder / "10-main.conflist"): "in-folder",
    }.items():
        pod = node.pod("")
        keys = {"multusNamespace": "networks", "confDir": str(node.root / "net.d")}
        stdin = outer(node, pod, clusterNetwork=reference, **keys)
        assert node.add(pod, stdin=stdin).exit_code == 0, reference
        assert ran(node)[-1] == (expected, "eth0")
        assert node.delete(pod, stdin=stdin).exit_code == 0
    pod = node.pod("")
    refused(node.add(pod, stdin=outer(node, pod, clusterNetwork="no")), 7, "clusterNetwork", "'no'")


def test_default_networks_come_first_and_not_for_system_namespaces(recording_node: Node) -> None:
    """MULTUS-13: net1… before what the pod selects; our own form and Multus's."""
    node = recording_node
    for name in ("a", "b"):
        node.define(name, noop_network(node.root, name), namespace="kube-system")
    node.define("own", noop_network(node.root, "own"), namespace="app")
    node.daemon_keys |= {"defaultNetworks": ["a", "kube-system/b"], "systemNamespaces": ["infra"]}
    node.restart()
    pod = node.pod("own", namespace="app")
    assert node.add(pod).exit_code == 0
    expected = [("default-net", "eth0"), ("a", "net1"), ("b", "net2"), ("own", "net3")]
    assert ran(node) == expected
    assert [entry["name"] for entry in node.status(pod)][1:3] == ["kube-system/a", "kube-system/b"]
    assert node.delete(pod).exit_code == 0
    assert ran(node, "DEL") == expected[::-1]
    assert node.add(node.pod("", namespace="infra")).exit_code == 0
    assert ran(node)[4:] == [("default-net", "eth0")]
    said = node.pod("", namespace="infra")
    file = str(node.root / "default.conflist")
    keys: dict[str, Any] = {
        "clusterNetwork": file,
        "defaultNetworks": ["b"],
        "systemNamespaces": [],
    }
    assert node.add(said, stdin=outer(node, said, **keys)).exit_code == 0
    assert ran(node)[5:] == [("default-net", "eth0"), ("b", "net1")]


def test_a_pod_may_choose_its_default_network(recording_node: Node) -> None:
    """MULTUS-12: in the configured namespace; its interface, MAC and addresses go with it, and the
    runtime's own capabilities."""
    node = recording_node
    declared = {"capabilities": {"mac": True, "ips": True}}
    node.define("other", noop_network(node.root, "other", **declared), namespace="networks")
    asked = {"name": "other", "interface": "lan0", "mac": "02:00:00:00:00:09", "ips": ["10.1.1.9"]}
    pod = node.pod("")
    stdin = choosing(node, pod, json.dumps([asked]), multusNamespace="networks")
    assert node.add(pod, stdin=stdin).exit_code == 0
    assert ran(node) == [("other", "lan0")]
    call = node.noop_calls()[0]
    given = json.loads(call["stdin"])["runtimeConfig"]
    assert given == {"mac": asked["mac"], "ips": asked["ips"]}
    assert "IP=10.1.1.9;MAC=02:00:00:00:00:09" in call["env"]["CNI_ARGS"]
    entry = node.status(pod)[0]
    assert (entry["name"], entry["interface"], entry["default"]) == ("networks/other", "lan0", True)
    assert node.delete(pod, stdin=stdin).exit_code == 0
    assert ran(node, "DEL") == [("other", "lan0")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("other,other", ["default-network", "2 networks"]),
        ("networks/other", ["'networks'"]),
        ("[1]", ["default-network", "[0]"]),
        ('[{"name": "other", "namespace": "default", "mac": "x"}]', ["default-network", "mac"]),
        ("default/none", ["default-network", "'none'"]),
    ],
    ids=["two", "isolated", "no object", "bad mac", "missing"],
)
def test_a_choice_of_default_network_that_is_refused(
    recording_node: Node, text: str, words: list[str]
) -> None:
    """MULTUS-12, MULTUS-16: under the same isolation as everything else."""
    node = recording_node
    for namespace in ("networks", "default"):
        node.define("other", noop_network(node.root, "other"), namespace=namespace)
    pod = node.pod("")
    refused(node.add(pod, stdin=own(node, pod, text)), 7, *words)
    assert node.noop_calls() == []


def own(node: Node, pod: Pod, text: str) -> bytes:
    """Return our own form, with isolation, for a pod that chooses its default network."""
    runtime = {"io.kubernetes.cri.pod-annotations": {DEFAULT_NETWORK: text}}
    return node.stdin(pod, runtimeConfig=runtime)


def test_an_add_waits_for_readiness_and_a_del_does_not(recording_node: Node) -> None:
    """MULTUS-17, NPWG-50, CNI-STA-6."""
    node = recording_node
    ready = node.root / "ready" / "file"
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    node.daemon_keys |= {
        "readinessFile": str(ready),
        "deadlines": {"readinessSeconds": 1},
    }
    node.restart()
    late = node.pod("")
    refused(node.add(late), 11, str(ready), "deadlines.readinessSeconds", "1 s")
    status = node.call("STATUS", None, stdin=node.stdin(None, "1.1.0"))
    refused(status, 50, str(ready))
    assert node.delete(pod).exit_code == 0
    node.daemon_keys["deadlines"] = {"readinessSeconds": 30}
    node.restart()
    adding = node.popen("ADD", late)
    assert adding.stdin is not None
    adding.stdin.write(node.stdin(late))
    adding.stdin.close()
    time.sleep(0.5)
    assert adding.poll() is None
    ready.parent.mkdir()
    ready.touch()
    assert adding.wait(20) == 0
    for stream in (adding.stdout, adding.stderr):
        assert stream is not None
        stream.close()
    assert node.call("STATUS", None, stdin=node.stdin(None, "1.1.0")).exit_code == 0


def test_readiness_in_multus_form(recording_node: Node) -> None:
    """MULTUS-17."""
    node = recording_node
    keys = {"clusterNetwork": str(node.root / "default.conflist"), "readinessindicatorfile": "/no"}
    refused(node.call("STATUS", None, stdin=outer(node, None, "1.1.0", **keys)), 50, "/no")


def arp_filter(pod: Pod) -> str:
    command = ["ip", "netns", "exec", pod.netns.name, "cat", "/proc/sys/net/ipv4/conf/eth0"]
    return subprocess.check_output([*command[:-1], f"{command[-1]}/arp_filter"], text=True).strip()


def test_an_auxiliary_chain_runs_for_every_pod_after_its_networks(node: Node) -> None:
    """MULTUS-15: real tuning on the default network's interface, by a passthru that nobody had to
    install; no network of its own in the status."""
    chain = node.root / "vendor-cni-chain"
    chain.mkdir()
    sysctl = {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}}
    (chain / "tuning.conf").write_text(json.dumps({"cniVersion": "1.0.0", "name": "x"} | sysctl))
    (chain / "readme.txt").write_text("no plugin")
    pod = node.pod("macvlan", namespace="default")
    stdin = outer(
        node,
        pod,
        clusterNetwork=str(node.root / "default.conflist"),
        auxiliaryCNIChainName="vendor-cni-chain",
    )
    assert node.add(pod, stdin=stdin).exit_code == 0
    assert arp_filter(pod) == "1"
    assert node.pod_links(pod) == {"eth0", "net1"}
    assert [entry["interface"] for entry in node.status(pod)] == ["eth0", "net1"]
    assert node.call("CHECK", pod, stdin=stdin).exit_code == 0
    node.kill()  # the shim alone knows passthru as well
    assert node.delete(pod, stdin=stdin).exit_code == 0
    assert (node.records(), node.leases()) == ([], [])


def test_an_auxiliary_chain_of_our_own_form(recording_node: Node) -> None:
    """MULTUS-15: its folder is looked at anew for each pod; a bad file fails the pod by name, for
    it would be without what the operator wants of every pod."""
    node = recording_node
    node.daemon_keys["auxiliaryChain"] = "every"
    node.restart()
    assert node.add(node.pod("")).exit_code == 0
    assert len(ran(node)) == 1
    (node.root / "every").mkdir()
    for name in ("b", "a"):
        plugin = noop_network(node.root)["plugins"][0] | {"mark": name}
        (node.root / "every" / f"{name}.conf").write_text(json.dumps(plugin))
    pod = node.pod("", namespace="kube-system")
    assert node.add(pod).exit_code == 0
    assert ran(node)[1:] == [("default-net", "eth0"), ("every", "net1"), ("every", "net1")]
    marks = [json.loads(call["stdin"]).get("mark") for call in node.noop_calls()]
    assert marks[2:] == ["a", "b"]
    assert json.loads(node.noop_calls()[2]["stdin"])["prevResult"] == {"cniVersion": "1.0.0"}
    assert node.delete(pod).exit_code == 0
    (node.root / "every" / "c.conf").write_text("{")
    refused(node.add(node.pod("")), 6, "c.conf")


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_passthru_is_the_shim_by_another_name(recording_node: Node, version: str) -> None:
    """MULTUS-15: an empty result, or that of the plugin before; nothing else does anything."""
    link = recording_node.root / "plugins" / "passthru"
    link.symlink_to(recording_node.shim)
    environment = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/x", "CNI_IFNAME": "net1"}
    config: dict[str, Any] = {"cniVersion": version, "name": "n", "type": "passthru"}

    def run(command: str, **keys: Any) -> tuple[int, Any]:
        done = subprocess.run(
            [link],
            env={**os.environ, **environment, "CNI_COMMAND": command, "CNI_PATH": "/x"},
            input=json.dumps(config | keys).encode(),
            capture_output=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    assert run("ADD") == (0, {"cniVersion": version})
    before = {"cniVersion": version, "interfaces": [{"name": 'a"},{'}], "ips": []}
    assert run("ADD", prevResult=before) == (0, before)
    assert [run(command) for command in ("CHECK", "DEL", "GC", "STATUS")] == [(0, None)] * 4
    assert run("VERSION")[1]["supportedVersions"][-1] == "1.1.0"


def test_passthru_makes_no_link_where_it_runs_alone(node: Node) -> None:
    """MULTUS-15: as a network's only plugin."""
    node.define("nothing", {"cniVersion": "1.0.0", "plugins": [{"type": "passthru"}]})
    pod = node.pod("nothing")
    assert node.add(pod).exit_code == 0
    assert node.pod_links(pod) == {"eth0"}
    assert ip_json("link", namespace=pod.netns.name)
    assert node.delete(pod).exit_code == 0
