"""The networks of a node that a runtime stands on."""

from __future__ import annotations

import json

from tests.system.node import Node, bridge_network

ETH0, MACVLAN, SECOND = "10.90.0.", "10.91.0.", "10.92.0."


def write_networks(node: Node) -> None:
    """Have the default network masquerade and map host ports; define the bridge `second`.

    disableCheck as in examples/cluster: portmap's CHECK wants IPv6 rules of pods without IPv6.
    """
    default = bridge_network(node.root)
    default["disableCheck"] = True
    default["plugins"][0]["ipMasq"] = True
    default["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    (node.root / "default.conflist").write_text(json.dumps(default))
    second = bridge_network(node.root, "second", f"{SECOND}0/24")
    second["plugins"][0]["ipMasq"] = True
    del second["plugins"][0]["ipam"]["routes"]
    node.define("second", second)
