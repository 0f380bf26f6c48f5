"""Default routes, per family (NPWG 4.1.2.1.9).

The attachment whose element has `default-route` gets the default routes of the families that it
names gateways for; with an empty list, of those its own plugins gave it. In these families every
other attachment loses its default route; families that nobody asked for stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from metaplugin.attachments.plan import PlannedAttachment
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject
from metaplugin.cni.result import Result, Route, replace_routes

DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultRoutes:
    """The default routes that a sandbox must have: for each family, these gateways by this
    interface, in this order of preference, and no others."""

    ifname: str
    gateways: dict[int, tuple[str, ...]]


def wanted_default_routes(
    plan: Sequence[PlannedAttachment], results: Sequence[Result]
) -> DefaultRoutes | None:
    """Return what the pod asks for, None when it doesn't ask or asks for what nobody has."""
    for attachment, result in zip(plan, results, strict=True):
        if attachment.gateways is None:
            continue
        gateways = attachment.gateways or _own_gateways(result)
        families = {family: _of_family(gateways, family) for family in DEFAULT}
        asked = {family: found for family, found in families.items() if found}
        _refuse_without_address(attachment, result, asked)
        return DefaultRoutes(ifname=attachment.ifname, gateways=asked) if asked else None
    return None


def with_default_routes(ifname: str, result: Result, wanted: DefaultRoutes) -> Result:
    """Return an attachment's result as it is once `wanted` holds in the sandbox."""
    routes: list[JSONObject] = [
        dict(route.raw) for route in result.routes if _default_family(route) not in wanted.gateways
    ]
    if ifname == wanted.ifname:
        routes += [
            {"dst": DEFAULT[family], "gw": gateway}
            for family, gateways in wanted.gateways.items()
            for gateway in gateways
        ]
    return replace_routes(result, routes)


def _own_gateways(result: Result) -> tuple[str, ...]:
    """Return the gateways of the result's default routes; a route without one goes by its
    address's."""
    found = []
    for route in result.routes:
        if family := _default_family(route):
            addresses = [ip.gateway for ip in result.ips if ip.gateway]
            found += [route.gw] if route.gw else list(_of_family(addresses, family))
    return tuple(dict.fromkeys(str(ip_address(gateway)) for gateway in found))


def _of_family(gateways: Sequence[str], family: int) -> tuple[str, ...]:
    return tuple(gateway for gateway in gateways if ip_address(gateway).version == family)


def _default_family(route: Route) -> int | None:
    network = ip_network(route.dst, strict=False)
    return network.version if network.prefixlen == 0 else None


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
