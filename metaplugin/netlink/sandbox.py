"""Interfaces and default routes of one sandbox.

pyroute2 is given the shim's socket (`fileno=`), never a namespace, for which it would fork. It
blocks, so each operation runs in the thread that the caller names, from opening to closing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_GETLINK
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from metaplugin.attachments.default_routes import DefaultRoutes
from metaplugin.cni.errors import InvalidNetworkConfig, IOFailure
from metaplugin.commands.ports import InterfaceState

_FAMILIES = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}
_MAIN_TABLE = 254
_FIRST_METRIC = {4: 0, 6: 1024}  # what the kernel uses where none is given
_LOOPBACK_INDEX = 1
_RTPROT_STATIC = 4

_RECEIVE_SIZE = 1 << 17  # the kernel fills a dump's messages up to 32 KiB
# struct nlmsghdr with type, flags and an empty struct ifinfomsg (rtnetlink(7))
_LINK_DUMP = struct.pack("=IHHII16x", 32, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
_MARSHAL = MarshalRtnl()

_T = TypeVar("_T")


class SandboxSocket:
    """The port SandboxNetwork over a netlink socket, which it owns and closes."""

    def __init__(self, descriptor: int, executor: Executor) -> None:
        self._descriptor = descriptor
        self._executor = executor

    def close(self) -> None:
        """Close the socket, once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    async def interface_names(self) -> Sequence[str]:
        return await self._in_thread("interfaces", lambda: _dump_names(self._descriptor))

    async def interfaces(self) -> Sequence[InterfaceState]:
        return await self._run("interfaces", _interfaces)

    async def default_routes(self) -> dict[int, tuple[tuple[str, str], ...]]:
        return await self._run("default routes", _default_routes)

    async def set_default_routes(self, wanted: DefaultRoutes) -> None:
        await self._run("default routes", lambda route: _set_default_routes(route, wanted))

    async def _run(self, what: str, operation: Callable[[IPRoute], _T]) -> _T:
        def run() -> _T:
            with IPRoute(fileno=os.dup(self._descriptor)) as route:
                return operation(route)

        return await self._in_thread(what, run)

    async def _in_thread(self, what: str, run: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, run)
        except (NetlinkError, OSError) as exc:
            raise IOFailure(f"the sandbox's {what} can't be read or set: {exc}") from exc


def _dump_names(descriptor: int) -> list[str]:
    """Return the interfaces' names but the loopback's, by one request: an IPRoute, with its own
    event loop, takes four times as long, and every ADD asks."""
    with socket.socket(fileno=os.dup(descriptor)) as netlink:
        netlink.setblocking(True)  # noqa: FBT003 - the standard library's signature
        netlink.send(_LINK_DUMP)
        names: list[str] = []
        while True:
            for message in _MARSHAL.parse(netlink.recv(_RECEIVE_SIZE)):
                if error := message["header"]["error"]:
                    raise error
                if message["header"]["type"] == NLMSG_DONE:
                    return names
                if message["index"] != _LOOPBACK_INDEX:
                    names.append(message.get_attr("IFLA_IFNAME"))


def _interfaces(route: IPRoute) -> list[InterfaceState]:
    names = _names(route)
    addresses: dict[str, set[str]] = defaultdict(set)
    for message in route.get_addr():
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        addresses[names.get(message["index"], "")].add(f"{address}/{message['prefixlen']}")
    return [
        InterfaceState(name=name, addresses=frozenset(addresses[name]))
        for index, name in names.items()
        if index != _LOOPBACK_INDEX
    ]


def _names(route: IPRoute) -> dict[int, str]:
    return {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}


def _default_routes(route: IPRoute) -> dict[int, tuple[tuple[str, str], ...]]:
    names = _names(route)
    found = {}
    for family in _FAMILIES:
        messages = _dump_defaults(route, family)
        found[family] = tuple(hop for message in messages for hop in _hops(message, names))
    return found


def _hops(message, names: dict[int, str]) -> list[tuple[str, str]]:  # type: ignore[no-untyped-def]
    """Return (interface, gateway) of a route; one over several hops lists them under
    RTA_MULTIPATH."""
    if several := message.get_attr("RTA_MULTIPATH"):
        return [(names.get(hop["oif"], "?"), hop.get_attr("RTA_GATEWAY") or "") for hop in several]
    return [(names.get(message.get_attr("RTA_OIF"), "?"), message.get_attr("RTA_GATEWAY") or "")]


def _dump_defaults(route: IPRoute, family: int):  # type: ignore[no-untyped-def]
    """Return the main table's default routes of a family, the preferred first."""
    messages = route.route("dump", family=_FAMILIES[family], table=_MAIN_TABLE)
    found = [message for message in messages if message["dst_len"] == 0 and _is_unicast(message)]
    return sorted(found, key=lambda message: message.get_attr("RTA_PRIORITY") or 0)


def _is_unicast(message) -> bool:  # type: ignore[no-untyped-def]
    return bool(message["type"] == 1 and message.get_attr("RTA_TABLE") == _MAIN_TABLE)


def _set_default_routes(route: IPRoute, wanted: DefaultRoutes) -> None:
    index = {name: index for index, name in _names(route).items()}.get(wanted.ifname)
    if index is None:
        raise InvalidNetworkConfig(
            f"default-route: there is no interface {wanted.ifname} in the container",
            details="the network's plugins succeeded without making one",
        )
    for family, gateways in wanted.gateways.items():
        present = _dump_defaults(route, family)
        own = [message for message in present if message.get_attr("RTA_OIF") == index]
        # What is as it should be stays, with its metric and MTU.
        kept = own if tuple(m.get_attr("RTA_GATEWAY") or "" for m in own) == gateways else []
        for message in present:
            if message not in kept:
                _delete(route, message)
        for position, gateway in enumerate(() if kept else gateways):
            try:
                _add(route, index, gateway, family, position)
            except NetlinkError as exc:
                raise InvalidNetworkConfig(
                    f"default-route: gateway {gateway} by {wanted.ifname} is refused: {exc}",
                    details="a gateway must be in reach of the interface, and not its own address",
                ) from exc


def _add(route: IPRoute, index: int, gateway: str, family: int, position: int) -> None:
    metric = _FIRST_METRIC[family] + position
    route.route(
        "add",
        family=_FAMILIES[family],
        dst_len=0,
        oif=index,
        proto=_RTPROT_STATIC,
        **({"gateway": gateway} if gateway else {}),
        **({"priority": metric} if metric else {}),
    )


def _delete(route: IPRoute, message) -> None:  # type: ignore[no-untyped-def]
    """Delete just this route: a request by prefix alone would take whichever the kernel finds
    first."""
    keys = {"priority": "RTA_PRIORITY", "oif": "RTA_OIF", "gateway": "RTA_GATEWAY"}
    exact = {key: message.get_attr(attribute) for key, attribute in keys.items()}
    route.route(
        "del",
        family=message["family"],
        dst_len=0,
        table=_MAIN_TABLE,
        tos=message["tos"],
        **{key: value for key, value in exact.items() if value is not None},
    )
