"""Results of ADD in every version, and the conversions between them (CNI section 5).

Versions 0.3.0 to 1.1.0 share one layout, in which each added a little; the two before it have
another. Conversion goes by the 1.1.0 layout, called canonical here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from metaplugin.cni.errors import DecodingFailure
from metaplugin.cni.raw import JSONObject, load_object
from metaplugin.cni.version import at_least, select_version

_FAMILIES = {"ip4": 4, "ip6": 6}
_INTERFACE_KEYS = ("name", "mac", "sandbox")  # before 1.1.0
_ROUTE_KEYS = ("dst", "gw")  # before 1.1.0
_MAIN_TABLE = (None, 0, 254)  # also where a route (since 1.1.0) names no table


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """An interface that a plugin made; `sandbox` is empty for one on the host."""

    name: str
    mac: str
    sandbox: str
    mtu: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IPConfig:
    """An address with prefix length; `interface` is its interface's index in the result, None for
    that of a device without an interface too."""

    address: str
    gateway: str | None
    interface: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route; `raw` is the whole object."""

    dst: str
    gw: str | None
    raw: JSONObject

    @property
    def default_family(self) -> int | None:
        """4 or 6 for a default route of the main table, None for any other."""
        network = ip_network(self.dst, strict=False)
        main = self.raw.get("table") in _MAIN_TABLE
        return network.version if main and network.prefixlen == 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A plugin's result, `raw` as the plugin printed it; it is valid in its version's layout."""

    cni_version: str
    raw: JSONObject

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return tuple(
            Interface(
                name=item.get("name") or "",
                mac=item.get("mac") or "",
                sandbox=item.get("sandbox") or "",
                mtu=item.get("mtu"),
            )
            for item in self.canonical()["interfaces"]
        )

    @property
    def ips(self) -> tuple[IPConfig, ...]:
        canonical = self.canonical()
        return tuple(
            IPConfig(
                address=item["address"],
                gateway=item.get("gateway") or None,
                interface=item.get("interface") if canonical["interfaces"] else None,
            )
            for item in canonical["ips"]
        )

    @property
    def routes(self) -> tuple[Route, ...]:
        return tuple(
            Route(dst=item["dst"], gw=item.get("gw") or None, raw=item)
            for item in self.canonical()["routes"]
        )

    @property
    def dns(self) -> JSONObject:
        dns: JSONObject = self.canonical()["dns"]
        return dns

    def to_version(self, version: str) -> JSONObject:
        """Return the result in a supported version's layout; unchanged where that is its own."""
        if version == self.cni_version:
            return self.raw | {"cniVersion": version}
        canonical = self.canonical()
        if not at_least(version, "0.3.0"):
            return _to_legacy(canonical, version)
        return _to_layout(canonical, version)

    def canonical(self) -> JSONObject:
        """Return the result in the layout of 1.1.0, every list there."""
        if not at_least(self.cni_version, "0.3.0"):
            return _from_legacy(self.raw)
        lists = {key: self.raw.get(key) or [] for key in ("interfaces", "ips", "routes")}
        return lists | {"dns": self.raw.get("dns") or {}}


def parse_result(data: bytes, *, configured_version: str, where: str) -> Result:
    """Return the result that a plugin printed for an ADD.

    Without a cniVersion it is taken to be in the configuration's. Raise IncompatibleVersion for an
    unknown one and DecodingFailure, with the place, for anything malformed.
    """
    raw = load_object(data, what=where)
    stated = {key: raw[key] for key in ("cniVersion",) if raw.get(key)}
    version = select_version(stated, where=where) if stated else configured_version
    _Checker(where).check(raw, legacy=not at_least(version, "0.3.0"))
    return Result(cni_version=version, raw=raw)


def gateway_of(result: Result, route: Route) -> str:
    """Return a default route's gateway, "" for a direct one: where it names none, the first of its
    family's addresses that has one, as the plugins go by."""
    own = [ip.gateway for ip in result.ips if ip.gateway]
    family = (gateway for gateway in own if ip_address(gateway).version == route.default_family)
    return str(ip_address(found)) if (found := route.gw or next(family, "")) else ""


def replace_routes(result: Result, routes: Sequence[JSONObject]) -> Result:
    """Return the result, in its own version, with these routes (of the canonical layout) in place
    of its."""
    if at_least(result.cni_version, "0.3.0"):
        return Result(cni_version=result.cni_version, raw=result.raw | {"routes": list(routes)})
    canonical = _from_legacy(result.raw) | {"routes": list(routes)}
    return Result(cni_version=result.cni_version, raw=_to_legacy(canonical, result.cni_version))


def restored(result: Result, previous: Result | None, version: str) -> Result:
    """Return, in `version`, the result of a plugin that was run in an older one: what that one
    can't say of an interface or route is as the previous plugin said it."""
    if not at_least(version, "0.3.0"):
        return result
    canonical = result.canonical()
    if previous is not None:
        canonical |= {
            key: [_with_dropped(item, previous.canonical()[key], kept) for item in canonical[key]]
            for key, kept in (("interfaces", _INTERFACE_KEYS), ("routes", _ROUTE_KEYS))
        }
    return Result(cni_version=version, raw=_to_layout(canonical, version))


def _with_dropped(item: JSONObject, known: Sequence[JSONObject], kept: Sequence[str]) -> JSONObject:
    same = (other for other in known if _only(other, kept) == _only(item, kept))
    return next(same, {}) | item


def _from_legacy(raw: JSONObject) -> JSONObject:
    ips: list[JSONObject] = []
    routes: list[JSONObject] = []
    for key in _FAMILIES:
        if config := raw.get(key):
            gateway = {"gateway": config["gateway"]} if config.get("gateway") else {}
            ips.append({"address": config["ip"], **gateway})
            routes += config.get("routes") or []
    return {"interfaces": [], "ips": ips, "routes": routes, "dns": raw.get("dns") or {}}


def _to_legacy(canonical: JSONObject, version: str) -> JSONObject:
    """Return the first address of each family, which is all that the layout holds."""
    result: JSONObject = {"cniVersion": version}
    for key, family in _FAMILIES.items():
        addresses = [ip for ip in canonical["ips"] if ip_interface(ip["address"]).version == family]
        if addresses:
            first = addresses[0]
            gateway = {"gateway": first["gateway"]} if first.get("gateway") else {}
            routes = [
                _only(route, _ROUTE_KEYS)
                for route in canonical["routes"]
                if ip_network(route["dst"], strict=False).version == family
            ]
            result[key] = {"ip": first["address"], **gateway} | (
                {"routes": routes} if routes else {}
            )
    return result | ({"dns": canonical["dns"]} if canonical["dns"] else {})


def _to_layout(canonical: JSONObject, version: str) -> JSONObject:
    interfaces, ips, routes = canonical["interfaces"], canonical["ips"], canonical["routes"]
    if not at_least(version, "1.1.0"):
        interfaces = [_only(interface, _INTERFACE_KEYS) for interface in interfaces]
        routes = [_only(route, _ROUTE_KEYS) for route in routes]
    ips = [_only(ip, ("interface", "address", "gateway")) for ip in ips]
    if not at_least(version, "1.0.0"):
        ips = [{"version": str(ip_interface(ip["address"]).version), **ip} for ip in ips]
    parts = {"interfaces": interfaces, "ips": ips, "routes": routes, "dns": canonical["dns"]}
    return {"cniVersion": version} | {key: value for key, value in parts.items() if value}


def _only(item: JSONObject, keys: Sequence[str]) -> JSONObject:
    return {key: item[key] for key in keys if item.get(key) not in (None, "")}


@dataclass(frozen=True, slots=True)
class _Checker:
    """Checks the layout of a printed result; each problem is raised with its place."""

    where: str

    def check(self, raw: JSONObject, *, legacy: bool) -> None:
        if legacy:
            for key, family in _FAMILIES.items():
                if config := self._object(raw, key):
                    self._legacy_address(config, key, family)
        else:
            self._lists(raw)
        dns = self._object(raw, "dns")
        for key in ("nameservers", "search", "options"):
            texts = _or_empty(dns.get(key), [])
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise self._problem(f"dns.{key}", "must be a list of texts")
        self._text(dns, "domain", "dns.")

    def _legacy_address(self, config: JSONObject, key: str, family: int) -> None:
        self._address(config.get("ip"), f"{key}.ip", family)
        self._gateway(config.get("gateway"), f"{key}.gateway")
        for route, place in self._objects(config, "routes", f"{key}."):
            self._route(route, place)

    def _lists(self, raw: JSONObject) -> None:
        interfaces = list(self._objects(raw, "interfaces"))
        for interface, place in interfaces:
            for key in ("name", "mac", "sandbox"):
                self._text(interface, key, f"{place}.")
            if type(interface.get("mtu", 0)) is not int:
                raise self._problem(f"{place}.mtu", "must be a number")
        for ip, place in self._objects(raw, "ips"):
            self._address(ip.get("address"), f"{place}.address")
            self._gateway(ip.get("gateway"), f"{place}.gateway")
            index = ip.get("interface", 0)
            # host-device's addresses of a device that vfio-pci drives belong to an interface 0 that
            # isn't listed.
            count = len(interfaces) or 1
            if index is not None and (type(index) is not int or not 0 <= index < count):
                raise self._problem(f"{place}.interface", f"there is no interface {index!r}")
        for route, place in self._objects(raw, "routes"):
            self._route(route, place)

    def _route(self, route: JSONObject, place: str) -> None:
        try:
            ip_network(_text_of(route.get("dst")), strict=False)
        except ValueError as exc:
            raise self._problem(f"{place}.dst", f"no network: {exc}") from exc
        self._gateway(route.get("gw"), f"{place}.gw")

    def _address(self, value: Any, place: str, family: int | None = None) -> None:
        try:
            found = ip_interface(_text_of(value))
        except ValueError as exc:
            raise self._problem(place, f"no address: {exc}") from exc
        if "/" not in value or family not in (None, found.version):
            raise self._problem(
                place, f"{value} must be an address of its family with prefix length"
            )

    def _gateway(self, value: Any, place: str) -> None:
        if value in (None, ""):
            return
        try:
            ip_address(_text_of(value))
        except ValueError as exc:
            raise self._problem(place, f"no address: {exc}") from exc

    def _objects(
        self, raw: JSONObject, key: str, prefix: str = ""
    ) -> Iterator[tuple[JSONObject, str]]:
        items = _or_empty(raw.get(key), [])
        if not isinstance(items, list):
            raise self._problem(f"{prefix}{key}", "must be a list")
        for position, item in enumerate(items):
            place = f"{prefix}{key}[{position}]"
            if not isinstance(item, dict):
                raise self._problem(place, "must be an object")
            yield item, place

    def _object(self, raw: JSONObject, key: str) -> JSONObject:
        value = _or_empty(raw.get(key), {})
        if not isinstance(value, dict):
            raise self._problem(key, "must be an object")
        return value

    def _text(self, item: JSONObject, key: str, prefix: str) -> None:
        if not isinstance(item.get(key), str | None):
            raise self._problem(f"{prefix}{key}", "must be text")

    def _problem(self, place: str, message: str) -> DecodingFailure:
        return DecodingFailure(f"{self.where}: {place}: {message}")


def _or_empty(value: Any, empty: Any) -> Any:
    return empty if value is None else value


def _text_of(value: Any) -> str:
    """Return the value if it is text; raise ValueError: a number would be taken for an address."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value
