"""The networks annotation: both forms, every key, every refusal with its place (NPWG 4.1)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from metaplugin.cni.configuration import parse_network_config
from metaplugin.cni.errors import DecodingFailure, InvalidNetworkConfig
from metaplugin.npwg.selection import (
    NetworkSelectionElement,
    legacy_cni_args,
    parse_networks_annotation,
    undeclared_capabilities,
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
    }
    assert element.device_id == keys["deviceID"]
    assert legacy_cni_args(element) == (("IP", "10.0.0.1/24,fd00::1"), ("MAC", keys["mac"]))


def test_an_element_may_say_which_device_it_means() -> None:
    """Issue 6: by container, or by claim and request."""
    assert one(container="app").container == "app"
    element = one(claim="nic.x", request="data/fast")
    assert (element.claim, element.request) == ("nic.x", "data/fast")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"deviceID": "0", "container": "a"}, "container: can't be given beside deviceID"),
        ({"claim": "c", "container": "a"}, "claim: can't be given beside container"),
        ({"request": "r"}, "request: needs claim"),
        ({"claim": "c", "request": "r/"}, "request: is required"),
        ({"claim": "c", "request": "r/s/t"}, "request: 's/t' is no Kubernetes name"),
    ],
)
def test_a_device_is_named_in_one_way(keys: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidNetworkConfig, match=re.escape(f"networks[0].{told}")):
        one(**keys)


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
    ("ips", ["10.0.0.1/255.255.255.0"]),
    ("ips", ["10.0.0.1/024"]),
    ("ips", ["10.0.0.1/"]),
    ("ips", ["fe80::1%eth0/64"]),
    ("ips", ["fe80::1%x;K8S_POD_NAME=other"]),
    ("ips", ["10.0.0.1,10.0.0.2"]),
    ("mac", "02:00:00:00:00"),
    ("mac", "02:00:00:00:00:01:02:03"),
    ("mac", "02:00:00-00:00:01"),
    ("mac", "zz:00:00:00:00:01"),
    ("mac", "02:00:00:00:00:01\n"),
    ("mac", 1),
    ("infiniband-guid", "02:00:00:00:00:01"),
    ("portMappings", {}),
    ("portMappings", []),
    ("portMappings", [None]),
    ("portMappings", [{"hostPort": 0, "containerPort": 1}]),
    ("portMappings", [{"hostPort": 65536, "containerPort": 1}]),
    ("portMappings", [{"hostPort": 1}]),
    ("portMappings", [{"hostPort": True, "containerPort": 1}]),
    ("portMappings", [{"hostPort": "1", "containerPort": 1}]),
    ("portMappings", [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]),
    ("portMappings", [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}]),
    ("portMappings", [{"hostPort": 1, "containerPort": 1, "hostIP": "10.0.0.1/24"}]),
    ("portMappings", [{"hostPort": 1, "containerPort": 1, "hostIP": 0}]),
    ("bandwidth", []),
    ("bandwidth", {}),
    ("bandwidth", {"foreign": 1}),
    ("bandwidth", {"ingressRate": None}),
    ("bandwidth", {"ingressRate": None, "ingressBurst": 5}),
    ("bandwidth", {"ingressRate": 0}),
    ("bandwidth", {"ingressRate": -1}),
    ("bandwidth", {"ingressRate": 1.5}),
    ("bandwidth", {"ingressBurst": 5}),
    ("bandwidth", {"egressBurst": 5, "ingressRate": 5}),
    ("default-route", "10.0.0.1"),
    ("default-route", ["10.0.0.0/24"]),
    ("default-route", ["127.0.0.1"]),
    ("default-route", ["10.0.0.1", "224.0.0.1"]),
    ("default-route", ["255.255.255.255"]),
    ("default-route", ["::1"]),
    ("default-route", ["ff02::1"]),
    ("default-route", ["0::0"]),
    ("default-route", [None]),
    ("default-route", ["fe80::1%eth0"]),
    ("cni-args", []),
    ("deviceID", ""),
    ("deviceID", 1),
    ("container", ""),
    ("container", "Not.A-Label"),
    ("claim", 1),
    ("claim", "a/b"),
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


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "a"',
        '[{"name": "a", "x": NaN}]',
        "[" * 100_000,
        '[{"name": "a", "x": ' + "1" * 5000 + "}]",
        '["\ud800"]',
    ],
    ids=["truncated", "nan", "deep", "huge number", "surrogate"],
)
def test_what_is_no_json_is_a_decoding_failure(text: str) -> None:
    """ROB-4."""
    with pytest.raises(DecodingFailure, match="^networks: "):
        parse(text)


@pytest.mark.parametrize("text", ['{"name": "a"}', '"a"', "{}"])
def test_json_that_is_no_list_is_refused(text: str) -> None:
    """NPWG-6."""
    with pytest.raises(InvalidNetworkConfig, match="^networks: must be a JSON list"):
        parse(text)


def test_a_network_may_be_selected_several_times() -> None:
    """NPWG-35."""
    assert [element.name for element in parse("a,a")] == ["a", "a"]


def test_names_may_have_dots_and_namespaces_may_not() -> None:
    """NPWG-59; the API server lets definitions be named so."""
    assert one(name="a.b").name == "a.b"
    with pytest.raises(InvalidNetworkConfig, match=r"^networks\[0\].namespace"):
        parse("a.b/c")


def test_port_mappings_keep_what_the_pod_says_and_are_of_tcp_where_it_says_nothing() -> None:
    """NPWG-21, NPWG-22: portmap has no default of its own."""
    mappings: list[dict[str, Any]] = [
        {"hostPort": 1, "containerPort": 2, "protocol": "Sctp", "hostIP": "fd00::1"},
        {"hostPort": 1, "containerPort": 2, "protocol": None, "hostIP": ""},
        {"hostPort": 1, "containerPort": 2},
    ]
    element = one(portMappings=mappings)
    assert list(element.port_mappings) == mappings
    given = element.capability_args()["portMappings"]
    assert [mapping["protocol"] for mapping in given] == ["Sctp", "tcp", "tcp"]
    assert [mapping | {"protocol": None} for mapping in given] == [
        mapping | {"protocol": None} for mapping in mappings
    ]


def test_a_null_limit_is_an_absent_one() -> None:
    """NPWG-25."""
    limits = {"ingressRate": 1, "ingressBurst": None, "foreign": "x"}
    assert one(bandwidth=limits).bandwidth == {"ingressRate": 1, "foreign": "x"}


@pytest.mark.parametrize(
    ("key", "value", "capability"),
    [
        ("ips", ["10.0.0.1"], "ips"),
        ("mac", "02:00:00:00:00:01", "mac"),
        ("portMappings", [{"hostPort": 1, "containerPort": 2}], "portMappings"),
        ("bandwidth", {"egressRate": 1}, "bandwidth"),
        ("infiniband-guid", "0200.0000.0001.0203", "infinibandGUID"),
    ],
)
def test_requests_need_a_plugin_that_declares_them(
    key: str, value: object, capability: str
) -> None:
    """NPWG-12, NPWG-15, NPWG-23, NPWG-26, NPWG-33."""
    first = {"type": "first", "capabilities": {capability: False}}
    second = {"type": "second", "capabilities": {capability: True}}
    without = parse_network_config({"name": "n", "plugins": [first]}, where="n")
    declared = parse_network_config({"name": "n", "plugins": [first, second]}, where="n")
    assert undeclared_capabilities(one(**{key: value}), without) == (capability,)
    assert undeclared_capabilities(one(**{key: value}), declared) == ()


def test_a_device_needs_no_capability() -> None:
    config = parse_network_config({"name": "n", "type": "x"}, where="n")
    assert undeclared_capabilities(one(deviceID="0000:01:00.1"), config) == ()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("interfce", "interface"),
        ("Interface", "interface"),
        ("ip", "ips"),
        ("macs", "mac"),
        ("defaultRoute", "default-route"),
        ("infinibandGUID", "infiniband-guid"),
        ("cni_args", "cni-args"),
        ("deviceId", "deviceID"),
        ("portmapping", "portMappings"),
        ("namspace", "namespace"),
    ],
)
def test_a_key_close_to_a_known_one_is_told_and_ignored(key: str, meant: str) -> None:
    """NPWG-7: keys without a dot are the standard's, so this one is nobody's."""
    text = json.dumps([{"name": "a"}, {"name": "b", key: ["x"]}])
    plain, element = parse_networks_annotation(text, pod_namespace="default")
    assert plain.mistyped == ()
    (words,) = element.mistyped
    assert words == f"networks[1]: the key {key!r} is ignored; {meant!r} may be meant"
    assert element == replace(plain, name="b", where="networks[1]", mistyped=(words,))


@pytest.mark.parametrize("key", ["example.com/ips", "vlan", "node", "priority", "x", "ipam"])
def test_a_key_that_is_private_or_like_none_is_ignored_silently(key: str) -> None:
    """NPWG-7: other implementations have keys of their own."""
    text = json.dumps([{"name": "a", key: ["x"]}])
    (element,) = parse_networks_annotation(text, pod_namespace="default")
    assert element.mistyped == ()


def test_no_known_key_is_taken_for_a_mistyped_one() -> None:
    """Nor one that is null, as clients that write every field have it."""
    text = json.dumps([{"name": "a", "mac": "02:00:00:00:00:01", "interfaceRequest": "x0"}])
    (element,) = parse_networks_annotation(text, pod_namespace="default")
    assert element.mistyped == ()
    text = json.dumps([{"name": "a", "ip": None}])
    (element,) = parse_networks_annotation(text, pod_namespace="default")
    assert element.mistyped == ()
