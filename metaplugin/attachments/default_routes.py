"""Default routes, per family (NPWG 4.1.2.1.9).

The attachment whose element has `default-route` gets the default routes of the families that it
names gateways for; with an empty list, it keeps those that its own plugins gave it. In these
families every other attachment loses its default route; families that nobody asked for stay as they
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from metaplugin.attachments.plan import PlannedAttachment
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject
from metaplugin.cni.result import Result, gateway_of, replace_routes

DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultRoutes:
    """The default routes that a sandbox must have: for each family, these gateways by this
    interface, in this order of preference, and no others; "" is a route without gateway."""

    ifname: str
    gateways: dict[int, tuple[str, ...]]


def wanted_default_routes(
    plan: Sequence[PlannedAttachment], results: Sequence[Result]
) -> DefaultRoutes | None:
    """Return what the pod asks for, None when it doesn't ask or asks for what nobody has."""
    for attachment, result in zip(plan, results, strict=True):
        if attachment.gateways is None:
            continue
        gateways = _by_family(attachment.gateways) or _own_gateways(result)
        if attachment.gateways:
            _refuse_without_address(attachment, result, gateways)
        return DefaultRoutes(ifname=attachment.ifname, gateways=gateways) if gateways else None
    return None


def with_default_routes(ifname: str, result: Result, wanted: DefaultRoutes) -> Result:
    """Return an attachment's result as it is once `wanted` holds in the sandbox."""
    routes: list[JSONObject] = [
        dict(route.raw) for route in result.routes if route.default_family not in wanted.gateways
    ]
    if ifname == wanted.ifname:
        for family, gateways in wanted.gateways.items():
            own = _own_routes(result, family)
            kept = tuple(route.get("gw", "") for route in own) == gateways
            routes += own if kept else [{"dst": DEFAULT[family], "gw": gw} for gw in gateways]
    return replace_routes(result, routes)


def _own_gateways(result: Result) -> dict[int, tuple[str, ...]]:
    """Return the gateways of the result's default routes, by the families that have any."""
    own = {family: _own_routes(result, family) for family in DEFAULT}
    return {
        family: tuple(dict.fromkeys(route.get("gw", "") for route in routes))
        for family, routes in own.items()
        if routes
    }


def _own_routes(result: Result, family: int) -> list[JSONObject]:
    """Return the result's default routes of a family, the preferred first, with their gateways."""
    found: list[JSONObject] = []
    for route in result.routes:
        if route.default_family == family:
            gateway = gateway_of(result, route)
            without = {key: value for key, value in route.raw.items() if key != "gw"}
            found.append(without | ({"gw": gateway} if gateway else {}))
    return sorted(found, key=_priority)


def _priority(route: JSONObject) -> int:
    priority = route.get("priority")
    return priority if isinstance(priority, int) else 0


def _by_family(gateways: Sequence[str]) -> dict[int, tuple[str, ...]]:
    families = {
        family: tuple(gateway for gateway in gateways if ip_address(gateway).version == family)
        for family in DEFAULT
    }
    return {family: found for family, found in families.items() if found}


def _refuse_without_address(
    attachment: PlannedAttachment, result: Result, asked: dict[int, tuple[str, ...]]
) -> None:
    families = {ip_network(ip.address, strict=False).version for ip in result.ips}
    for family, gateways in asked.items():
        if result.ips and family not in families:
            raise InvalidNetworkConfig(
                f"network {attachment.name}: default-route asks for gateway {gateways[0]}, but "
                f"{attachment.ifname} got no IPv{family} address"
            )
