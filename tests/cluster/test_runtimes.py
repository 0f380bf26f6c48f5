"""Other versions of containerd under the same kubelet, and a node that loses power."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.machine import until
from tests.cluster.metaplugin import Installed, installed_by_hand
from tests.cluster.objects import bridge, deployment, macvlan, pod
from tests.controlplane import objects

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

LAN = objects.net_attach_def("lan", macvlan())
STORAGE = objects.net_attach_def("storage", bridge("storage", "10.66.0.0/24"))


@pytest.mark.parametrize("version", ["1.7", "2.3"])
def test_a_pod_lives_and_dies_under_another_containerd(tmp_path: Path, version: str) -> None:
    with installed_by_hand(tmp_path, containerd=version) as installed:
        site = installed.site
        site.apply(LAN, STORAGE)
        site.apply(pod("a", [{"name": "lan", "ips": ["10.65.0.1/24"]}, {"name": "storage"}]))
        site.apply(pod("b", [{"name": "lan", "ips": ["10.65.0.2/24"]}]))
        site.wait_for_pods("a", "b")
        [node] = site.admin.get("/api/v1/nodes")["items"]
        assert node["status"]["nodeInfo"]["containerRuntimeVersion"].split("//")[1][:3] == version
        interfaces = [each["interface"] for each in site.network_status("a")]
        assert interfaces == ["eth0", "net1", "net2"]
        assert " 0% packet loss" in site.execute("a", "ping", "-c1", "-W2", "10.65.0.2")
        site.clear()
        assert installed.footprints() == [{}]


def test_a_node_that_lost_power_brings_its_pods_back_and_leaks_nothing(tmp_path: Path) -> None:
    """CNI-DEL-3: their old sandboxes' DEL has no network namespace and finds the record on the
    disk."""
    with installed_by_hand(tmp_path) as installed:
        site, [metaplugin] = installed.site, installed.metaplugins
        site.apply(STORAGE, deployment("web", 3, "storage"))
        site.kubectl("rollout", "status", "deployment", "web", "--timeout=60s")
        before = set(metaplugin.records())
        assert len(before) == 3
        lose_power_and_return(installed)
        until(lambda: not before & set(metaplugin.records()), "old records stay")
        until(lambda: len(metaplugin.records()) == 3, "pods don't come back")
        site.kubectl("rollout", "status", "deployment", "web", "--timeout=60s")
        names = [each["metadata"]["name"] for each in site.admin.get(objects.pods())["items"]]
        for name in names:
            assert "inet 10.66.0." in site.execute(name, "ip", "addr", "show", "net1")
        storage = [lease for lease in metaplugin.leases() if lease.startswith("storage/")]
        assert len(storage) == 3
        site.clear()
        assert metaplugin.footprint() == {}


def lose_power_and_return(installed: Installed) -> None:
    """Have the only node lose power, and start everything on it again."""
    site, [metaplugin] = installed.site, installed.metaplugins
    node = metaplugin.node
    node.machine.lose_power()
    site.boot(node)
    metaplugin.start()
    node.start()
