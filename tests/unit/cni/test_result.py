"""Results of every version, their conversions, and what is refused (CNI section 5)."""

from __future__ import annotations

from typing import Any

import pytest

from metaplugin.cni.errors import CNIError, DecodingFailure, IncompatibleVersion
from metaplugin.cni.raw import dump
from metaplugin.cni.result import Result, parse_result, replace_routes

DNS = {"nameservers": ["10.0.0.53"], "domain": "example", "search": ["a", "b"], "options": ["x"]}
FULL: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "br0", "mac": "02:00:00:00:00:01", "mtu": 1500},
        {
            "name": "eth0",
            "mac": "02:00:00:00:00:02",
            "mtu": 1400,
            "sandbox": "/run/netns/a",
            "pciID": "0000:01:00.1",
            "socketPath": "/run/s",
        },
    ],
    "ips": [
        {"address": "10.0.0.5/24", "gateway": "10.0.0.1", "interface": 1},
        {"address": "fd00::5/64", "interface": 1},
    ],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1300, "table": 100},
        {"dst": "fd00:1::/64", "priority": 5, "scope": 0, "advmss": 1200},
    ],
    "dns": DNS,
}
_INTERFACES = [
    {"name": "br0", "mac": "02:00:00:00:00:01"},
    {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"},
]
_ROUTES = [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}, {"dst": "fd00:1::/64"}]
_WITH_VERSIONS = [{"version": v, **ip} for v, ip in zip("46", FULL["ips"], strict=True)]
_LEGACY = {
    "ip4": {
        "ip": "10.0.0.5/24",
        "gateway": "10.0.0.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}],
    },
    "ip6": {"ip": "fd00::5/64", "routes": [{"dst": "fd00:1::/64"}]},
    "dns": DNS,
}
_BEFORE_1 = {"interfaces": _INTERFACES, "ips": _WITH_VERSIONS, "routes": _ROUTES, "dns": DNS}
EXPECTED: dict[str, dict[str, Any]] = {
    "0.1.0": _LEGACY,
    "0.2.0": _LEGACY,
    "0.3.0": _BEFORE_1,
    "0.3.1": _BEFORE_1,
    "0.4.0": _BEFORE_1,
    "1.0.0": {"interfaces": _INTERFACES, "ips": FULL["ips"], "routes": _ROUTES, "dns": DNS},
    "1.1.0": FULL,
}


def parsed(raw: dict[str, Any], configured: str = "1.0.0") -> Result:
    return parse_result(dump(raw), configured_version=configured, where="plugin")


@pytest.mark.parametrize("version", EXPECTED)
def test_a_full_result_is_converted_down(version: str) -> None:
    """CNI-VER-7, CNI-VER-8."""
    assert parsed(FULL).to_version(version) == {"cniVersion": version} | EXPECTED[version]


@pytest.mark.parametrize("version", EXPECTED)
def test_every_version_is_converted_up_without_loss_of_what_it_holds(version: str) -> None:
    """CNI-VER-8, CNI-VER-10."""
    old = {"cniVersion": version} | EXPECTED[version]
    back = parsed(old).to_version("1.1.0")
    assert parsed(back).to_version(version) == old


def test_a_result_in_its_own_version_is_not_touched() -> None:
    odd = {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24", "x": 1}], "future": {"y": 2}}
    assert parsed(odd).to_version("1.0.0") == odd


def test_a_result_without_version_is_in_the_configurations() -> None:
    """CNI-DLG-17."""
    result = parsed({"ip4": {"ip": "10.0.0.5/24"}}, configured="0.2.0")
    assert result.to_version("1.0.0") == {
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.0.0.5/24"}],
    }


def test_an_empty_object_is_an_empty_result() -> None:
    result = parsed({}, configured="0.4.0")
    assert (result.interfaces, result.ips, result.routes, result.dns) == ((), (), (), {})
    assert result.to_version("0.2.0") == {"cniVersion": "0.2.0"}


def test_an_unknown_version_is_refused() -> None:
    """CNI-VER-10."""
    with pytest.raises(IncompatibleVersion):
        parsed({"cniVersion": "3.0.0"})


def test_views_show_the_canonical_form() -> None:
    result = parsed(FULL)
    assert [(i.name, i.sandbox, i.mtu) for i in result.interfaces] == [
        ("br0", "", 1500),
        ("eth0", "/run/netns/a", 1400),
    ]
    assert [(ip.address, ip.gateway, ip.interface) for ip in result.ips] == [
        ("10.0.0.5/24", "10.0.0.1", 1),
        ("fd00::5/64", None, 1),
    ]
    assert [(r.dst, r.gw) for r in result.routes] == [
        ("0.0.0.0/0", "10.0.0.1"),
        ("fd00:1::/64", None),
    ]


@pytest.mark.parametrize("version", EXPECTED)
def test_routes_can_be_replaced_in_every_version(version: str) -> None:
    result = parsed({"cniVersion": version} | EXPECTED[version])
    changed = replace_routes(result, [{"dst": "::/0", "gw": "fd00::1"}])
    assert changed.cni_version == version
    assert [(r.dst, r.gw) for r in changed.routes] == [("::/0", "fd00::1")]
    assert parsed(changed.to_version(version)).ips == result.ips


def test_an_address_of_a_device_without_an_interface_has_none() -> None:
    """host-device prints so for a device that vfio-pci drives; it is passed on as it was."""
    raw = {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24", "interface": 0}]}
    result = parsed(raw)
    assert [ip.interface for ip in result.ips] == [None]
    assert result.to_version("1.0.0") == raw


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "interfaces": ({"interfaces": {}}, "interfaces: must be a list"),
    "interfaces null": ({"interfaces": [None]}, "interfaces[0]: must be an object"),
    "name": ({"interfaces": [{"name": 1}]}, "interfaces[0].name: must be text"),
    "mtu": ({"interfaces": [{"name": "a", "mtu": "1"}]}, "interfaces[0].mtu: must be a number"),
    "ips": ({"ips": "10.0.0.1"}, "ips: must be a list"),
    "address": ({"ips": [{"address": "10.0.0"}]}, "ips[0].address: no address"),
    "number": ({"ips": [{"address": 167772161}]}, "ips[0].address: no address"),
    "no address": ({"ips": [{}]}, "ips[0].address: no address"),
    "no prefix": ({"ips": [{"address": "10.0.0.1"}]}, "ips[0].address: 10.0.0.1 must be"),
    "gateway": (
        {"ips": [{"address": "10.0.0.1/8", "gateway": "x"}]},
        "ips[0].gateway: no address",
    ),
    "index": (
        {"interfaces": [{"name": "a"}], "ips": [{"address": "10.0.0.1/8", "interface": 1}]},
        "ips[0].interface: there is no interface 1",
    ),
    "index negative": (
        {"interfaces": [{"name": "a"}], "ips": [{"address": "10.0.0.1/8", "interface": -1}]},
        "ips[0].interface: there is no interface -1",
    ),
    "index true": (
        {"interfaces": [{}, {}], "ips": [{"address": "10.0.0.1/8", "interface": True}]},
        "ips[0].interface: there is no interface True",
    ),
    "dst": ({"routes": [{"dst": "x"}]}, "routes[0].dst: no network"),
    "gw": ({"routes": [{"dst": "::/0", "gw": 5}]}, "routes[0].gw: no address"),
    "dns": ({"dns": []}, "dns: must be an object"),
    "search": ({"dns": {"search": "a"}}, "dns.search: must be a list of texts"),
    "domain": ({"dns": {"domain": 1}}, "dns.domain: must be text"),
    "ip4": ({"cniVersion": "0.2.0", "ip4": "x"}, "ip4: must be an object"),
    "ip4 family": (
        {"cniVersion": "0.2.0", "ip4": {"ip": "fd00::1/64"}},
        "ip4.ip: fd00::1/64 must be",
    ),
    "ip6 route": (
        {"cniVersion": "0.2.0", "ip6": {"ip": "fd00::1/64", "routes": [{}]}},
        "ip6.routes[0].dst: no network",
    ),
}


@pytest.mark.parametrize(("raw", "message"), BAD.values(), ids=BAD.keys())
def test_a_malformed_result_is_refused_with_its_place(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(CNIError) as raised:
        parsed(raw)
    assert raised.value.msg.startswith(f"plugin: {message}")


@pytest.mark.parametrize("data", [b"", b"hello", b"[]", b"\xff", b'{"ips": '])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(CNIError, match="^plugin: "):
        parse_result(data, configured_version="1.0.0", where="plugin")


def test_the_empty_list_may_be_null() -> None:
    assert parsed({"interfaces": None, "ips": None, "routes": None, "dns": None}).ips == ()


def test_problems_are_decoding_failures() -> None:
    with pytest.raises(DecodingFailure):
        parsed({"ips": 1})
