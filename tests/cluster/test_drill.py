"""The drill (issue 7): the control plane itself as static pods with networks annotations,
metaplugin from its image, and losses of power. Afterwards only containerd and kubelet start, so the
fallback has to attach etcd and the API server; the DaemonSet's pod can only come after them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.deployed import deployed_site
from tests.cluster.machine import until
from tests.cluster.metaplugin import RUN, SOCKET, STATE, Metaplugin
from tests.cluster.objects import bridge, deployment
from tests.cluster.site import Site
from tests.cluster.static_pods import (
    API,
    CONTROL,
    move_control_plane,
    place,
    static_pod,
    wait_for_api,
)
from tests.controlplane import objects

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]

STORAGE = objects.net_attach_def(
    "storage", bridge("storage", "10.66.0.0/24"), in_namespace="kube-system"
)
LAN = objects.net_attach_def("lan", bridge("lan", "10.67.0.0/24"))
STATIC = {"etcd": ["net1"], "kube-apiserver": ["net1"], "web": ["net1", "net2"]}
NAMES = {f"{name}-node1" for name in STATIC}
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/churn"


def test_a_control_plane_comes_back_with_its_networks(tmp_path: Path) -> None:
    """MULTUS-26, MULTUS-30: power is lost while pods come and go; then state.db with it; then once
    more, at the moment when the fallback has attached the first pod after that."""
    with deployed_site(tmp_path, address=API) as deployed:
        site, [metaplugin] = deployed.site, deployed.metaplugins
        site.apply(CONTROL, STORAGE, LAN, deployment("churn", 4, "lan"))
        place(metaplugin.node, static_pod("web", "storage,storage"))
        site.wait_for_pods("web-node1", namespace="kube-system")
        move_control_plane(site, metaplugin.node)
        require_static_pods(site)

        churn(site, metaplugin)
        before = lose_power(site, metaplugin)
        metaplugin.node.start()
        require_recovery(site, metaplugin, before)
        site.admin.delete(DEPLOYMENT)
        require_nothing_else(metaplugin)

        before = lose_power(site, metaplugin)
        lose_database(metaplugin)
        metaplugin.node.start()
        until(lambda: not before.issuperset(metaplugin.records()), "no pod is attached")
        before |= lose_power(site, metaplugin)
        metaplugin.node.start()
        require_recovery(site, metaplugin, before)
        require_nothing_else(metaplugin)


def churn(site: Site, metaplugin: Metaplugin) -> None:
    """Return while every pod of the deployment is being replaced."""
    until(lambda: len(metaplugin.records()) == len(NAMES) + 4, "the deployment's pods", seconds=90)
    before = set(metaplugin.records())
    site.admin.request("DELETE", PODS, {"gracePeriodSeconds": 1})
    until(lambda: not before.issuperset(metaplugin.records()), "no new pod")


def lose_power(site: Site, metaplugin: Metaplugin) -> set[str]:
    """Return the records there were, when the machine is on again and nothing runs."""
    records = set(metaplugin.records())
    metaplugin.node.machine.lose_power()
    site.boot(metaplugin.node)
    assert metaplugin.node.names(RUN) == []
    return records


def lose_database(metaplugin: Metaplugin) -> None:
    files = list(metaplugin.node.machine.path(STATE).glob("state.db*"))
    assert files
    for file in files:
        file.unlink()


def require_recovery(site: Site, metaplugin: Metaplugin, before: set[str]) -> None:
    """Without help: etcd and API server, the other static pods, the daemon, the statuses."""
    wait_for_api(site)
    require_static_pods(site)
    until(metaplugin.node.machine.path(SOCKET).exists, "the DaemonSet's pod", seconds=90)
    until(lambda: before.isdisjoint(metaplugin.records()), "old records stay", seconds=90)


def require_static_pods(site: Site) -> None:
    """Each has all its networks, and a status that is of its sandbox of now."""
    until(lambda: pods(site) >= NAMES, lambda: f"{pods(site)} only", seconds=120)
    site.wait_for_pods(*NAMES, namespace="kube-system", seconds=120)
    for name, interfaces in STATIC.items():
        until(partial(is_told, site, f"{name}-node1", interfaces), f"{name}'s status", seconds=90)


def pods(site: Site) -> set[str]:
    items = site.admin.get(objects.pods("kube-system"))["items"]
    return {each["metadata"]["name"] for each in items}


def is_told(site: Site, name: str, interfaces: list[str]) -> bool:
    """Say whether the pod's status is what is found in the pod."""
    status = site.network_status(name, namespace="kube-system")
    if [each["interface"] for each in status] != ["eth0", *interfaces]:
        return False
    seen = site.execute(name, "ip", "addr", namespace="kube-system")
    return all(f"inet {address}/" in seen for each in status for address in each["ips"])


def require_nothing_else(metaplugin: Metaplugin) -> None:
    """Nothing is there but what the static pods have."""
    links = len(NAMES) + sum(map(len, STATIC.values()))  # a veth's end each
    wanted = dict.fromkeys(("records", "chains", "default-network"), len(NAMES))
    wanted |= {"storage": 2, "links": links}
    until(
        lambda: footprint(metaplugin) == wanted,
        lambda: f"{metaplugin.footprint()}, not {wanted}",
        seconds=90,
    )
    assert metaplugin.node.names("/var/run/k8s.cni.cncf.io/devinfo/cni") == []


def footprint(metaplugin: Metaplugin) -> Counter[str]:
    """Count what is there of pods: leases by network, iptables' chains, the rest by its kind."""
    found = metaplugin.footprint()
    leases = [lease.partition("/")[0] for lease in found.pop("leases", ())]
    chains = ["chains" for rule in found.pop("rules", ()) if rule.startswith(":CNI-")]
    return Counter([*leases, *chains, *(what for what, names in found.items() for _ in names)])
