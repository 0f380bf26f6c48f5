"""Results under conversion: what a version can hold survives; status takes whatever is valid."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from metaplugin.cni.raw import dump
from metaplugin.cni.result import Result, parse_result, replace_routes
from metaplugin.cni.version import SUPPORTED_VERSIONS
from metaplugin.npwg.status import format_status, status_entries
from tests.property.test_selection import ANY_TEXT, JSON

LEGACY, LISTS = SUPPORTED_VERSIONS[:2], SUPPORTED_VERSIONS[2:]
PLAIN = st.text("abc019", min_size=1, max_size=8)
V4, V6 = st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)
ADDRESSES = st.builds("{}/{}".format, V4, st.integers(0, 32)) | st.builds(
    "{}/{}".format, V6, st.integers(0, 128)
)
ROUTES = st.fixed_dictionaries(
    {"dst": ADDRESSES | st.sampled_from(["0.0.0.0/0", "::/0"])}, optional={"gw": V4 | V6}
)
DNS = st.fixed_dictionaries(
    {},
    optional={
        "nameservers": st.lists(PLAIN, min_size=1, max_size=2),
        "domain": PLAIN,
        "search": st.lists(PLAIN, min_size=1, max_size=2),
        "options": st.lists(PLAIN, min_size=1, max_size=2),
    },
)


@st.composite
def results(draw: st.DrawFn, *, wild: bool = False) -> dict[str, Any]:
    """A valid result; `wild` with null, empty, foreign and odd values that are valid as well."""
    text = (ANY_TEXT | st.none()) if wild else PLAIN
    interface = st.fixed_dictionaries({"name": text}, optional={"mac": text, "sandbox": text})
    interfaces = draw(st.lists(interface, max_size=3))
    index = st.integers(0, len(interfaces) - 1) if interfaces else st.nothing()
    address = st.fixed_dictionaries(
        {"address": ADDRESSES},
        optional={"gateway": V4 | V6} | ({"interface": index} if interfaces else {}),
    )
    raw = {
        "interfaces": interfaces,
        "ips": draw(st.lists(address, max_size=4)),
        "routes": draw(st.lists(ROUTES, max_size=4)),
        "dns": draw(DNS),
    }
    if wild:
        raw |= draw(st.dictionaries(st.sampled_from(["future", "code"]), JSON, max_size=2))
        return {key: value or draw(st.sampled_from([value, None])) for key, value in raw.items()}
    return {key: value for key, value in raw.items() if value}


def parsed(raw: dict[str, Any], version: str) -> Result:
    return parse_result(dump(raw), configured_version=version, where="test")


@given(results(), st.sampled_from(LISTS), st.sampled_from(LISTS))
def test_versions_of_one_layout_convert_without_loss(
    raw: dict[str, Any], written: str, other: str
) -> None:
    """CNI-VER-6: forth and back, every value that both have."""
    first = parsed(raw | {"cniVersion": written}, written)
    converted = parsed(first.to_version(other), other)
    assert converted.cni_version == other
    for view in ("interfaces", "ips", "routes", "dns"):
        assert getattr(converted, view) == getattr(first, view)
    back = parsed(converted.to_version(written), written)
    assert back.to_version("1.1.0") == first.to_version("1.1.0") or written == "1.1.0"


@given(results(wild=True), st.sampled_from(LISTS), st.sampled_from(LEGACY))
def test_the_first_address_of_each_family_survives_the_oldest_versions(
    raw: dict[str, Any], written: str, legacy: str
) -> None:
    """CNI-VER-6."""
    first = parsed(raw | {"cniVersion": written}, written)
    old = parsed(first.to_version(legacy), legacy)
    for family in (4, 6):
        given_ips = [ip for ip in first.ips if ip_interface(ip.address).version == family]
        kept = [ip for ip in old.ips if ip_interface(ip.address).version == family]
        assert [ip.address for ip in kept] == [ip.address for ip in given_ips[:1]]
        assert [ip.gateway for ip in kept] == [ip.gateway for ip in given_ips[:1]]
    again = parsed(parsed(old.to_version("1.1.0"), "1.1.0").to_version(legacy), legacy)
    assert again.ips == old.ips
    assert again.routes == old.routes


@given(results(wild=True), st.sampled_from(LISTS), st.sampled_from(SUPPORTED_VERSIONS))
def test_every_valid_result_becomes_valid_in_every_version(
    raw: dict[str, Any], written: str, other: str
) -> None:
    """CNI-VER-6, CNI-RES-1."""
    converted = parsed(raw | {"cniVersion": written}, written).to_version(other)
    assert converted["cniVersion"] == other
    parsed(converted, other)


@given(results(wild=True), st.sampled_from(LISTS))
def test_a_result_in_its_own_version_is_passed_on_whole(raw: dict[str, Any], version: str) -> None:
    """CNI-DLG-4: foreign keys too."""
    assert parsed(raw, version).to_version(version) == raw | {"cniVersion": version}


@given(results(wild=True), st.sampled_from(SUPPORTED_VERSIONS), st.booleans())
def test_status_is_made_of_every_valid_result(
    raw: dict[str, Any], version: str, default: bool
) -> None:
    """NPWG-38 to NPWG-48, ROB-6: in UTF-8, an entry at least, the default mark once."""
    result = parsed(parsed(raw, "1.1.0").to_version(version), version)
    entries = status_entries(result, name="ns/net", ifname="net1", default=default)
    read = json.loads(format_status(entries).encode())
    assert len(read) == max(1, sum(bool(interface.sandbox) for interface in result.interfaces))
    assert sum(entry.get("default", False) for entry in read) == default
    assert all(entry["name"] == "ns/net" and entry["interface"] for entry in read)


@given(results(wild=True), st.lists(ROUTES, max_size=3), st.sampled_from(LISTS))
def test_routes_are_replaced_and_nothing_else(
    raw: dict[str, Any], routes: list[dict[str, Any]], version: str
) -> None:
    """NPWG-27."""
    before = parsed(raw | {"cniVersion": version}, version)
    after = parsed(replace_routes(before, routes).raw, version)
    assert [dict(route.raw) for route in after.routes] == routes
    assert (after.ips, after.interfaces, after.dns) == (before.ips, before.interfaces, before.dns)
