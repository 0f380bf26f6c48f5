"""Devices from a real kubelet's allocation to the pod's interfaces: made PCI functions, a device
plugin that offers them, Debian's host-device plugin that moves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.devices import RESOURCE, allocatable, offered, using
from tests.cluster.machine import Machine, until
from tests.cluster.metaplugin import Installed
from tests.cluster.objects import deployment, pod
from tests.cluster.site import Site
from tests.controlplane import objects
from tests.kubelet.podresources import Device
from tests.system.fake_sysfs import DEVICES, FakeSysfs

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PF, PODS = "0000:03:00.0", 30
INTERFACES = {
    f"0000:03:{0x10 + number // 8:02x}.{number % 8}": f"vf{number}" for number in range(2 * PODS)
}
OFFERED = [Device(id=address, numa=(0,)) for address in INTERFACES]


class MachinesSysfs(FakeSysfs):
    """A made tree whose interfaces are a machine's."""

    def __init__(self, root: Path, machine: Machine) -> None:
        super().__init__(root)
        self._machine = machine

    def _make_link(self, name: str) -> None:
        wire = f"w.{name}"
        self._machine.run("ip", "link", "add", name, "type", "veth", "peer", "name", wire)
        self._machine.run("ip", "link", "set", wire, "up")
        self._wires.append(wire)

    def remove_links(self) -> None:
        for wire in self._wires:
            self._machine.run("ip", "link", "del", wire)


@contextmanager
def made_functions(machine: Machine, root: Path) -> Iterator[None]:
    """Give a machine the functions of `INTERFACES`."""
    tree = MachinesSysfs(root, machine)
    tree.function(PF, driver="igb")
    for address, name in INTERFACES.items():
        tree.virtual_function(address, name, of=PF, numa_node=0)
    machine.run("mount", "--bind", tree.devices, DEVICES)
    yield
    machine.run("umount", "--lazy", DEVICES)
    tree.remove_links()


@pytest.fixture(scope="module")
def functions(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    root = tmp_path_factory.mktemp("sysfs")
    with made_functions(installed.site.nodes[0].machine, root):
        yield


@pytest.fixture
def site(installed: Installed, functions: None) -> Iterator[Site]:
    """The cluster with 60 devices on node1, and a network `vf` that takes one."""
    network = objects.net_attach_def(
        "vf",
        {
            "cniVersion": "1.0.0",
            "type": "host-device",
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.68.0.0/24"}]]},
        },
    )
    network["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/resourceName": RESOURCE}
    site, first = installed.site, installed.metaplugins[0]
    before = first.node.links()
    site.apply(network)
    with offered(site, first.node, OFFERED):
        yield site
        site.clear()
    site.remove([network])
    assert first.node.links() == before  # every function is back, by its own name
    rest = {what: names for what, names in first.footprint().items() if what != "links"}
    assert rest == {}


def given(site: Site, name: str) -> set[str]:
    """Return the interfaces of the devices that a pod's container was given by the kubelet."""
    devices = site.execute(name, "sh", "-c", "echo $DEVICES").strip()
    return {INTERFACES[address] for address in devices.split(",")}


def moved(site: Site, name: str, *interfaces: str) -> list[str]:
    """Return the names that a pod's interfaces had on the node."""
    files = [f"/sys/class/net/{interface}/ifalias" for interface in interfaces]
    return site.execute(name, "cat", *files).split()


def wanting(count: int, networks: str, **keys: Any) -> dict[str, Any]:
    return {"networks": networks, "containers": [using(count)], **keys}


def test_a_pod_has_the_devices_that_the_kubelet_gave_it(site: Site) -> None:
    """DEV-2: one network twice, a device each; addresses as its own IPAM says."""
    site.apply(pod("a", **wanting(2, "vf,vf")))
    site.wait_for_pods("a")
    names = moved(site, "a", "net1", "net2")
    assert len(names) == 2
    assert set(names) == given(site, "a")
    addresses = [each["ips"] for each in site.network_status("a")[1:]]
    assert len(addresses) == 2
    for interface, [address] in zip(("net1", "net2"), addresses, strict=True):
        assert f"inet {address}/" in site.execute("a", "ip", "addr", "show", interface)


def test_thirty_pods_at_once_share_no_device_and_lack_none(site: Site) -> None:
    """DEV-2: all are taken then; one more pod gets those that another gives back."""
    site.apply(deployment("many", PODS, **wanting(2, "vf,vf")))
    site.kubectl("rollout", "status", "deployment", "many", "--timeout=120s")
    in_pods = {name: moved(site, name, "net1", "net2") for name in names_of_pods(site)}
    assert len(in_pods) == PODS
    assert sorted(chain(*in_pods.values())) == sorted(INTERFACES.values())
    for name in list(in_pods)[:5]:
        assert set(in_pods[name]) == given(site, name)
    site.apply(pod("last", **wanting(2, "vf,vf")))
    site.kubectl("scale", "deployment", "many", f"--replicas={PODS - 1}")
    site.wait_for_pods("last")
    until(lambda: len(names_of_pods(site)) == PODS, "the scaled-down pod stays")
    [gone] = in_pods.keys() - names_of_pods(site)
    assert set(moved(site, "last", "net1", "net2")) == given(site, "last") == set(in_pods[gone])


def names_of_pods(site: Site) -> set[str]:
    return {each["metadata"]["name"] for each in site.admin.get(objects.pods())["items"]}


def test_a_kubelets_restart_takes_no_device(site: Site, installed: Installed) -> None:
    """The new kubelet's answers are as the old one's; devices go on to new pods."""
    node = installed.site.nodes[0]
    site.apply(pod("a", **wanting(2, "vf,vf")))
    site.wait_for_pods("a")
    before = moved(site, "a", "net1", "net2")
    assert node.kubelet is not None
    node.kubelet.kill()
    node.start(containerd=False)
    with offered(site, node, OFFERED):
        assert allocatable(node) == set(INTERFACES)
        site.apply(pod("b", **wanting(2, "vf,vf")))
        site.wait_for_pods("b")
        assert moved(site, "a", "net1", "net2") == before
        assert set(moved(site, "b", "net1", "net2")) == given(site, "b")
        assert given(site, "b").isdisjoint(before)
        site.clear()


def test_a_device_too_few_is_named_with_what_the_kubelet_gave(site: Site) -> None:
    """DEV-2, A13.5: in the pod's own events."""
    site.apply(pod("a", **wanting(1, "vf,vf")))
    until(lambda: "FailedCreatePodSandBox" in str(site.events("a")), lambda: str(site.events("a")))
    [text] = {event for event in site.events("a") if event.startswith("FailedCreatePodSandBox")}
    assert RESOURCE in text
    assert "networks[1]" in text
