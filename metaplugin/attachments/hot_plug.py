"""One more attachment of a running sandbox, as the request for it says: a network's configuration,
and the attributes that whoever plugs may give an interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaplugin.attachments.plan import (
    Network,
    PlannedAttachment,
    Selection,
    UndeclaredCapabilities,
    selected_attachment,
)
from metaplugin.attachments.policy import Policy
from metaplugin.attachments.record import HOT_PLUG_NETWORK
from metaplugin.attachments.runtime_conf import secondary_args
from metaplugin.cni.configuration import parse_network_config
from metaplugin.cni.environment import CmdArgs
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject, dump
from metaplugin.npwg.selection import parse_networks_annotation

OUTER_VERSION = "1.0.0"
_KEY = "hotPlug"
_ATTRIBUTES = ("ips", "mac", "cni-args")


def hot_plug_request(config: JSONObject, attributes: Mapping[str, Any]) -> bytes:
    """Return our own configuration, for the shim's standard input, that asks for an attachment."""
    given = {key: attributes[key] for key in _ATTRIBUTES if attributes.get(key)}
    return dump(
        {
            "cniVersion": OUTER_VERSION,
            "name": HOT_PLUG_NETWORK,
            "type": "metaplugin",
            _KEY: {"config": config, "attributes": given},
        }
    )


def hot_plugged_attachment(
    outer: JSONObject,
    args: CmdArgs,
    *,
    namespace: str,
    policy: Policy,
    undeclared: UndeclaredCapabilities,
) -> PlannedAttachment:
    """Return the attachment that such a configuration asks for, checked as an element of the pod's
    annotation is; raise CNIError.

    Whoever plugs takes the configuration from a net-attach-def and doesn't say from which: it may
    hold what one of the pod's `namespace` may.
    """
    asked = outer.get(_KEY)
    if not isinstance(asked, dict) or not isinstance(asked.get("config"), dict):
        raise InvalidNetworkConfig(f"{_KEY}.config: must be a network configuration")
    config = parse_network_config(asked["config"], where="config")
    if any(plugin.type == "metaplugin" for plugin in config.plugins):
        raise InvalidNetworkConfig("config: metaplugin can't delegate to itself")
    policy.require(config, namespace=namespace, where="config")
    attributes = asked.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise InvalidNetworkConfig(f"{_KEY}.attributes: must be an object")
    element = {"name": "hot-plugged", "interface": args.ifname, **attributes}
    (parsed,) = parse_networks_annotation(dump([element]).decode(), pod_namespace="default")
    policy.require_keys(parsed.cni_args, where=f"{_KEY}.attributes.cni-args")
    network = Network(name=config.name, config=config)
    return selected_attachment(
        Selection(element=parsed, network=network),
        ifname=args.ifname,
        args=secondary_args(args),
        undeclared=undeclared,
    )
