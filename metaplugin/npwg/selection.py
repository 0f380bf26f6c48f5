"""The Network Attachment Selection annotation (NPWG 4.1): both its forms, every key, checked whole.

Nothing of a bad annotation is used: each error names the element and key, for whoever wrote the
pod.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from difflib import get_close_matches
from ipaddress import ip_address, ip_interface
from typing import Any

from metaplugin.cni.configuration import NetworkConfigList
from metaplugin.cni.environment import validate_interface_name
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject, load_value
from metaplugin.npwg.names import require_label, require_subdomain

MAX_ELEMENTS = 256
MAX_BYTES = 256 << 10  # the API server's own limit for all annotations of an object

_MAC_BYTES, _GUID_BYTES = 6, 8
_PROTOCOLS = frozenset({"tcp", "udp", "sctp"})
_BURST_OF = {"ingressBurst": "ingressRate", "egressBurst": "egressRate"}
_NAMING_KEYS = ("name", "namespace", "interface", "interfaceRequest")
_FORMER_KEYS = frozenset({"ipRequest", "macRequest"})  # of Multus long ago; nobody reads them
_NEAR = 0.8  # of difflib's ratio: one letter of three, two of ten
_NO_GATEWAYS = frozenset({"255.255.255.255", "::"})
_BANDWIDTH_KEYS = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")

# What Go's parsers take. Python's also take netmasks, and zones with any character in them: a ';'
# there would add a variable to the CNI_ARGS that addresses travel in.
_ADDRESS = re.compile(r"[0-9a-fA-F:.]+(?:/(?:0|[1-9][0-9]{0,2}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSelectionElement:
    """One selected network and what the pod asks of it; `where` is its place, such as
    `networks[2]`.

    `default_route` is None when the key is absent, () to keep the network's own gateway. Which
    device the network gets may be said by `device_id`, by the `container` that has it, or by the
    `claim` (and the claim's `request`) that it was allocated for. `mistyped` names, for people,
    keys that nobody knows and that look like one.
    """

    name: str
    namespace: str
    where: str
    interface: str | None = None
    ips: tuple[str, ...] = ()
    mac: str | None = None
    infiniband_guid: str | None = None
    port_mappings: tuple[JSONObject, ...] = ()
    bandwidth: JSONObject | None = None
    default_route: tuple[str, ...] | None = None
    cni_args: JSONObject | None = None
    device_id: str | None = None
    container: str | None = None
    claim: str | None = None
    request: str | None = None
    ipam_claim_reference: str | None = None
    mistyped: tuple[str, ...] = ()

    def capability_args(self) -> dict[str, Any]:
        """Return what becomes runtimeConfig, by capability; only what the element gives."""
        given = {
            "ips": list(self.ips),
            "mac": self.mac,
            "portMappings": [_with_protocol(mapping) for mapping in self.port_mappings],
            "bandwidth": self.bandwidth,
            "infinibandGUID": self.infiniband_guid,
        }
        return {capability: value for capability, value in given.items() if value}


def _with_protocol(mapping: JSONObject) -> JSONObject:
    """Return the mapping, TCP where it names no protocol (NPWG 4.1.2.1.8): portmap has no
    default."""
    return mapping if mapping.get("protocol") else {**mapping, "protocol": "tcp"}


def legacy_cni_args(element: NetworkSelectionElement) -> tuple[tuple[str, str], ...]:
    """Return the element's addresses as CNI_ARGS, which older plugins read (MULTUS-8)."""
    ips = (("IP", ",".join(element.ips)),) if element.ips else ()
    return (*ips, ("MAC", element.mac)) if element.mac else ips


def undeclared_capabilities(
    element: NetworkSelectionElement, config: NetworkConfigList
) -> tuple[str, ...]:
    """Return the requests that no plugin of the network declares a capability for (NPWG
    4.1.2.1.3.2)."""
    return tuple(key for key in element.capability_args() if not config.declares(key))


def parse_networks_annotation(
    text: str, *, pod_namespace: str
) -> tuple[NetworkSelectionElement, ...]:
    """Return the annotation's elements, none for a blank one; raise CNIError (codes 6, 7)."""
    data = text.encode(errors="surrogatepass")
    if len(data) > MAX_BYTES:
        raise InvalidNetworkConfig(f"networks: the annotation is over {MAX_BYTES >> 10} KiB")
    if not text.strip():
        return ()
    if set(text) & set('[{"'):
        elements = _json_elements(data, pod_namespace)
    else:
        elements = _comma_elements(text, pod_namespace)
    _check_together(elements)
    return elements


def _comma_elements(text: str, pod_namespace: str) -> tuple[NetworkSelectionElement, ...]:
    items = text.split(",")
    _check_count(len(items))
    return tuple(
        _comma_element(item.strip(), f"networks[{position}]", pod_namespace)
        for position, item in enumerate(items)
    )


def _comma_element(item: str, where: str, pod_namespace: str) -> NetworkSelectionElement:
    parts = re.fullmatch(r"(?:([^/@]*)/)?([^/@]*)(?:@([^/@]*))?", item)
    if not item or parts is None:
        raise InvalidNetworkConfig(
            f"{where}: {_shown(item)} is not of the form <namespace>/<name>@<interface>"
        )
    namespace, name, interface = (p if p is None else p.strip() for p in parts.groups())
    if interface is not None:
        validate_interface_name(interface, where=f"{where}.interface")
    return NetworkSelectionElement(
        name=require_subdomain(name, where=f"{where}.name"),
        namespace=_namespace(namespace, where, pod_namespace),
        where=where,
        interface=interface,
    )


def _json_elements(data: bytes, pod_namespace: str) -> tuple[NetworkSelectionElement, ...]:
    items = load_value(data, what="networks")
    if not isinstance(items, list):
        raise InvalidNetworkConfig("networks: must be a JSON list of objects, or <name>,<name>…")
    _check_count(len(items))
    return tuple(
        _json_element(item, f"networks[{position}]", pod_namespace)
        for position, item in enumerate(items)
    )


def _json_element(item: Any, where: str, pod_namespace: str) -> NetworkSelectionElement:
    if not isinstance(item, dict):
        raise InvalidNetworkConfig(f"{where}: must be an object")
    given = {key: value for key, value in item.items() if value is not None}
    _check_claim(given, where)
    _check_device(given, where)
    values = {
        attribute: parse(given[key], f"{where}.{key}")
        for key, (attribute, parse) in _KEYS.items()
        if key in given
    }
    return NetworkSelectionElement(
        **values
        | {
            "name": require_subdomain(given.get("name"), where=f"{where}.name"),
            "namespace": _namespace(given.get("namespace"), where, pod_namespace),
            "interface": _interface(given, where),
            "where": where,
            "mistyped": tuple(_mistyped(given, where)),
        }
    )


def _mistyped(given: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield each key that is a known one but for a letter or two, or for case and hyphens: those
    without a dot are the standard's own (NPWG 4.1.2.1), so nobody else reads it."""
    known = {_folded(key): key for key in (*_KEYS, *_NAMING_KEYS)}
    for key in given:
        if key in known.values() or key in _FORMER_KEYS or "." in key:
            continue
        for near in get_close_matches(_folded(key), known, n=1, cutoff=_NEAR):
            yield f"{where}: the key {_shown(key)} is ignored; {known[near]!r} may be meant"


def _folded(key: str) -> str:
    return key.lower().replace("-", "").replace("_", "")


def _namespace(value: Any, where: str, pod_namespace: str) -> str:
    return pod_namespace if value is None else require_label(value, where=f"{where}.namespace")


def _interface(given: Mapping[str, Any], where: str) -> str | None:
    """Return the requested name; `interfaceRequest` is the key's old name (MULTUS-4)."""
    found = {key: given[key] for key in ("interface", "interfaceRequest") if key in given}
    for key, value in found.items():
        validate_interface_name(_text(value, f"{where}.{key}"), where=f"{where}.{key}")
    if len(set(found.values())) > 1:
        raise InvalidNetworkConfig(f"{where}.interface: differs from interfaceRequest")
    return next(iter(found.values()), None)


def _check_claim(given: Mapping[str, Any], where: str) -> None:
    if "ips" in given and "ipam-claim-reference" in given:
        raise InvalidNetworkConfig(f"{where}.ips: can't be given beside ipam-claim-reference")


def _check_device(given: Mapping[str, Any], where: str) -> None:
    named = [key for key in ("deviceID", "container", "claim") if key in given]
    if len(named) > 1:
        raise InvalidNetworkConfig(f"{where}.{named[1]}: can't be given beside {named[0]}")
    if "request" in given and "claim" not in given:
        raise InvalidNetworkConfig(f"{where}.request: needs claim")


def _label(value: Any, where: str) -> str:
    return require_label(value, where=where)


def _subdomain(value: Any, where: str) -> str:
    return require_subdomain(value, where=where)


def _request(value: Any, where: str) -> str:
    """Return a claim's request, or one of its subrequests: `request/subrequest`."""
    text = _text(value, where)
    for part in text.split("/", 1):
        require_label(part, where=where)
    return text


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidNetworkConfig(f"{where}: must be text, and not empty")
    return value


def _object(value: Any, where: str) -> JSONObject:
    if not isinstance(value, dict):
        raise InvalidNetworkConfig(f"{where}: must be an object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidNetworkConfig(f"{where}: must be a list")
    return value


def _ips(value: Any, where: str) -> tuple[str, ...]:
    if not (items := _list(value, where)):
        raise InvalidNetworkConfig(f"{where}: must hold at least one address")
    return tuple(_ip(item, f"{where}[{position}]") for position, item in enumerate(items))


def _ip(item: Any, where: str) -> str:
    text = _text(item, where)
    with suppress(ValueError):
        if _ADDRESS.fullmatch(text):
            ip_interface(text)
            return text
    raise InvalidNetworkConfig(
        f"{where}: {_shown(text)} is no IP address, with or without prefix length"
    )


def _plain_ip(item: Any, where: str) -> str:
    text = _text(item, where)
    with suppress(ValueError):
        if _ADDRESS.fullmatch(text):
            return str(ip_address(text))
    raise InvalidNetworkConfig(f"{where}: {_shown(text)} is no IP address")


def _gateways(value: Any, where: str) -> tuple[str, ...]:
    items = _list(value, where)
    return tuple(_gateway(item, f"{where}[{position}]") for position, item in enumerate(items))


def _gateway(item: Any, where: str) -> str:
    """Return the address; raise InvalidNetworkConfig for one that is no gateway on any network.

    Whether another one can be reached is known only once the network has given its addresses and
    routes.
    """
    text = _plain_ip(item, where)
    address = ip_address(text)
    if address.is_multicast or address.is_loopback or text in _NO_GATEWAYS:
        raise InvalidNetworkConfig(f"{where}: {text} can't be a gateway")
    return text


def _hardware_address(size: int) -> Callable[[Any, str], str]:
    pairs = rf"[0-9a-fA-F]{{2}}([:-])[0-9a-fA-F]{{2}}(?:\1[0-9a-fA-F]{{2}}){{{size - 2}}}"
    fours = rf"[0-9a-fA-F]{{4}}(?:\.[0-9a-fA-F]{{4}}){{{size // 2 - 1}}}"
    form = re.compile(rf"{pairs}|{fours}", re.ASCII)

    def parse(value: Any, where: str) -> str:
        text = _text(value, where)
        if not form.fullmatch(text):
            raise InvalidNetworkConfig(f"{where}: {_shown(text)} is no address of {size} bytes")
        return text

    return parse


def _port_mappings(value: Any, where: str) -> tuple[JSONObject, ...]:
    if not (items := _list(value, where)):
        raise InvalidNetworkConfig(f"{where}: must hold at least one port mapping")
    return tuple(_port_mapping(item, f"{where}[{i}]") for i, item in enumerate(items))


def _port_mapping(item: Any, where: str) -> JSONObject:
    mapping = _object(item, where)
    for key in ("hostPort", "containerPort"):
        port = mapping.get(key)
        if type(port) is not int or not 1 <= port <= 65535:
            raise InvalidNetworkConfig(f"{where}.{key}: must be a number from 1 to 65535")
    protocol = mapping.get("protocol")
    if protocol is not None and _text(protocol, f"{where}.protocol").lower() not in _PROTOCOLS:
        raise InvalidNetworkConfig(f"{where}.protocol: must be tcp, udp or sctp")
    if mapping.get("hostIP") not in (None, ""):
        _plain_ip(mapping["hostIP"], f"{where}.hostIP")
    return mapping


def _bandwidth(value: Any, where: str) -> JSONObject:
    limits = {key: limit for key, limit in _object(value, where).items() if limit is not None}
    given = [key for key in _BANDWIDTH_KEYS if key in limits]
    if not given:
        raise InvalidNetworkConfig(f"{where}: needs at least one of {', '.join(_BANDWIDTH_KEYS)}")
    for key in given:
        if type(limits[key]) is not int or limits[key] <= 0:
            raise InvalidNetworkConfig(f"{where}.{key}: must be a number above 0")
    for burst, rate in _BURST_OF.items():
        if burst in limits and rate not in limits:
            raise InvalidNetworkConfig(f"{where}.{burst}: needs {rate}")
    return limits


_KEYS: Mapping[str, tuple[str, Callable[[Any, str], Any]]] = {
    "ips": ("ips", _ips),
    "mac": ("mac", _hardware_address(_MAC_BYTES)),
    "infiniband-guid": ("infiniband_guid", _hardware_address(_GUID_BYTES)),
    "portMappings": ("port_mappings", _port_mappings),
    "bandwidth": ("bandwidth", _bandwidth),
    "default-route": ("default_route", _gateways),
    "cni-args": ("cni_args", _object),
    "deviceID": ("device_id", _text),
    "container": ("container", _label),
    "claim": ("claim", _subdomain),
    "request": ("request", _request),
    "ipam-claim-reference": ("ipam_claim_reference", _text),
}
assert {attribute for attribute, _ in _KEYS.values()} <= {
    field.name for field in fields(NetworkSelectionElement)
}


def _check_count(count: int) -> None:
    if count > MAX_ELEMENTS:
        raise InvalidNetworkConfig(
            f"networks: {count} networks, at most {MAX_ELEMENTS} are allowed"
        )


def _check_together(elements: tuple[NetworkSelectionElement, ...]) -> None:
    """Check what holds among elements: names unique (NPWG 4.1.2.1.6), default-route once
    (4.1.2.1.9)."""
    taken: dict[str, str] = {}
    routed: list[str] = []
    for element in elements:
        if element.interface is not None:
            if element.interface in taken:
                raise InvalidNetworkConfig(
                    f"{element.where}.interface: {element.interface!r} is asked for by "
                    f"{taken[element.interface]} already"
                )
            taken[element.interface] = element.where
        routed += [element.where] if element.default_route is not None else []
    if len(routed) > 1:
        raise InvalidNetworkConfig(
            f"{routed[1]}.default-route: only one network may have it, {routed[0]} does already"
        )


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 100 else text[:100] + "…")
