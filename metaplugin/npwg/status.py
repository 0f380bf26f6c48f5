"""The network-status annotation from results (NPWG 5), in the layout that Multus's consumers
parse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from metaplugin.cni.raw import JSONObject
from metaplugin.cni.result import Interface, Result, gateway_of

# What Go's encoder makes of characters, for consumers compare texts; half a surrogate pair, which
# a plugin's result may hold, could not be written at all.
_GO_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"} | dict.fromkeys(
    range(0xD800, 0xE000), "\ufffd"
)
STATUS_ANNOTATION = "k8s.v1.cni.cncf.io/network-status"
_DNS_KEYS = ("nameservers", "domain", "search", "options")
_INDENT = "    "


def status_entries(
    result: Result,
    *,
    name: str,
    ifname: str,
    default: bool,
    device_info: JSONObject | None = None,
) -> list[JSONObject]:
    """Return the entries of one attachment: one for each of its interfaces in the sandbox.

    A result without any gives one entry of the attachment's interface name and all addresses: a
    device that no kernel has an interface of (DPDK, vhost-user, memif) is such a network.
    `default` marks the default network's interface that has a gateway, else its first.
    """
    inside = [(i, interface) for i, interface in enumerate(result.interfaces) if interface.sandbox]
    common = _common(result, name, device_info)
    if not inside:
        addresses = [_without_prefix(ip.address) for ip in result.ips]
        named = next((found for found in result.interfaces if found.name == ifname), None)
        return [_entry(common, ifname, addresses, named, default=default)]
    first = _default_index(result, [i for i, _ in inside])
    return [
        _entry(
            common,
            interface.name or ifname,
            _addresses(result, i, [index for index, _ in inside]),
            interface,
            default=default and i == first,
        )
        for i, interface in inside
    ]


def format_status(entries: Sequence[JSONObject]) -> str:
    """Return the annotation's text: a list whose objects are indented by four blanks."""
    return "[" + ",".join(_go_json(entry) for entry in entries) + "]"


def _common(result: Result, name: str, device_info: JSONObject | None) -> JSONObject:
    dns = result.dns
    return {
        "name": name,
        "dns": {key: dns[key] for key in _DNS_KEYS if dns.get(key)},
        "device-info": device_info,
        "gateway": list(dict.fromkeys(_gateways(result))),
    }


def _gateways(result: Result) -> Iterator[str]:
    """Yield the gateways of the main table's default routes."""
    for route in result.routes:
        if route.default_family and (gateway := gateway_of(result, route)):
            yield gateway


def _entry(
    common: JSONObject,
    ifname: str,
    addresses: list[str],
    interface: Interface | None,
    *,
    default: bool,
) -> JSONObject:
    """Return an entry, keys in Multus's order; empty values are left out, `dns` excepted."""
    values = {
        "name": common["name"],
        "interface": ifname,
        "ips": addresses,
        "mac": interface.mac if interface else "",
        "mtu": interface.mtu if interface else None,
        "default": default,
        "dns": common["dns"],
        "device-info": common["device-info"],
        "gateway": common["gateway"],
    }
    return {key: value for key, value in values.items() if value or key == "dns"}


def _addresses(result: Result, index: int, inside: list[int]) -> list[str]:
    """Return an interface's addresses; those of no interface are the last one's, as with Multus."""
    return [
        _without_prefix(ip.address)
        for ip in result.ips
        if ip.interface == index or (ip.interface is None and index == inside[-1])
    ]


def _default_index(result: Result, inside: list[int]) -> int:
    gatewayed = [ip.interface for ip in result.ips if ip.gateway]
    return next((index for index in gatewayed if index is not None and index in inside), inside[0])


def _without_prefix(address: str) -> str:
    return address.partition("/")[0]


def _go_json(entry: JSONObject) -> str:
    return json.dumps(entry, indent=_INDENT, ensure_ascii=False).translate(_GO_ESCAPES)
