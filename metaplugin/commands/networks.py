"""The networks that attachments are made to: the default one, those of every pod, a pod's own."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from metaplugin.attachments.plan import Network
from metaplugin.attachments.runtime_conf import DEFAULT_NAMESPACE, PodReference
from metaplugin.cni.configuration import NetworkConfigList, parse_network_config
from metaplugin.cni.errors import InvalidNetworkConfig, NetworkNotFound, TryAgainLater
from metaplugin.commands.multus_form import MultusForm, parse_multus_form
from metaplugin.commands.outer import OuterConfig
from metaplugin.commands.ports import Node
from metaplugin.npwg.definition import (
    NetworkAttachmentDefinition,
    parse_definition_config,
)
from metaplugin.npwg.selection import NetworkSelectionElement

log = logging.getLogger(__name__)

PASSTHRU = "passthru"  # the shim is this plugin, too: a result for others to be chained to


def configured(outer: OuterConfig, node: Node) -> Node:
    """Return the node with the settings of this request: keys of Multus in the runtime's
    configuration lie over the daemon's own. Raise InvalidNetworkConfig."""
    form = parse_multus_form(outer.raw)
    if form is None:
        return node
    if form.kubeconfig and node.cluster is None:
        raise InvalidNetworkConfig(
            "kubeconfig: metaplugin's own configuration names no cluster, and pods' networks would "
            "be left out",
            details=f"set kubernetes: {{kubeconfig: {form.kubeconfig}}} in metaplugin's "
            "configuration",
        )
    settings = form.over(node.settings)
    if outer.name not in node.told:
        node.told.add(outer.name)
        _tell(outer.name, form, isolated=settings.isolation.enabled)
    return replace(node, settings=settings)


def _tell(name: str, form: MultusForm, *, isolated: bool) -> None:
    log.warning(
        "configuration in Multus's form: its defaults hold where the daemon's file is silent",
        extra={
            "network": name,
            "namespace_isolation": isolated,
            "unused_keys": ", ".join(form.unused),
        },
    )


async def default_networks(outer: OuterConfig, node: Node) -> tuple[Network, ...]:
    """Return the cluster-wide default network, and what `delegates` adds to it for every pod; raise
    CNIError."""
    if inline := inline_networks(outer):
        return inline
    reference = node.settings.cluster_network
    if not reference:
        raise InvalidNetworkConfig(
            "no default network is configured",
            details="set clusterNetwork in metaplugin's configuration",
        )
    return (await _referenced(reference, "clusterNetwork", outer, node),)


def inline_networks(outer: OuterConfig) -> tuple[Network, ...]:
    """Return the networks of `delegates`, which clusterNetwork beside them replaces; raise
    CNIError."""
    delegates = outer.raw.get("delegates")
    if not delegates or outer.raw.get("clusterNetwork"):
        return ()
    if not isinstance(delegates, list):
        raise InvalidNetworkConfig("delegates: must be a list of network configurations")
    return tuple(
        _inline_network(raw, f"delegates[{position}]", outer)
        for position, raw in enumerate(delegates)
    )


def _inline_network(raw: Any, where: str, outer: OuterConfig) -> Network:
    if not isinstance(raw, dict):
        raise InvalidNetworkConfig(f"{where}: must be an object")
    config = parse_network_config(raw, where=where)
    return _network(config.name, config, where, outer)


def _network(
    name: str, config: NetworkConfigList, where: str, outer: OuterConfig, *, resource: str = ""
) -> Network:
    """Return the network; raise InvalidNetworkConfig where one of its plugins is ourselves, which
    would wait for its own sandbox's lock."""
    if any(plugin.type in outer.own_types for plugin in config.plugins):
        raise InvalidNetworkConfig(f"{where}: metaplugin can't delegate to itself")
    return Network(name=name, config=config, resource=resource)


async def always_networks(
    reference: PodReference | None, outer: OuterConfig, node: Node
) -> tuple[Network, ...]:
    """Return the `defaultNetworks`, of which pods of system namespaces get none; raise CNIError."""
    if pod_namespace(reference) in node.settings.system_namespaces:
        return ()
    names = enumerate(node.settings.default_networks)
    return tuple(
        [await _referenced(name, f"defaultNetworks[{i}]", outer, node) for i, name in names]
    )


async def _referenced(reference: str, where: str, outer: OuterConfig, node: Node) -> Network:
    """Return the network that an operator names: by net-attach-def, configuration or path."""
    settings = node.settings
    if not reference.isprintable():  # a NUL or half a surrogate pair would be no path, and no name
        raise InvalidNetworkConfig(f"{where}: {reference[:100]!a} is no name and no path")
    if reference.startswith("/"):
        config = await node.configurations.at(reference, own=outer.output_types)
        return _network(config.name, config, f"{where} {reference!r}", outer)
    namespace, _, name = reference.rpartition("/")
    namespace, only_name = namespace or settings.system_namespace, not namespace
    definition, unknown = None, None
    try:
        definition = await node.cluster.definition(namespace, name) if node.cluster else None
    except TryAgainLater as exc:
        if not only_name:
            raise
        unknown = exc  # a file needs no cluster, which may be waiting for this very pod
    if definition:
        return await _defined_network(definition, outer, node)
    if found := await node.configurations.named(name, folder=settings.conf_dir):
        return _network(found.name, found, f"{where} {reference!r}", outer)
    raise unknown or InvalidNetworkConfig(
        f"{where}: {reference!r} is neither a net-attach-def of {namespace} nor the name of a "
        f"configuration in {settings.conf_dir}"
    )


async def selected_network(
    element: NetworkSelectionElement,
    reference: PodReference | None,
    outer: OuterConfig,
    node: Node,
) -> Network:
    """Return the network that an element names (NPWG 3.4.1); raise CNIError."""
    node.settings.isolation.require(
        pod_namespace=pod_namespace(reference), namespace=element.namespace, where=element.where
    )
    node.settings.policy.require_keys(element.cni_args, where=f"{element.where}.cni-args")
    if node.cluster is None:
        raise InvalidNetworkConfig(
            f"{element.where}: no cluster is configured to look networks up in",
            details="set kubernetes or manifests in the daemon's file",
        )
    definition = await node.cluster.definition(element.namespace, element.name)
    if definition is None:
        raise NetworkNotFound(
            f"{element.where}: there is no net-attach-def {element.name!r} in namespace "
            f"{element.namespace!r}",
            details="create it, or correct the pod's annotation",
        )
    return await _defined_network(definition, outer, node)


async def _defined_network(
    definition: NetworkAttachmentDefinition, outer: OuterConfig, node: Node
) -> Network:
    name = f"{definition.namespace}/{definition.name}"
    if definition.config:
        config = parse_definition_config(definition)
        node.settings.policy.require(config, namespace=definition.namespace, where=str(definition))
        return _network(name, config, str(definition), outer, resource=definition.resource_name)
    folder = node.settings.conf_dir
    if found := await node.configurations.named(definition.name, folder=folder):
        return _network(name, found, str(definition), outer, resource=definition.resource_name)
    raise InvalidNetworkConfig(
        f"net-attach-def {name} has no spec.config, and no configuration in {folder} has that name"
    )


async def auxiliary_chain(outer: OuterConfig, node: Node) -> Network | None:
    """Return the chain that runs for every pod after its networks: the plugins of the folder named
    after it, beside the default network's configuration. Raise CNIError; None without any."""
    name = node.settings.auxiliary_chain
    if not name:
        return None
    plugins = await node.configurations.plugins(f"{_chains_folder(outer, node)}/{name}")
    if not plugins:
        return None
    raw = {
        "cniVersion": outer.cni_version,
        "name": name,
        "disableCheck": True,  # its interface need not exist; tuning, say, looks for it
        "plugins": [{"type": PASSTHRU}, *(plugin.raw for plugin in plugins)],
    }
    config = parse_network_config(raw, where=f"auxiliary chain {name}")
    return _network(name, config, f"auxiliary chain {name}", outer)


def _chains_folder(outer: OuterConfig, node: Node) -> str:
    reference = node.settings.cluster_network
    if not reference.startswith("/") or inline_networks(outer):
        return node.settings.conf_dir
    is_file = reference.endswith((".conf", ".conflist", ".json"))
    return reference.rpartition("/")[0] if is_file else reference


def pod_namespace(reference: PodReference | None) -> str:
    """Return the namespace whose rights a pod has."""
    return reference.namespace if reference else DEFAULT_NAMESPACE
