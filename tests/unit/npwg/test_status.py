"""Network status from results (NPWG 5), byte for byte as consumers of Multus's parse it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metaplugin.cni.errors import CNIError, InvalidNetworkConfig
from metaplugin.cni.raw import dump
from metaplugin.cni.result import parse_result
from metaplugin.npwg.definition import definition_from_object, parse_definition_config
from metaplugin.npwg.device_info import parse_device_info
from metaplugin.npwg.status import format_status, status_entries

GOLDEN = Path(__file__).parents[2] / "golden" / "npwg"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))


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


@pytest.mark.parametrize("case", CASES)
def test_the_text_is_byte_for_byte_what_multus_writes(case: str) -> None:
    """NPWG-38 to NPWG-48, MULTUS-20 to MULTUS-22. CreateNetworkStatuses of the net-attach-def
    client 1.7.7 gave these texts when it was run over the inputs, but for what it loses: unknown
    keys of device information, and results without an interface in the sandbox. Multus itself
    wasn't run: it has that client as a library, each release in a version of its own."""
    attachments = json.loads((GOLDEN / f"{case}.json").read_text())
    found = [
        entry
        for attachment in attachments
        for entry in status_entries(
            parse_result(
                dump(attachment.pop("result")), configured_version="1.0.0", where="golden"
            ),
            **attachment,
        )
    ]
    assert f"{format_status(found)}\n" == (GOLDEN / f"{case}.txt").read_text()


def test_there_are_golden_texts() -> None:
    assert len(CASES) == len(list(GOLDEN.glob("*.txt"))) >= 4


def test_no_entries_are_an_empty_list() -> None:
    """NPWG-38."""
    assert format_status([]) == "[]"


def test_half_a_surrogate_pair_is_replaced_as_go_does() -> None:
    """NPWG-38, ROB-6: a plugin's result may hold what UTF-8 can't."""
    [entry] = entries({"interfaces": [{"name": "\ud800x", "sandbox": "/run/netns/a"}]})
    assert '"interface": "\ufffdx"' in format_status([entry]).encode().decode()


def test_dns_has_its_four_keys_in_order_and_no_empty_ones() -> None:
    """NPWG-46."""
    dns = {"search": ["s"], "options": [], "nameservers": None, "domain": "d", "foreign": 1}
    assert list(entries({"dns": dns})[0]["dns"].items()) == [("domain", "d"), ("search", ["s"])]


def test_the_default_mark_is_on_the_first_interface_when_none_has_a_gateway() -> None:
    """MULTUS-21, NPWG-41."""
    gateway = {"address": "10.2.0.2/24", "gateway": "10.2.0.1", "interface": 0}
    found = entries({"interfaces": [HOST, POD, SECOND], "ips": [gateway]}, default=True)
    assert [(e["interface"], e.get("default")) for e in found] == [("eth0", True), ("eth1", None)]


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
        {"metadata": {"name": "a" * 254}},
        {"metadata": {"name": "a", "namespace": None}},
    ],
    ids=str,
)
def test_a_malformed_definition_is_refused(obj: dict[str, Any]) -> None:
    """NPWG-3, ROB-5."""
    with pytest.raises(InvalidNetworkConfig, match="^net-attach-def"):
        definition_from_object(obj)


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        "x",
        "{",
        '{"type": "a/b"}',
        '{"name": "net"}',
        '{"type": "a", "x": NaN}',
        '{"type": "a", "name": "../b"}',
        '{"a":' * 100_000,
        '{"type": "\ud800"}',
    ],
    ids=lambda config: ascii(config[:30]),
)
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
        {"type": "pci", "version": None, "pci": None, "future": {"x": None}},
    ],
    ids=lambda info: info["type"],
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
