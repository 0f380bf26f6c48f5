"""Every file of examples/ on a real cluster that has the DaemonSet; what it shows is seen from
inside its pods. Those of examples/devices need hardware: test_devices.py."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.metaplugin import Installed
from tests.cluster.site import Site
from tests.manifests.documents import EXAMPLES

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@pytest.fixture
def site(deployed: Installed) -> Iterator[Site]:
    """One node: the examples' addresses are one node's."""
    yield deployed.site
    deployed.site.clear()
    assert deployed.footprints() == [{}]


def interface(site: Site, pod: str, name: str) -> str:
    return site.execute(pod, "ip", "addr", "show", name)


def macvlan(site: Site) -> None:
    for name, other in (("macvlan-a", "macvlan-b"), ("macvlan-b", "macvlan-a")):
        address = site.network_status(other)[1]["ips"][0]
        assert address in {"192.168.101.10", "192.168.101.11"}
        assert " 0% packet loss" in site.execute(name, "ping", "-c1", "-W2", address)


def two_bridges(site: Site) -> None:
    storage = interface(site, "two-bridges", "net1")
    assert "inet 192.168.102.2/25" in storage
    assert "mtu 1400" in storage
    assert "inet 192.168.102.130/25" in interface(site, "two-bridges", "backup0")


def static_ip_and_mac(site: Site) -> None:
    fixed = interface(site, "static-ip-and-mac", "net1")
    assert "inet 192.168.103.77/24" in fixed
    assert "link/ether 02:00:00:00:67:4d" in fixed
    pool = interface(site, "static-ip-and-mac", "net2")
    assert "inet 192.168.113.99/24" in pool
    assert "link/ether 02:00:00:00:71:63" in pool


def default_route(site: Site) -> None:
    routes = site.execute("default-route", "ip", "route")
    assert re.findall("^default .*", routes, re.MULTILINE) == [
        "default via 192.168.104.1 dev net1 "
    ]
    assert "10.244.1.0/24 dev eth0" in routes


def same_network_twice(site: Site) -> None:
    seen = [interface(site, "same-network-twice", name) for name in ("net1", "net2")]
    for pattern in (r"inet 192\.168\.105\.\d+/24", r"link/ether \S+"):
        found = [re.findall(pattern, text) for text in seen]
        assert [len(each) for each in found] == [1, 1]
        assert found[0] != found[1]


def ports_and_bandwidth(site: Site) -> None:
    node = site.nodes[0]
    request = urllib.request.Request(f"http://{node.address}:8080/", headers={"Host": "tests"})
    with pytest.raises(urllib.error.HTTPError, match="404"):  # its /etc has no index.html
        urllib.request.urlopen(request, timeout=5)
    limits = re.findall(r"tbf .* rate (\S+)", node.machine.run("tc", "qdisc"))
    assert sorted(limits) == ["10Mbit", "5Mbit"]


CHECKS: dict[str, Callable[[Site], None]] = {
    "macvlan": macvlan,
    "two-bridges": two_bridges,
    "static-ip-and-mac": static_ip_and_mac,
    "default-route": default_route,
    "same-network-twice": same_network_twice,
    "ports-and-bandwidth": ports_and_bandwidth,
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_does_what_it_says(site: Site, path: Path) -> None:
    applied = site.apply_file(path)
    site.wait_for_pods(*(each["metadata"]["name"] for each in applied if each["kind"] == "Pod"))
    CHECKS[path.stem](site)
    site.remove(applied)
