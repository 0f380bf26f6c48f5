"""What the kernel says, by `ip` and `tc`, in the demo's namespace or in a pod's."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from metaplugin.demo.namespaces import command

PING_LIMIT_S = 2
CONNECT_LIMIT_S = 3

# Runs in a pod: answers one connection with a greeting, so that a caller knows whom it reached.
_LISTENER = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    connection.sendall(sys.argv[2].encode())
    connection.close()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One interface of a pod. `peer` is the other end's index on the node, 0 without one."""

    name: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    default_gateways: tuple[str, ...]
    peer: int


def interfaces(namespace: str) -> dict[str, Interface]:
    """Return a pod's interfaces by name, lo excepted, in the kernel's order."""
    links = ip_json("address", namespace=namespace)
    routes = ip_json("route", namespace=namespace) + ip_json("-6", "route", namespace=namespace)
    return {
        link["ifname"]: _interface(link, [r for r in routes if r.get("dev") == link["ifname"]])
        for link in links
        if link["ifname"] != "lo"
    }


def _interface(link: dict[str, Any], routes: list[dict[str, Any]]) -> Interface:
    visible = [route for route in routes if not route["dst"].startswith("fe80:")]
    return Interface(
        name=link["ifname"],
        mac=link["address"],
        mtu=link["mtu"],
        addresses=tuple(
            f"{address['local']}/{address['prefixlen']}"
            for address in link["addr_info"]
            if address.get("scope") == "global"
        ),
        routes=tuple(_route_text(route) for route in visible),
        default_gateways=tuple(r.get("gateway", "") for r in visible if r["dst"] == "default"),
        peer=int(link.get("link_index", 0)),
    )


def _route_text(route: dict[str, Any]) -> str:
    gateway = route.get("gateway")
    return f"{route['dst']} via {gateway}" if gateway else str(route["dst"])


def ip_json(*arguments: str, namespace: str = "") -> list[dict[str, Any]]:
    """Return what `ip -json` prints."""
    where = ["-n", namespace] if namespace else []
    return _objects(command(["ip", "-json", "-details", *where, *arguments]))


def shaped_rate(device: str) -> int:
    """Return the bits a second that a token bucket lets out of a node's device, 0 without one."""
    for discipline in _objects(command(["tc", "-json", "qdisc", "show", "dev", device])):
        if discipline["kind"] == "tbf":
            return int(discipline["options"]["rate"]) * 8
    return 0


def _objects(text: str) -> list[dict[str, Any]]:
    parsed = json.loads(text or "[]")
    return [item for item in parsed if item]  # `ip -json` prints {} for what a filter left out


def ping(namespace: str, device: str, address: str) -> str:
    """Return why an address doesn't answer a pod through an interface, "" when it does."""
    pinging = ["ping", "-c", "1", "-W", str(PING_LIMIT_S), "-I", device, address]
    try:
        command(["ip", "netns", "exec", namespace, *pinging])
    except subprocess.CalledProcessError as exc:
        return f"no answer within {PING_LIMIT_S} s {exc.stderr.strip()}".strip()
    return ""


def greeting_through(
    node_port: tuple[str, int], *, namespace: str, port: int, greeting: str
) -> str:
    """Return what one hears on a port of the node while a pod listens on `port` with `greeting`."""
    listening = [sys.executable, "-c", _LISTENER, str(port), greeting]
    listener = subprocess.Popen(
        ["ip", "netns", "exec", namespace, *listening],  # noqa: S607 - the user's PATH
        stdout=subprocess.PIPE,
    )
    try:
        if listener.stdout is None or not listener.stdout.readline():
            return "nothing: the listener in the pod couldn't start"
        with socket.create_connection(node_port, timeout=CONNECT_LIMIT_S) as connection:
            return connection.recv(4096).decode(errors="replace")
    except OSError as exc:
        return f"nothing: {exc}"
    finally:
        listener.kill()
        listener.communicate()
