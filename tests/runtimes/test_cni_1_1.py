"""Callers that speak CNI 1.1.0: containerd 2, and cnitool, which is libcni on a command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtimes.build import built_folder
from tests.runtimes.containerd import running
from tests.runtimes.footprint import footprint
from tests.runtimes.networks import ETH0, MACVLAN, SECOND
from tests.system.node import DEBIAN_PLUGINS, Node, Pod, macvlan_network

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_containerd_2_has_its_pods_attached_by_1_1_0(busy_node: Node) -> None:
    """CNI-VER-7: a version that the delegates, Debian's, don't know; STATUS decides readiness."""
    with running(busy_node, "1.1.0", built_folder()) as containerd:
        first, second = (containerd.run(name, "macvlan,second") for name in ("a", "b"))
        for interface, prefix in (("eth0", ETH0), ("net1", MACVLAN), ("net2", SECOND)):
            address = containerd.address(second, interface)
            assert address.startswith(prefix)
            containerd.ping(first, interface, address)
        assert containerd.check_all().returncode == 0
        for pod in (first, second):
            containerd.remove(pod.sandbox)
        assert footprint(busy_node) == {}
        assert containerd.sandbox_namespaces() == []


def test_containerd_2_is_not_ready_while_the_daemon_is_away(busy_node: Node) -> None:
    """STATUS, which this runtime sends before each of its own answers."""
    with running(busy_node, "1.1.0", built_folder()) as containerd:
        assert containerd.unready() == ""
        busy_node.kill()
        assert "metaplugin daemon" in containerd.unready()
        busy_node.restart()
        assert containerd.unready() == ""


CNITOOL_ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=tool"


def cnitool(
    node: Node, command: str, pod: Pod, version: str = "1.1.0"
) -> subprocess.CompletedProcess[str]:
    """Run cnitool with metaplugin as the only network."""
    folder = node.root / "cnitool"
    folder.mkdir(exist_ok=True)
    plugin = {"type": "metaplugin", "capabilities": {"io.kubernetes.cri.pod-annotations": True}}
    network = {"cniVersion": version, "name": "metaplugin", "plugins": [plugin]}
    (folder / "metaplugin.conflist").write_text(json.dumps(network))
    annotations = {"k8s.v1.cni.cncf.io/networks": "macvlan,second"}
    variables = {
        "NETCONFPATH": str(folder),
        "CNI_PATH": f"{node.root / 'bin'}:{DEBIAN_PLUGINS}",
        "CNI_ARGS": CNITOOL_ARGS,
        "CAP_ARGS": json.dumps({"io.kubernetes.cri.pod-annotations": annotations}),
    }
    return subprocess.run(
        [built_folder() / "cnitool", command, "metaplugin", pod.netns],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | variables,
    )


def is_silent_success(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a command succeeded without a result; the log on stderr is standalone's."""
    return (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_libcni_has_every_command_of_its_version_answered(busy_node: Node, version: str) -> None:
    """CNI-VER-7: ADD's result in the request's version, CHECK, STATUS and DEL silent."""
    pod = busy_node.pod()
    result = json.loads(cnitool(busy_node, "add", pod, version).stdout)
    assert result["cniVersion"] == version
    assert [address["address"] for address in result["ips"]] == [f"{ETH0}2/24"]
    assert busy_node.pod_links(pod) == {"eth0", "net1", "net2"}
    for command in ("check", "status"):
        assert is_silent_success(cnitool(busy_node, command, pod, version))
    subprocess.run(["ip", "-n", pod.netns.name, "addr", "flush", "dev", "net1"], check=True)
    assert "net1" in cnitool(busy_node, "check", pod, version).stderr
    for _ in range(2):
        assert is_silent_success(cnitool(busy_node, "del", pod, version))
    assert footprint(busy_node) == {}


def test_libcni_needs_no_daemon(busy_node: Node) -> None:
    """STATUS, ADD, CHECK and DEL, each by `metaplugin standalone` or by the shim alone."""
    busy_node.kill()
    busy_node.configure_shim(
        fallback=Path(sys.executable).with_name("metaplugin"),
        fallback_config=busy_node.root / "daemon.yaml",
        **dict.fromkeys(("add_wait_ms", "del_wait_ms", "status_wait_ms"), 0),
    )
    pod = busy_node.pod()
    assert is_silent_success(cnitool(busy_node, "status", pod))
    assert json.loads(cnitool(busy_node, "add", pod).stdout)["cniVersion"] == "1.1.0"
    assert busy_node.pod_links(pod) == {"eth0", "net1", "net2"}
    assert is_silent_success(cnitool(busy_node, "check", pod))
    assert is_silent_success(cnitool(busy_node, "del", pod))
    assert set(footprint(busy_node)) <= {"status"}


def test_libcnis_gc_ends_what_it_remembers_and_nothing_else(node: Node) -> None:
    """CNI-GC-2: after DELs for what it has in its cache, cnitool sends a GC without a list."""
    node.define("second", macvlan_network(node.root, "10.92.0.0/24"))
    gone, live = node.pod(), node.pod("macvlan")
    cnitool(node, "add", gone)
    assert node.add(live).exit_code == 0
    subprocess.run(["ip", "netns", "del", gone.netns.name], check=True)
    assert "GC needs the list of valid attachments" in cnitool(node, "gc", gone).stderr
    assert node.records() == [f"{live.container_id}@eth0"]
    assert len(node.leases()) == 2
    assert node.pod_links(live) == {"eth0", "net1"}
