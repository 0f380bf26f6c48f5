"""What pods make on a node, outside themselves: all of it has to be gone after them."""

from __future__ import annotations

import re
import subprocess
from typing import Any

from tests.system.node import Node, ip_json

# portmap's own chains stay once it has been used, as the bridges do; they belong to no pod.
_KEPT_CHAINS = {"CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK"}
_NETWORKS = r"10\.9\d\."


def footprint(node: Node) -> dict[str, list[str]]:
    """Return what is there of pods; {} when nothing is. Tombstones may stay."""
    found = {
        "links": sorted(node.host_links() - {"lo", "eth1", "wire1"}),
        "rules": rules_of_pods(node),
        "leases": node.leases(),
        "records": node.records(),
        "locks": node.locks(),
        "status": node.entries("status"),
    }
    return {what: names for what, names in found.items() if names}


def rules_of_pods(node: Node) -> list[str]:
    """Return iptables' chains and rules that a pod's attachment made."""
    return pods_rules("\n".join(rules(node)), _NETWORKS)


def pods_rules(saved: str, networks: str) -> list[str]:
    """Return the lines of iptables-save that a pod's attachment made; `networks` is a pattern of
    how pods' addresses begin."""
    address = re.compile(rf"\b{networks}[\d.]+/32\b")
    return [line for line in saved.splitlines() if address.search(line) or _names_a_chain(line)]


def _names_a_chain(line: str) -> bool:
    return bool(set(re.findall(r"\bCNI-[\w-]+", line)) - _KEPT_CHAINS)


def rules(node: Node) -> list[str]:
    command = [*node.prefix, "iptables-save"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [re.sub(r" \[\d+:\d+\]$", "", line) for line in text.splitlines()]  # counters
    return [line for line in lines if not line.startswith("#")]


def snapshot(node: Node) -> dict[str, Any]:
    """Return what must stay as it is while live pods are only looked at."""
    folder = node.root / "state" / "attachments"
    links = ip_json("link", prefix=node.prefix)
    return {
        "links": {link["ifname"]: (link["ifindex"], link["address"]) for link in links},
        "rules": rules(node),
        "leases": node.leases(),
        "records": {name: (folder / name).read_bytes() for name in node.records()},
        "status": {n: (node.root / "status" / n).read_bytes() for n in node.entries("status")},
    }
