"""Debian's podman 4 with CNI and no daemon of ours: each container by `metaplugin standalone`."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtimes.footprint import footprint, rules_of_pods
from tests.runtimes.networks import ETH0, MACVLAN, SECOND, write_networks
from tests.runtimes.podman import Podman
from tests.system.node import Node, macvlan_network, noop_network

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

NO_WAIT = {"add_wait_ms": 0, "del_wait_ms": 0, "status_wait_ms": 0}


@pytest.fixture
def podman(idle_node: Node) -> Iterator[Podman]:
    """A podman on a node that has no daemon and never will."""
    write_networks(idle_node)
    idle_node.write_config()
    idle_node.configure_shim(
        fallback=Path(sys.executable).with_name("metaplugin"),
        fallback_config=idle_node.root / "daemon.yaml",
        **NO_WAIT,
    )
    started = Podman(idle_node)
    yield started
    started.close()


def write_pod(podman: Podman, name: str, networks: str) -> None:
    """Write the manifest of the pod that a container of this name is."""
    annotations = {"k8s.v1.cni.cncf.io/networks": networks}
    metadata = {"name": name, "annotations": annotations}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    podman.node.write_manifest(f"pod-{name}.yaml", document)


def test_containers_reach_each_other_over_every_network(podman: Podman) -> None:
    """A container's name is its manifest's: podman gives K8S_POD_NAME, and no namespace."""
    for name in ("one", "two"):
        write_pod(podman, name, "macvlan,second")
    first = podman.run("one", "--publish", "18080:8080")
    podman.run("two")
    for interface, prefix in (("eth0", ETH0), ("net1", MACVLAN), ("net2", SECOND)):
        address = podman.address("two", interface)
        assert address.startswith(prefix)
        podman.ping("one", interface, address)
    assert f"{first}@eth0" in podman.node.records()
    assert any("18080" in rule for rule in rules_of_pods(podman.node))
    assert podman.node.entries("status") == ["default_one.yaml", "default_two.yaml"]
    done = podman.node.check_all()
    assert done.returncode == 0, done.stdout
    podman.call("stop", "--time", "0", "one")
    assert [name for name in podman.node.records() if name.startswith(first)] == []
    podman.call("rm", "one")
    podman.call("rm", "--force", "--time", "0", "two")
    require_nothing_left(podman)


def require_nothing_left(podman: Podman) -> None:
    """Status files apart, which a DEL doesn't need: the next ADD takes them away."""
    assert set(footprint(podman.node)) <= {"status"}
    assert list(Path("/run/netns").iterdir()) == []


def test_the_status_of_what_is_gone_goes_with_the_next_add(podman: Podman) -> None:
    for name in ("one", "two"):
        write_pod(podman, name, "macvlan")
    podman.run("one")
    podman.call("rm", "--force", "--time", "0", "one")
    podman.run("two")
    assert podman.node.entries("status") == ["default_two.yaml"]


def test_a_restarted_container_gets_its_networks_anew(podman: Podman) -> None:
    """The same container id in a namespace that is another; CNI-ADD-3."""
    write_pod(podman, "one", "macvlan,second")
    container = podman.run("one")
    podman.call("restart", "--time", "0", "one")
    assert podman.address("one", "net1").startswith(MACVLAN)
    assert podman.address("one", "net2").startswith(SECOND)
    assert podman.node.records() == [f"{container}@eth0"]
    assert len(podman.node.leases()) == 3
    podman.call("rm", "--force", "--time", "0", "one")
    require_nothing_left(podman)


def test_the_containers_of_a_pod_share_the_networks_of_its_name(podman: Podman) -> None:
    """Podman's pod, as Kubernetes': one sandbox, whose name is the pod's."""
    write_pod(podman, "trio", "macvlan")
    podman.make_pod("trio")
    for name in ("left", "right"):
        podman.run_in_pod("trio", name)
    [address] = {podman.address(name, "net1") for name in ("left", "right")}
    assert address.startswith(MACVLAN)
    assert len(podman.node.records()) == 1
    podman.call("pod", "rm", "--force", "--time", "0", "trio")
    require_nothing_left(podman)


def test_a_container_without_a_manifest_is_refused_by_name(podman: Podman) -> None:
    done = podman.attempt(*podman.run_command("nobody"))
    assert done.returncode != 0
    assert b"pod default/nobody is not known" in done.stderr
    assert b"pod default/nobody: pod default/nobody" not in done.stderr
    podman.call("rm", "nobody")
    require_nothing_left(podman)


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_each_version_that_podman_speaks(podman: Podman, version: str) -> None:
    """CNI-VER-7."""
    write_pod(podman, "one", "macvlan")
    podman.configure({"type": "metaplugin"}, version)
    podman.run("one")
    assert podman.address("one", "eth0").startswith(ETH0)
    assert podman.address("one", "net1").startswith(MACVLAN)
    podman.call("rm", "--force", "--time", "0", "one")
    require_nothing_left(podman)


def test_a_version_that_podman_does_not_speak_is_refused_by_it(podman: Podman) -> None:
    """Podman's own words, on an answer that is what its configuration asks for; then its DEL."""
    write_pod(podman, "one", "macvlan")
    podman.configure({"type": "metaplugin"}, "1.1.0")
    done = podman.attempt(*podman.run_command("one"))
    assert b'unsupported CNI result version "1.1.0"' in done.stderr
    require_nothing_left(podman)


def test_without_manifests_each_container_gets_the_networks_of_the_configuration(
    podman: Podman,
) -> None:
    """`delegates` in podman's own network, the first of them the default; names mean nothing."""
    node = podman.node
    node.daemon_keys["manifests"] = None
    node.write_config()
    delegates = [node.default, {"name": "macvlan", **macvlan_network(node.root)}]
    podman.configure({"type": "metaplugin", "delegates": delegates})
    for name in ("one", "two"):
        podman.run(name)
    for interface, prefix in (("eth0", ETH0), ("net1", MACVLAN)):
        address = podman.address("two", interface)
        assert address.startswith(prefix)
        podman.ping("one", interface, address)
    podman.call("rm", "--force", "--time", "0", "one", "two")
    require_nothing_left(podman)


def test_a_podman_killed_in_mid_add_leaves_nothing(podman: Podman) -> None:
    """It never asks for a DEL then: what can't be answered is undone."""
    node = podman.node
    shutil.copy(node.plugin("noop"), podman.root / "bin" / "noop")
    node.define("slow", noop_network(node.root, "slow", onADD={"sleep": 2}))
    write_pod(podman, "one", "macvlan,second,slow")
    process = podman.popen(*podman.run_command("one"))
    node.wait_for_noop_calls(1)
    assert {"links", "rules", "leases", "records", "locks"} <= set(footprint(node))
    process.kill()
    process.communicate()
    wait_until_unlocked(node)
    assert set(footprint(node)) <= {"status"}


def wait_until_unlocked(node: Node) -> None:
    deadline = time.monotonic() + 30
    while node.locks():
        assert time.monotonic() < deadline, footprint(node)
        time.sleep(0.02)
