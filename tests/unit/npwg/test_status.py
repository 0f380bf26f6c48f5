"""Network status from results (NPWG 5), byte for byte as consumers of Multus's parse it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metaplugin.cni.errors import CNIError, InvalidNetworkConfig
from metaplugin.cni.raw import dump
from metaplugin.cni.result import parse_result
from metaplugin.npwg.definition import definition_from_object, parse_definition_config
from metaplugin.npwg.device_info import parse_device_info
from metaplugin.npwg.status import format_status, status_entries


def entries(raw: dict[str, Any], *, default: bool = False, **keys: Any) -> list[dict[str, Any]]:
    result = parse_result(dump(raw), configured_version="1.1.0", where="test")
    return status_entries(result, name="default/net", ifname="net1", default=default, **keys)


HOST = {"name": "veth1", "mac": "02:00:00:00:00:09"}
POD = {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1400, "sandbox": "/run/netns/a"}
SECOND = {"name": "eth1", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"}


def test_an_entry_describes_the_interface_in_the_sandbox() -> None:
    """NPWG-39, NPWG-42 to NPWG-48, MULTUS-20, MULTUS-22, NPWG-58."""
    raw = {
        "interfaces": [HOST, POD],
        "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}, {"dst": "10.9.0.0/16"}],
        "dns": {"nameservers": ["10.0.0.53"]},
    }
    info = {"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0:1"}}
    [entry] = entries(raw, default=True, device_info=info)
    assert list(entry.items()) == [
        ("name", "default/net"),
        ("interface", "eth0"),
        ("ips", ["10.0.0.2"]),
        ("mac", "02:00:00:00:00:01"),
        ("mtu", 1400),
        ("default", True),
        ("dns", {"nameservers": ["10.0.0.53"]}),
        ("device-info", info),
        ("gateway", ["10.0.0.1"]),
    ]


def test_a_default_route_without_gateway_goes_by_its_familys_addresses() -> None:
    """NPWG-47."""
    raw = {
        "interfaces": [POD],
        "ips": [
            {"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 0},
            {"address": "fd00::2/64", "gateway": "fd00::1", "interface": 0},
        ],
        "routes": [{"dst": "::/0"}],
    }
    assert entries(raw)[0]["gateway"] == ["fd00::1"]


def test_several_interfaces_give_several_entries_with_their_own_addresses() -> None:
    """MULTUS-21, NPWG-44."""
    raw = {
        "interfaces": [POD, HOST, SECOND],
        "ips": [
            {"address": "10.0.0.2/24", "interface": 0},
            {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2},
            {"address": "10.2.0.2/24", "interface": 1},
            {"address": "10.3.0.2/24"},
        ],
    }
    found = entries(raw, default=True)
    assert [(e["interface"], e["ips"], e.get("default")) for e in found] == [
        ("eth0", ["10.0.0.2"], None),
        ("eth1", ["10.1.0.2", "10.3.0.2"], True),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        {"ips": [{"address": "10.0.0.2/24"}]},
        {"interfaces": [HOST], "ips": [{"address": "10.0.0.2/24", "interface": 0}]},
        {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}},
    ],
)
def test_no_interface_in_the_sandbox_gives_a_minimal_entry(raw: dict[str, Any]) -> None:
    """NPWG-40."""
    assert entries(raw) == [
        {"name": "default/net", "interface": "net1", "ips": ["10.0.0.2"], "dns": {}}
    ]


def test_an_empty_result_gives_an_entry_all_the_same() -> None:
    """NPWG-40, NPWG-41."""
    assert entries({}, default=True) == [
        {"name": "default/net", "interface": "net1", "default": True, "dns": {}}
    ]


def test_the_text_has_the_layout_of_multus() -> None:
    """NPWG-38; Go's escapes included."""
    text = format_status([{"name": "a<b>&\u2028é", "ips": ["10.0.0.2"], "dns": {}}, {"name": "c"}])
    assert text == (
        '[{\n    "name": "a\\u003cb\\u003e\\u0026\\u2028é",\n    "ips": [\n'
        '        "10.0.0.2"\n    ],\n    "dns": {}\n},{\n    "name": "c"\n}]'
    )
    assert json.loads(text)[0]["name"] == "a<b>&\u2028é"


def definition(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": "net"}, "spec": spec}


def test_a_definition_is_read_from_its_object() -> None:
    obj = definition(config="{}")
    obj["metadata"] |= {
        "uid": "u",
        "resourceVersion": "7",
        "annotations": {"k8s.v1.cni.cncf.io/resourceName": "intel.com/vf"},
    }
    found = definition_from_object(obj)
    assert (found.namespace, found.name, found.uid, found.resource_version) == (
        "ns",
        "net",
        "u",
        "7",
    )
    assert (found.config, found.resource_name) == ("{}", "intel.com/vf")
    assert str(found) == "net-attach-def ns/net"


def test_a_config_without_name_gets_the_definitions() -> None:
    """NPWG-1, NPWG-4."""
    found = definition_from_object(definition(config='{"type": "bridge"}'))
    assert parse_definition_config(found).name == "net"


@pytest.mark.parametrize(
    "obj",
    [
        {},
        {"metadata": []},
        {"metadata": {"name": "A"}},
        {"metadata": {"name": "a", "namespace": "../b"}},
        definition(config={"type": "x"}),
        {"metadata": {"name": "a", "annotations": {"x": 1}}},
        {"metadata": {"name": "a"}, "spec": "x"},
        {"metadata": {"name": "a", "uid": 5}},
    ],
    ids=str,
)
def test_a_malformed_definition_is_refused(obj: dict[str, Any]) -> None:
    """NPWG-3, ROB-5."""
    with pytest.raises(InvalidNetworkConfig, match="^net-attach-def"):
        definition_from_object(obj)


@pytest.mark.parametrize("config", ["[]", "x", "{", '{"type": "a/b"}', '{"name": "net"}'])
def test_a_malformed_config_is_refused_with_its_definition(config: str) -> None:
    """NPWG-3, ROB-5."""
    with pytest.raises(CNIError, match="^net-attach-def ns/net: spec.config: "):
        parse_definition_config(definition_from_object(definition(config=config)))


@pytest.mark.parametrize(
    "info",
    [
        {"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0:1", "future": [1]}},
        {"type": "vdpa", "vdpa": {"parent-device": "x", "driver": "vhost", "path": "/dev/v"}},
        {"type": "vhost-user", "vhost-user": {"mode": "server", "path": "/s"}},
        {"type": "memif", "memif": {"role": "master", "path": "/s", "mode": "ethernet"}},
        {"type": "of-tomorrow", "x": {}},
    ],
)
def test_device_information_arrives_unchanged(info: dict[str, Any]) -> None:
    """DEV-7."""
    assert parse_device_info(info, where="f") is info


@pytest.mark.parametrize(
    "info",
    [[], {}, {"type": 1}, {"type": "pci", "pci": []}, {"type": "pci", "pci": {"pci-address": 1}}],
)
def test_malformed_device_information_is_refused(info: object) -> None:
    """ROB-9."""
    with pytest.raises(InvalidNetworkConfig, match="^f"):
        parse_device_info(info, where="f")
