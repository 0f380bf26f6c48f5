"""The control plane itself as static pods with networks annotations, and a loss of power."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.machine import until
from tests.cluster.metaplugin import Metaplugin, installed_by_hand
from tests.cluster.objects import bridge
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

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

STORAGE = objects.net_attach_def(
    "storage", bridge("storage", "10.66.0.0/24"), in_namespace="kube-system"
)
NAMES = {"etcd-node1", "kube-apiserver-node1", "web-node1"}


def test_static_pods_come_back_with_their_networks_where_no_daemon_runs(tmp_path: Path) -> None:
    """The API server first, which nobody can ask then; the shim's fallback attaches them all."""
    with installed_by_hand(tmp_path, address=API) as installed:
        site, [metaplugin] = installed.site, installed.metaplugins
        node = metaplugin.node
        metaplugin.install_fallback()
        site.apply(CONTROL, STORAGE)
        place(node, static_pod("web", "storage,storage"))
        site.wait_for_pods("web-node1", namespace="kube-system")
        move_control_plane(site, node)
        wait_for_static_pods(site)
        require_statuses(site)
        before = set(metaplugin.records())
        assert len(before) == 3

        node.machine.lose_power()
        site.boot(node)
        node.start()
        wait_for_api(site)
        wait_for_static_pods(site)
        until(lambda: before.isdisjoint(metaplugin.records()), "old records stay")
        assert metaplugin.daemon is not None
        assert not metaplugin.daemon.running
        require_networks(site, metaplugin)
        metaplugin.start()
        require_statuses(site)


def wait_for_static_pods(site: Site) -> None:
    """Return when the kubelet has shown each to the API server, Ready."""
    until(lambda: pods(site) >= NAMES, lambda: f"{pods(site)} only", seconds=120)
    site.wait_for_pods(*NAMES, namespace="kube-system", seconds=120)


def pods(site: Site) -> set[str]:
    items = site.admin.get(objects.pods("kube-system"))["items"]
    return {each["metadata"]["name"] for each in items}


def require_networks(site: Site, metaplugin: Metaplugin) -> None:
    assert len(metaplugin.records()) == 3
    leases = [lease.split("/")[0] for lease in metaplugin.leases()]
    assert sorted(leases) == ["default-network"] * 3 + ["storage"] * 2
    for name in ("net1", "net2"):
        seen = site.execute("web-node1", "ip", "addr", "show", name, namespace="kube-system")
        assert "inet 10.66.0." in seen


def require_statuses(site: Site) -> None:
    """Mirror pods come some time after their pods; their status follows."""
    wanted = {"etcd": ["net1"], "kube-apiserver": ["net1"], "web": ["net1", "net2"]}
    for name, interfaces in wanted.items():
        status = site.network_status(f"{name}-node1", namespace="kube-system")
        assert [each["interface"] for each in status] == ["eth0", *interfaces]
