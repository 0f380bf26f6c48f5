"""Many pods at once on one node: nothing fails, nothing is shared, nothing stays."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cluster.crowd import NETWORKS, delete_pods, extra_networks, start_pods
from tests.cluster.machine import until
from tests.cluster.metaplugin import Installed
from tests.cluster.site import STATUS, Site
from tests.controlplane import objects

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PODS = 30
INTERFACES = ("eth0", "net1", "net2")


@pytest.fixture
def site(installed: Installed) -> Iterator[Site]:
    networks = extra_networks()
    installed.site.apply(*networks)
    yield installed.site
    installed.site.clear()
    installed.site.remove(networks)


def test_thirty_pods_at_once_have_every_network_and_none_fails(
    site: Site, installed: Installed
) -> None:
    """CNI-CON-1; issue 7, in small: `make bench-cluster` has a node's 110."""
    first = installed.metaplugins[0]
    started = start_pods(site, PODS, NETWORKS, node="node1")
    assert len(started.seconds) == PODS
    assert started.failures == []
    until(lambda: len(statuses(site)) == PODS, "statuses are missing")
    taken = [address for pod in statuses(site) for address in pod]
    assert len(taken) == len(set(taken)) == PODS * len(INTERFACES)
    assert len(first.records()) == PODS
    assert sorted(lease.rpartition("/")[2] for lease in first.leases()) == sorted(taken)
    assert f"{PODS} attached, 0 not as they should be" in first.check_all()
    delete_pods(site)
    until(lambda: first.footprint() == {}, lambda: str(first.footprint()))


def statuses(site: Site) -> list[list[str]]:
    """Return the addresses of each pod that has a network-status, in the interfaces' order."""
    found = []
    for pod in site.admin.get(objects.pods())["items"]:
        if text := pod["metadata"]["annotations"].get(STATUS):
            status = json.loads(text)
            assert tuple(each["interface"] for each in status) == INTERFACES
            found.append([address for each in status for address in each["ips"]])
    return found
