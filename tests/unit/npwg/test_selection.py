"""The networks annotation: both forms, every key, every refusal with its place (NPWG 4.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaplugin.cni.errors import CNIError, InvalidNetworkConfig
from metaplugin.npwg.selection import (
    NetworkSelectionElement,
    legacy_cni_args,
    parse_networks_annotation,
)


def parse(text: str) -> tuple[NetworkSelectionElement, ...]:
    return parse_networks_annotation(text, pod_namespace="own")


def one(**keys: Any) -> NetworkSelectionElement:
    [element] = parse(json.dumps([{"name": "net", **keys}]))
    return element


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_a_blank_annotation_selects_nothing(text: str) -> None:
    assert parse(text) == ()


def test_the_comma_form_has_names_namespaces_and_interfaces() -> None:
    """NPWG-5, NPWG-9, MULTUS-3."""
    elements = parse(" a , ns/b,c@eth5 , ns/d@x")
    assert [(e.namespace, e.name, e.interface, e.where) for e in elements] == [
        ("own", "a", None, "networks[0]"),
        ("ns", "b", None, "networks[1]"),
        ("own", "c", "eth5", "networks[2]"),
        ("ns", "d", "x", "networks[3]"),
    ]


@pytest.mark.parametrize(
    "text",
    ["a,", ",a", "a,,b", "a/b/c", "a@b@c", "/a", "a/", "@x", "a@", "A", "a b", "-a", "a@x/y", "é"],
)
def test_a_malformed_item_is_refused(text: str) -> None:
    """NPWG-59, MULTUS-3."""
    with pytest.raises(InvalidNetworkConfig, match=r"^networks\[\d\]"):
        parse(text)


def test_the_json_form_has_every_key() -> None:
    """NPWG-6 to NPWG-34."""
    keys: dict[str, Any] = {
        "namespace": "ns",
        "interface": "x0",
        "ips": ["10.0.0.1/24", "fd00::1"],
        "mac": "02:00:00:00:00:01",
        "infiniband-guid": "02:00:00:00:00:01:02:03",
        "portMappings": [{"hostPort": 1, "containerPort": 65535, "protocol": "TCP"}],
        "bandwidth": {"ingressRate": 1, "ingressBurst": 2, "egressRate": 3, "egressBurst": 4},
        "default-route": ["10.0.0.254", "fd00::fe"],
        "cni-args": {"a": {"b": None}},
        "deviceID": "0000:01:00.1",
        "foreign": [1],
    }
    element = one(**keys)
    assert (element.namespace, element.interface) == ("ns", "x0")
    assert element.default_route == ("10.0.0.254", "fd00::fe")
    assert element.cni_args == {"a": {"b": None}}
    assert element.capability_args() == {
        "ips": keys["ips"],
        "mac": keys["mac"],
        "portMappings": keys["portMappings"],
        "bandwidth": keys["bandwidth"],
        "infinibandGUID": keys["infiniband-guid"],
        "deviceID": keys["deviceID"],
    }
    assert legacy_cni_args(element) == (("IP", "10.0.0.1/24,fd00::1"), ("MAC", keys["mac"]))


def test_absent_and_null_keys_are_the_same() -> None:
    keys = ("namespace", "interface", "ips", "mac", "portMappings", "bandwidth", "default-route")
    assert one() == one(**dict.fromkeys(keys))
    assert one().capability_args() == {}
    assert legacy_cni_args(one()) == ()


def test_an_empty_default_route_is_not_an_absent_one() -> None:
    """NPWG-29."""
    assert one(**{"default-route": []}).default_route == ()
    assert one().default_route is None


def test_the_old_key_for_interfaces_is_known() -> None:
    """MULTUS-4."""
    assert one(interfaceRequest="x").interface == "x"
    assert one(interfaceRequest="x", interface="x").interface == "x"
    with pytest.raises(InvalidNetworkConfig, match="differs"):
        one(interfaceRequest="x", interface="y")


def test_an_ipam_claim_is_left_to_the_plugin() -> None:
    """NPWG-34."""
    assert one(**{"ipam-claim-reference": "claim"}).ipam_claim_reference == "claim"
    with pytest.raises(InvalidNetworkConfig, match="ipam-claim-reference"):
        one(**{"ipam-claim-reference": "claim", "ips": ["10.0.0.1"]})


@pytest.mark.parametrize("mac", ["02:00:00:00:00:01", "02-00-00-00-00-0F", "0200.0000.00aF"])
def test_a_mac_may_be_spelt_as_go_reads_it(mac: str) -> None:
    assert one(mac=mac).mac == mac


BAD = [
    ("namespace", "A"),
    ("namespace", 1),
    ("namespace", "a.b"),
    ("interface", "a/b"),
    ("interface", ""),
    ("interface", "x" * 16),
    ("interface", 5),
    ("ips", []),
    ("ips", "10.0.0.1"),
    ("ips", [""]),
    ("ips", ["10.0.0.1", "10.0.0.256"]),
    ("ips", ["10.0.0.1/33"]),
    ("ips", [5]),
    ("mac", "02:00:00:00:00"),
    ("mac", "02:00:00:00:00:01:02:03"),
    ("mac", "02:00:00-00:00:01"),
    ("mac", "zz:00:00:00:00:01"),
    ("mac", "02:00:00:00:00:01\n"),
    ("mac", 1),
    ("infiniband-guid", "02:00:00:00:00:01"),
    ("portMappings", {}),
    ("portMappings", [None]),
    ("portMappings", [{"hostPort": 0, "containerPort": 1}]),
    ("portMappings", [{"hostPort": 65536, "containerPort": 1}]),
    ("portMappings", [{"hostPort": 1}]),
    ("portMappings", [{"hostPort": True, "containerPort": 1}]),
    ("portMappings", [{"hostPort": "1", "containerPort": 1}]),
    ("portMappings", [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]),
    ("portMappings", [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}]),
    ("bandwidth", []),
    ("bandwidth", {"ingressRate": 0}),
    ("bandwidth", {"ingressRate": -1}),
    ("bandwidth", {"ingressRate": 1.5}),
    ("bandwidth", {"ingressBurst": 5}),
    ("bandwidth", {"egressBurst": 5, "ingressRate": 5}),
    ("default-route", "10.0.0.1"),
    ("default-route", ["10.0.0.0/24"]),
    ("default-route", [None]),
    ("cni-args", []),
    ("deviceID", ""),
    ("deviceID", 1),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=[f"{k} {json.dumps(v)}" for k, v in BAD])
def test_a_bad_value_is_refused_with_its_place(key: str, value: object) -> None:
    """NPWG-11, NPWG-14, NPWG-17, NPWG-22, NPWG-25, NPWG-32."""
    with pytest.raises(InvalidNetworkConfig) as raised:
        parse(json.dumps([{"name": "first"}, {"name": "net", key: value}]))
    assert raised.value.msg.startswith(f"networks[1].{key}")
    assert raised.value.code == 7


@pytest.mark.parametrize("item", ["{}", '{"name": ""}', '{"name": 1}', "null", "[]", '"a"'])
def test_an_element_needs_a_name(item: str) -> None:
    """NPWG-8."""
    with pytest.raises(InvalidNetworkConfig, match=r"^networks\[0\]"):
        parse(f"[{item}]")


def test_one_interface_for_two_elements_is_refused() -> None:
    """NPWG-18."""
    with pytest.raises(InvalidNetworkConfig, match=r"networks\[1\].interface.*networks\[0\]"):
        parse("a@x,b@x")


def test_default_route_may_be_asked_for_once() -> None:
    """NPWG-28."""
    element = '{"name": "a", "default-route": []}'
    with pytest.raises(InvalidNetworkConfig, match=r"networks\[1\].default-route"):
        parse(f"[{element},{element}]")


def test_there_are_limits() -> None:
    """ROB-4."""
    assert len(parse(",".join(["a"] * 256))) == 256
    with pytest.raises(InvalidNetworkConfig, match="at most 256"):
        parse(",".join(["a"] * 257))
    with pytest.raises(InvalidNetworkConfig, match="256 KiB"):
        parse(json.dumps([{"name": "a", "cni-args": {"x": "y" * 300_000}}]))


def refusal(text: str) -> str:
    """Return why an annotation is refused, or "networks" when it isn't."""
    try:
        parse(text)
    except CNIError as error:
        return error.msg
    return "networks"


@given(st.text())
def test_no_text_does_worse_than_a_cni_error(text: str) -> None:
    """ROB-2, ROB-4."""
    assert refusal(text).startswith("networks")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
KEYS = st.sampled_from([*dict.fromkeys(key for key, _ in BAD), "name", "interfaceRequest"])


@given(st.lists(st.dictionaries(KEYS, JSON)))
def test_no_json_does_worse_than_a_cni_error(items: list[dict[str, Any]]) -> None:
    """ROB-2, ROB-4."""
    assert refusal(json.dumps(items)).startswith("networks")
