"""Where each fact of a plan comes from: the runtime's configuration, the pod, the networks.

The runtime's own word on annotations comes first; the cluster is asked for what it didn't say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metaplugin.attachments.hot_plug import hot_plugged_attachment
from metaplugin.attachments.plan import (
    Network,
    PlannedAttachment,
    Selection,
    default_attachment,
    make_plan,
)
from metaplugin.attachments.record import HOT_PLUG_NETWORK
from metaplugin.attachments.runtime_conf import (
    ArgPairs,
    PodReference,
    pod_reference,
    secondary_args,
)
from metaplugin.cni.configuration import NetworkConfigList, parse_network_config
from metaplugin.cni.environment import CmdArgs, validate_network_name
from metaplugin.cni.errors import (
    InvalidEnvironment,
    InvalidNetworkConfig,
    NetworkNotFound,
    TryAgainLater,
)
from metaplugin.cni.raw import JSONObject, load_object
from metaplugin.cni.version import select_version
from metaplugin.commands.ports import KnownPod, Node
from metaplugin.npwg.definition import (
    NetworkAttachmentDefinition,
    parse_definition_config,
    require_device,
)
from metaplugin.npwg.names import require_label, require_subdomain
from metaplugin.npwg.selection import NetworkSelectionElement, parse_networks_annotation

NETWORKS_ANNOTATION = "k8s.v1.cni.cncf.io/networks"
POD_ANNOTATIONS_CAPABILITY = "io.kubernetes.cri.pod-annotations"
OWN_TYPE = "metaplugin"


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterConfig:
    """Our own plugin configuration, as the runtime hands it over on standard input."""

    raw: JSONObject
    name: str
    cni_version: str
    runtime_config: Mapping[str, Any]


def parse_outer_config(stdin: bytes) -> OuterConfig:
    """Return the runtime's configuration for us; raise CNIError (codes 1, 6, 7)."""
    raw = load_object(stdin, what="the network configuration on standard input")
    version = select_version(
        {key: raw[key] for key in ("cniVersion",) if key in raw}, where="configuration"
    )
    name = raw.get("name")
    if not isinstance(name, str):
        raise InvalidNetworkConfig("name: the network configuration needs one, as text")
    validate_network_name(name, where="name")
    runtime_config = raw.get("runtimeConfig")
    if not isinstance(runtime_config, dict | None):
        raise InvalidNetworkConfig("runtimeConfig: must be an object")
    return OuterConfig(raw=raw, name=name, cni_version=version, runtime_config=runtime_config or {})


async def plan_attachments(
    args: CmdArgs, outer: OuterConfig, node: Node
) -> tuple[PlannedAttachment, ...]:
    """Return everything that the pod is to be attached to, all of it checked; raise CNIError."""
    reference = required_pod(args, node)
    if outer.name == HOT_PLUG_NETWORK:
        return (hot_plugged_attachment(outer.raw, args),)
    elements = await selected_elements(reference, outer, node)
    first, *always = await default_networks(outer, node)
    networks = await asyncio.gather(*(selected_network(e, reference, node) for e in elements))
    selections = [
        Selection(element=element, network=network)
        for element, network in zip(elements, networks, strict=True)
    ]
    default = default_attachment(
        first, ifname=args.ifname, args=args.args, capability_args=outer.runtime_config
    )
    return make_plan(
        default,
        always=always,
        selections=selections,
        args=_pod_args(args, reference),
        undeclared=node.settings.undeclared_capabilities,
    )


def required_pod(args: CmdArgs, node: Node) -> PodReference | None:
    """Return the pod that CNI_ARGS name; raise InvalidEnvironment where a cluster is configured and
    they name none, and for names that no pod has."""
    reference = pod_reference(args.args)
    if reference is None and node.cluster is not None:
        raise InvalidEnvironment(
            "CNI_ARGS must name the pod (K8S_POD_NAME, and K8S_POD_NAMESPACE if it isn't default): "
            "a cluster is configured"
        )
    if reference is not None:
        try:
            require_label(reference.namespace, where="CNI_ARGS: K8S_POD_NAMESPACE")
            require_subdomain(reference.name, where="CNI_ARGS: K8S_POD_NAME")
        except InvalidNetworkConfig as exc:
            raise InvalidEnvironment(exc.msg) from exc
    return reference


async def selected_elements(
    reference: PodReference | None, outer: OuterConfig, node: Node
) -> tuple[NetworkSelectionElement, ...]:
    """Return the pod's network selection elements, checked whole (NPWG 4.1)."""
    annotations = await _annotations(reference, outer, node)
    text = annotations.get(NETWORKS_ANNOTATION, "")
    if not isinstance(text, str):
        raise InvalidNetworkConfig(f"annotation {NETWORKS_ANNOTATION}: must be text")
    namespace = reference.namespace if reference else "default"
    return parse_networks_annotation(text, pod_namespace=namespace)


async def _annotations(
    reference: PodReference | None, outer: OuterConfig, node: Node
) -> Mapping[str, Any]:
    if POD_ANNOTATIONS_CAPABILITY in outer.runtime_config:
        given = outer.runtime_config[POD_ANNOTATIONS_CAPABILITY]
        if not isinstance(given, dict | None):
            raise InvalidNetworkConfig(
                f"runtimeConfig[{POD_ANNOTATIONS_CAPABILITY!r}]: must be an object or null"
            )
        return given or {}
    if reference is None or node.cluster is None:
        return {}
    pod = await node.cluster.pod(reference)
    return _fitting(pod, reference).annotations


def _fitting(pod: KnownPod | None, reference: PodReference) -> KnownPod:
    if pod is None:
        raise TryAgainLater(f"pod {reference} is not known to the cluster (yet)")
    if not pod.is_meant_by(reference):
        raise TryAgainLater(
            f"pod {reference} has UID {pod.uid}, the runtime asks for UID {reference.uid}",
            details="the pod was deleted and made again; the runtime's retry will fit",
        )
    return pod


async def default_networks(outer: OuterConfig, node: Node) -> tuple[Network, ...]:
    """Return the cluster-wide default network, and networks that every pod gets after it; raise
    CNIError.

    `delegates` of the runtime's configuration come first, then `clusterNetwork` there, then that of
    the daemon's configuration.
    """
    delegates = outer.raw.get("delegates")
    if delegates:
        return _inline_networks(delegates)
    reference = outer.raw.get("clusterNetwork") or node.settings.cluster_network
    if not isinstance(reference, str) or not reference:
        raise InvalidNetworkConfig(
            "no default network is configured",
            details="set clusterNetwork in metaplugin's configuration",
        )
    if not reference.isprintable():  # a NUL or half a surrogate pair would be no path, and no name
        raise InvalidNetworkConfig(f"clusterNetwork: {reference!a} is no name and no path")
    return (await _cluster_network(reference, node),)


def _inline_networks(delegates: Any) -> tuple[Network, ...]:
    if not isinstance(delegates, list):
        raise InvalidNetworkConfig("delegates: must be a list of network configurations")
    networks = []
    for position, raw in enumerate(delegates):
        where = f"delegates[{position}]"
        if not isinstance(raw, dict):
            raise InvalidNetworkConfig(f"{where}: must be an object")
        config = parse_network_config(raw, where=where)
        networks.append(_network(config.name, config, where=where))
    return tuple(networks)


def _network(name: str, config: NetworkConfigList, *, where: str) -> Network:
    """Return the network; raise InvalidNetworkConfig where one of its plugins is ourselves, which
    would wait for its own sandbox's lock."""
    if any(plugin.type == OWN_TYPE for plugin in config.plugins):
        raise InvalidNetworkConfig(f"{where}: metaplugin can't delegate to itself")
    return Network(name=name, config=config)


async def _cluster_network(reference: str, node: Node) -> Network:
    if reference.startswith("/"):
        config = await node.configurations.at(reference)
        return Network(name=config.name, config=config)
    namespace, _, name = reference.rpartition("/")
    namespace = namespace or node.settings.system_namespace
    if node.cluster and (definition := await node.cluster.definition(namespace, name)):
        return await _defined_network(definition, node)
    if found := await node.configurations.named(name):
        return _network(found.name, found, where=f"clusterNetwork {reference!r}")
    raise InvalidNetworkConfig(
        f"clusterNetwork: {reference!r} is neither a net-attach-def of {namespace} nor the "
        f"name of a configuration on this node"
    )


async def selected_network(
    element: NetworkSelectionElement, reference: PodReference | None, node: Node
) -> Network:
    """Return the network that an element names (NPWG 3.4.1); raise CNIError."""
    node.settings.isolation.require(
        pod_namespace=reference.namespace if reference else "default",
        namespace=element.namespace,
        where=element.where,
    )
    node.settings.policy.require_keys(element.cni_args, where=f"{element.where}.cni-args")
    if node.cluster is None:
        raise InvalidNetworkConfig(
            f"{element.where}: no cluster is configured to look networks up in"
        )
    definition = await node.cluster.definition(element.namespace, element.name)
    if definition is None:
        raise NetworkNotFound(
            f"{element.where}: there is no net-attach-def {element.name!r} in namespace "
            f"{element.namespace!r}",
            details="create it, or correct the pod's annotation",
        )
    require_device(definition, element.device_id, where=element.where)
    return await _defined_network(definition, node)


async def _defined_network(definition: NetworkAttachmentDefinition, node: Node) -> Network:
    name = f"{definition.namespace}/{definition.name}"
    if definition.config:
        config = parse_definition_config(definition)
        namespace = definition.namespace
        node.settings.policy.require(config, namespace=namespace, where=str(definition))
        return _network(name, config, where=str(definition))
    if found := await node.configurations.named(definition.name):
        return _network(name, found, where=str(definition))
    raise InvalidNetworkConfig(
        f"net-attach-def {name} has no spec.config, and no configuration on this node has that name"
    )


def _pod_args(args: CmdArgs, reference: PodReference | None) -> ArgPairs:
    return secondary_args(args) if reference else args.args
