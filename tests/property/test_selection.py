"""The networks annotation under any text: elements that come back as they went, or a CNI error."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from metaplugin.cni.environment import format_args, parse_args
from metaplugin.cni.errors import CNIError
from metaplugin.npwg.selection import (
    NetworkSelectionElement,
    legacy_cni_args,
    parse_networks_annotation,
)

KEYS = (
    "name",
    "namespace",
    "interface",
    "interfaceRequest",
    "ips",
    "mac",
    "infiniband-guid",
    "portMappings",
    "bandwidth",
    "default-route",
    "cni-args",
    "deviceID",
    "ipam-claim-reference",
)
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=10,
)

LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
INTERFACES = st.from_regex(r"[a-z][a-z0-9.@_-]{0,14}", fullmatch=True)
PLAIN_INTERFACES = st.from_regex(r"[a-z][a-z0-9._-]{0,14}", fullmatch=True)
ADDRESSES = st.ip_addresses().map(str).filter(lambda text: "%" not in text)
GATEWAYS = ADDRESSES.filter(lambda text: can_be_a_gateway(ip_address(text)))
PREFIXES = st.builds("{}/{}".format, ADDRESSES, st.integers(0, 32))
PORTS = st.integers(1, 65535)
RATES = st.integers(1, 2**63)


def can_be_a_gateway(address: IPv4Address | IPv6Address) -> bool:
    nowhere = {IPv4Address("255.255.255.255"), IPv6Address("::")}
    return not (address.is_multicast or address.is_loopback or address in nowhere)


def bytes_of(size: int) -> st.SearchStrategy[str]:
    raw = st.binary(min_size=size, max_size=size)
    return st.builds(lambda value, separator: value.hex(separator), raw, st.sampled_from(":-"))


MAPPINGS = st.fixed_dictionaries(
    {"hostPort": PORTS, "containerPort": PORTS},
    optional={
        "protocol": st.sampled_from(["tcp", "UDP", "Sctp"]),
        "hostIP": ADDRESSES,
        "future": JSON,
    },
)
BANDWIDTHS = st.fixed_dictionaries(
    {"ingressRate": RATES, "egressRate": RATES},
    optional={"ingressBurst": RATES, "egressBurst": RATES},
)
VALID_WITHOUT_DEVICE = st.fixed_dictionaries(
    {"name": LABELS},
    optional={
        "namespace": LABELS,
        "interface": INTERFACES,
        "ips": st.lists(ADDRESSES | PREFIXES, min_size=1, max_size=4),
        "mac": bytes_of(6),
        "infiniband-guid": bytes_of(8),
        "portMappings": st.lists(MAPPINGS, min_size=1, max_size=3),
        "bandwidth": BANDWIDTHS,
        "default-route": st.lists(GATEWAYS, max_size=3),
        "cni-args": st.dictionaries(ANY_TEXT, JSON, max_size=3),
        "example.com/foreign": JSON,
    },
)
DEVICES: st.SearchStrategy[dict[str, str]] = (
    st.just({})
    | st.fixed_dictionaries({"deviceID": ANY_TEXT.filter(bool)})
    | st.fixed_dictionaries({"container": LABELS})
    | st.fixed_dictionaries({"claim": LABELS}, optional={"request": LABELS})
)
VALID = st.builds(lambda element, device: element | device, VALID_WITHOUT_DEVICE, DEVICES)


def parse(text: str) -> tuple[NetworkSelectionElement, ...]:
    return parse_networks_annotation(text, pod_namespace="own")


def refusal(text: str) -> CNIError | None:
    """Return the error that an annotation is refused with; check what it selects otherwise."""
    try:
        elements = parse(text)
    except CNIError as error:
        return error
    for element in elements:
        pairs = legacy_cni_args(element)
        assert not pairs or parse_args(format_args(pairs)) == pairs
    return None


def check_any(text: str) -> None:
    """Check that the text is a CNI error that can be told to the runtime, or harmless elements."""
    if error := refusal(text):
        assert error.msg.startswith("networks")
        assert error.code in (6, 7)
        assert error.msg.encode()


def written(element: NetworkSelectionElement) -> dict[str, Any]:
    """Return the element as a pod's author writes it."""
    values = {
        "name": element.name,
        "namespace": element.namespace,
        "interface": element.interface,
        "ips": list(element.ips) or None,
        "mac": element.mac,
        "infiniband-guid": element.infiniband_guid,
        "portMappings": list(element.port_mappings) or None,
        "bandwidth": element.bandwidth,
        "default-route": None if element.default_route is None else list(element.default_route),
        "cni-args": element.cni_args,
        "deviceID": element.device_id,
        "container": element.container,
        "claim": element.claim,
        "request": element.request,
        "ipam-claim-reference": element.ipam_claim_reference,
    }
    return {key: value for key, value in values.items() if value is not None}


@given(ANY_TEXT | st.text('ab/@, .-[{"\n'))
def test_no_text_does_worse_than_a_cni_error(text: str) -> None:
    """ROB-2, ROB-4, NPWG-5."""
    check_any(text)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), JSON)))
def test_no_json_does_worse_than_a_cni_error(items: list[dict[str, Any]]) -> None:
    """ROB-2, ROB-4, NPWG-6."""
    check_any(json.dumps(items))


@given(VALID, st.sampled_from(KEYS), JSON | st.lists(ANY_TEXT | ADDRESSES | st.ip_addresses(v=6)))
def test_one_bad_key_does_no_worse_either(element: dict[str, Any], key: str, value: object) -> None:
    """ROB-4, NPWG-7 to NPWG-34."""
    check_any(json.dumps([element | {key: value}], default=str))


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_an_addresss_zone_never_reaches_cni_args(zone: str) -> None:
    """MULTUS-8, ROB-4: a ';' in it would add a variable."""
    check_any(json.dumps([{"name": "a", "ips": [f"fe80::1%{zone}"]}]))


@given(VALID)
def test_a_valid_element_comes_back_as_it_went(element: dict[str, Any]) -> None:
    """NPWG-8 to NPWG-34."""
    [parsed] = parse(json.dumps([element]))
    expected = {"namespace": "own"} | element
    expected.pop("example.com/foreign", None)
    assert written(parsed) == expected
    assert parse(json.dumps([written(parsed)])) == (parsed,)


@given(
    st.lists(
        st.tuples(st.none() | LABELS, LABELS, st.none() | PLAIN_INTERFACES),
        min_size=1,
        max_size=8,
        unique_by=lambda item: item[2] or object(),
    ),
    st.sampled_from(["", " ", "\n", "\t "]),
)
def test_the_comma_form_says_the_same_as_the_json_form(
    items: list[tuple[str | None, str, str | None]], blank: str
) -> None:
    """NPWG-5, NPWG-6, MULTUS-3."""
    short = ",".join(
        f"{blank}{f'{namespace}/' if namespace else ''}{name}{f'@{interface}' if interface else ''}"
        for namespace, name, interface in items
    )
    keys = ("namespace", "name", "interface")
    assert parse(short) == parse(json.dumps([dict(zip(keys, item, strict=True)) for item in items]))
