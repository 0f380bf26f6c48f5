"""Whether what the demo shows is so: each claim about a pod held against the kernel's own word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaplugin.demo.claims import Finding, NotSoError, compared
from metaplugin.demo.cluster import Wish
from metaplugin.demo.inspection import Interface, greeting_through, ip_json, ping, shaped_rate
from metaplugin.demo.runtime import Runtime, Sandbox

DEFAULT_IFNAME = "eth0"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A pod as the demo shows it: the kernel's interfaces and the network-status written."""

    sandbox: Sandbox
    interfaces: Mapping[str, Interface]
    status: Sequence[Mapping[str, Any]]


def pod_findings(view: View, runtime: Runtime) -> Iterator[Finding]:
    """Yield every claim about one pod."""
    pod = view.sandbox.pod
    yield compared(
        "the pod has the interfaces that were asked for, and no others",
        expected=sorted([DEFAULT_IFNAME, *(wish.ifname for wish in pod.wishes)]),
        actual=sorted(view.interfaces),
    )
    yield from _status_findings(view)
    for wish in pod.wishes:
        yield from _wish_findings(view, wish)
    yield from _default_route_findings(view)
    yield from _port_findings(view)
    yield from _bandwidth_findings(view)
    yield _check_finding(view, runtime)


def _status_findings(view: View) -> Iterator[Finding]:
    wishes = view.sandbox.pod.wishes
    yield compared(
        "network-status: an entry for each attachment, in order, the default network first",
        expected=[(DEFAULT_IFNAME, True), *((wish.ifname, False) for wish in wishes)],
        actual=[(entry.get("interface"), entry.get("default", False)) for entry in view.status],
    )
    yield compared(
        "network-status: the networks' names as selected",
        expected=[wish.network for wish in wishes],
        actual=[entry.get("name") for entry in view.status[1:]],
    )
    yield compared(
        "network-status: the gateway is with the interface that has the default route",
        expected=sorted(name for name, i in view.interfaces.items() if i.default_gateways),
        actual=sorted(str(entry["interface"]) for entry in view.status if entry.get("gateway")),
    )
    for entry in view.status:
        name = str(entry.get("interface"))
        if interface := view.interfaces.get(name):
            claimed = {key: entry[key] for key in ("mac", "ips", "mtu", "gateway") if key in entry}
            yield compared(
                f"network-status: {', '.join(claimed)} of {name} are the kernel's",
                expected={key: _fact(interface, key) for key in {**claimed, "mac": "", "ips": ""}},
                actual=claimed,
            )


def _fact(interface: Interface, key: str) -> object:
    bare = [address.partition("/")[0] for address in interface.addresses]
    facts: dict[str, object] = {"mac": interface.mac, "ips": bare, "mtu": interface.mtu}
    return (facts | {"gateway": list(interface.default_gateways)})[key]


def _wish_findings(view: View, wish: Wish) -> Iterator[Finding]:
    interface = view.interfaces.get(wish.ifname)
    if interface is None:
        return  # said already
    if wish.mac:
        claim = f"{wish.ifname} has the MAC address asked for, {wish.mac}"
        yield compared(claim, expected=wish.mac.lower(), actual=interface.mac)
    for address in wish.ips:
        own = interface.addresses if "/" in address else _fact(interface, "ips")
        problem = "" if address in own else f"it has {own}"  # type: ignore[operator]
        yield Finding(claim=f"{wish.ifname} has the address asked for, {address}", problem=problem)


def _default_route_findings(view: View) -> Iterator[Finding]:
    """Yield that the default route is where the pod wants it, alone, and its gateway answers."""
    asked = [wish for wish in view.sandbox.pod.wishes if wish.gateways is not None]
    ifname = asked[0].ifname if asked else DEFAULT_IFNAME
    found = {name: i.default_gateways for name, i in view.interfaces.items() if i.default_gateways}
    yield compared(
        f"the default route is on {ifname} alone", expected=[ifname], actual=sorted(found)
    )
    if asked and asked[0].gateways:
        claim = "the default route goes by the gateway asked for"
        yield compared(claim, expected=asked[0].gateways, actual=found.get(ifname))
    for gateway in found.get(ifname, ()):
        problem = ping(view.sandbox.namespace, ifname, gateway)
        yield Finding(claim=f"the gateway {gateway} answers a ping on {ifname}", problem=problem)


def _port_findings(view: View) -> Iterator[Finding]:
    sandbox = view.sandbox
    for mapping in sandbox.pod.port_mappings:
        node = mapping["hostIP"] or _gateway(view)
        heard = greeting_through(
            (node, mapping["hostPort"]),
            namespace=sandbox.namespace,
            port=mapping["containerPort"],
            greeting=f"hello from {sandbox.pod}",
        )
        inner, outer = mapping["containerPort"], mapping["hostPort"]
        claim = f"port {outer} of the node ({node}) reaches port {inner} of the pod"
        yield compared(claim, expected=f"hello from {sandbox.pod}", actual=heard)


def _gateway(view: View) -> str:
    """Return an address of the node: the default network's gateway is its bridge."""
    gateways = view.interfaces[DEFAULT_IFNAME].default_gateways
    if not gateways:
        raise NotSoError(f"{view.sandbox.pod}: no gateway on {DEFAULT_IFNAME}")
    return gateways[0]


def _bandwidth_findings(view: View) -> Iterator[Finding]:
    """Yield the limits: into the pod on the node's end of eth0, out of it on the link (ifb) that
    the plugin named in its result."""
    limits = view.sandbox.pod.bandwidth
    links = {link["ifindex"]: link["ifname"] for link in ip_json("link")}
    outer = links.get(view.interfaces[DEFAULT_IFNAME].peer)
    ours = [interface["name"] for interface in view.sandbox.result.get("interfaces", ())]
    mirror = next((name for name in ours if name.startswith("bwp")), None)
    for direction, device in (("ingress", outer), ("egress", mirror)):
        if rate := limits.get(f"{direction}Rate"):
            actual = shaped_rate(device) if device else 0
            claim = f"{direction} is limited to {rate // 10**6} Mbit/s, by {device}"
            yield compared(claim, expected=rate, actual=actual)


def _check_finding(view: View, runtime: Runtime) -> Finding:
    try:
        runtime.check(view.sandbox)
    except NotSoError as exc:
        return Finding(claim="CHECK succeeds", problem=str(exc))
    return Finding(claim="CHECK succeeds")


def neighbour_findings(views: Sequence[View]) -> Iterator[Finding]:
    """Yield that pods on one extra network reach each other over it."""
    for position, view in enumerate(views):
        for other in views[position + 1 :]:
            for ours, theirs in _shared(view, other):
                for address in theirs.addresses:
                    bare = address.partition("/")[0]
                    problem = ping(view.sandbox.namespace, ours, bare)
                    claim = f"{view.sandbox.pod} pings {other.sandbox.pod} ({bare}) over {ours}"
                    yield Finding(claim=claim, problem=problem)


def _shared(view: View, other: View) -> Iterator[tuple[str, Interface]]:
    """Yield our interface's name and their interface for each network that both pods select."""
    for wish in view.sandbox.pod.wishes:
        for theirs in other.sandbox.pod.wishes:
            if wish.network == theirs.network and theirs.ifname in other.interfaces:
                yield wish.ifname, other.interfaces[theirs.ifname]
