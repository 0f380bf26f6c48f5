"""Pods on a real cluster: scheduler, controllers, kubelets, containerd and runc are what they are
in production; metaplugin is installed by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.machine import until
from tests.cluster.metaplugin import Installed
from tests.cluster.objects import bridge, deployment, macvlan, pod
from tests.cluster.site import Site
from tests.controlplane import objects
from tests.controlplane.client import JSONObject

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@pytest.fixture
def site(installed: Installed) -> Iterator[Site]:
    """The cluster with the networks `lan` (macvlan, addresses chosen) and `storage` (a bridge on
    each node); nothing may be left of pods."""
    networks = [
        objects.net_attach_def("lan", macvlan()),
        objects.net_attach_def("storage", bridge("storage", "10.66.0.0/24")),
    ]
    installed.site.apply(*networks)
    yield installed.site
    installed.site.clear()
    installed.site.remove(networks)
    assert installed.footprints() == [{}, {}]


def lan(address: str) -> list[JSONObject]:
    return [{"name": "lan", "ips": [f"{address}/24"]}]


def reason(site: Site, name: str, wanted: str) -> str:
    """Return the first event of a pod with a reason, as soon as there is one."""

    def found() -> list[str]:
        return [event for event in site.events(name) if event.startswith(f"{wanted}: ")]

    until(lambda: bool(found()), lambda: f"no {wanted}: {site.events(name)}")
    return found()[0].removeprefix(f"{wanted}: ")


def test_a_pod_has_every_network_and_its_status_says_so(site: Site) -> None:
    """NPWG 4.2: status, in order, with addresses that the container has; an event for each."""
    site.apply(pod("a", [*lan("10.65.0.1"), {"name": "storage"}]))
    site.wait_for_pods("a")
    status = site.network_status("a")
    assert [(each["name"], each["interface"]) for each in status] == [
        ("default-network", "eth0"),
        ("default/lan", "net1"),
        ("default/storage", "net2"),
    ]
    assert site.pod("a")["status"]["podIP"] == status[0]["ips"][0]
    for each in status:
        seen = site.execute("a", "ip", "addr", "show", each["interface"])
        assert f"inet {each['ips'][0]}/" in seen
        assert f"link/ether {each['mac']}" in seen
    until(lambda: attached(site) == {"eth0", "net1", "net2"}, lambda: str(site.events("a")))


def attached(site: Site) -> set[str]:
    events = (event.split() for event in site.events("a"))
    return {words[2] for words in events if words[0] == "AddedInterface:"}


def test_pods_of_two_nodes_reach_each_other_over_macvlan(site: Site) -> None:
    site.apply(
        pod("a", lan("10.65.0.1"), node="node1"),
        pod("b", lan("10.65.0.2"), node="node2"),
    )
    site.wait_for_pods("a", "b")
    for name, other in (("a", "10.65.0.2"), ("b", "10.65.0.1")):
        output = site.execute(name, "ping", "-c1", "-W2", "-I", "net1", other)
        assert " 0% packet loss" in output


def test_a_deployment_rolls_out_and_goes(site: Site, installed: Installed) -> None:
    """Every replica of both generations has its network; the controllers delete as they do."""
    site.apply(deployment("web", 4, "storage"))
    site.kubectl("rollout", "status", "deployment", "web", "--timeout=60s")
    site.apply(deployment("web", 4, "storage,storage"))
    site.kubectl("rollout", "status", "deployment", "web", "--timeout=60s")
    until(lambda: len(running(site)) == 4, "old replicas stay")
    for name in running(site):
        assert [each["interface"] for each in site.network_status(name)] == ["eth0", "net1", "net2"]
    assert sum(len(each.records()) for each in installed.metaplugins) == 4
    for each in installed.metaplugins:
        assert "0 not as they should be" in each.check_all()


def running(site: Site) -> list[str]:
    return [each["metadata"]["name"] for each in site.admin.get(objects.pods())["items"]]


def test_a_missing_network_is_named_by_kubectl_and_the_pod_starts_once_it_is_there(
    site: Site,
) -> None:
    site.apply(pod("a", "nowhere", node="node1"))
    event = reason(site, "a", "NoNetworkFound")
    assert "networks[0]: there is no net-attach-def 'nowhere' in namespace 'default'" in event
    assert "nowhere" in reason(site, "a", "FailedCreatePodSandBox")
    assert event in site.kubectl("describe", "pod", "a")
    network = objects.net_attach_def("nowhere", bridge("nowhere", "10.67.0.0/24"))
    site.apply(network)
    site.wait_for_pods("a")
    assert "10.67.0." in site.execute("a", "ip", "addr", "show", "net1")
    site.clear()
    site.remove([network])


def test_a_plugins_own_error_is_in_the_pods_events(site: Site) -> None:
    config = bridge("broken", "10.67.0.0/24") | {"bridge": "eth1"}
    broken = objects.net_attach_def("broken", config)
    site.apply(broken, pod("a", [*lan("10.65.0.1"), {"name": "broken"}]))
    assert "not a bridge" in reason(site, "a", "FailedAddingInterface")
    assert "default/broken" in reason(site, "a", "FailedCreatePodSandBox")
    site.clear()
    site.remove([broken])


def test_a_pod_whose_plugin_fails_in_add_and_del_alike_can_be_deleted(
    site: Site, installed: Installed
) -> None:
    """The macvlan plugin looks its master up in both."""
    lost = objects.net_attach_def("lost", macvlan() | {"master": "absent0"})
    site.apply(lost, pod("a", [{"name": "storage"}, {"name": "lost", "ips": ["10.65.0.9/24"]}]))
    assert "plugin macvlan: Link not found" in reason(site, "a", "FailedCreatePodSandBox")
    assert "refused its DEL as well" in reason(site, "a", "FailedAddingInterface")
    site.delete_pods("a")
    assert [each.records() for each in installed.metaplugins] == [[], []]
    site.remove([lost])


def test_pods_stop_while_the_daemon_is_away_and_start_when_it_is_back(
    site: Site, installed: Installed
) -> None:
    """MULTUS-28."""
    first = installed.metaplugins[0]
    site.apply(pod("a", "storage", node="node1"))
    site.wait_for_pods("a")
    first.kill()
    site.delete_pods("a")
    assert first.footprint() == {}
    site.apply(pod("b", "storage", node="node1"))
    until(lambda: bool(first.node.names("/run/metaplugin/locks")), "nobody asks for b")
    first.start()
    site.wait_for_pods("b")


def test_pods_live_through_a_restart_of_the_kubelet(site: Site, installed: Installed) -> None:
    first = installed.metaplugins[0]
    site.apply(pod("a", "storage", node="node1"))
    site.wait_for_pods("a")
    records, started = first.records(), site.pod("a")["status"]["containerStatuses"]
    assert first.node.kubelet is not None
    first.node.kubelet.kill()
    first.node.start(containerd=False)
    site.apply(pod("b", "storage", node="node1"))
    site.wait_for_pods("b")
    assert set(records) < set(first.records())
    assert started == site.pod("a")["status"]["containerStatuses"]
