"""Where each fact of a plan comes from: the runtime's configuration, the pod, the networks.

The runtime's own word on annotations comes first; the cluster is asked for what it didn't say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metaplugin.attachments.hot_plug import hot_plugged_attachment
from metaplugin.attachments.plan import (
    Network,
    PlannedAttachment,
    Selection,
    chosen_default_attachment,
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
from metaplugin.cni.environment import CmdArgs
from metaplugin.cni.errors import (
    CNIError,
    DelegateError,
    InvalidEnvironment,
    InvalidNetworkConfig,
    TryAgainLater,
)
from metaplugin.commands.networks import (
    always_networks,
    auxiliary_chain,
    default_networks,
    inline_networks,
    pod_namespace,
    selected_network,
)
from metaplugin.commands.outer import OuterConfig
from metaplugin.commands.ports import KnownPod, Node
from metaplugin.npwg.names import require_label, require_subdomain
from metaplugin.npwg.selection import NetworkSelectionElement, parse_networks_annotation

NETWORKS_ANNOTATION = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK_ANNOTATION = "v1.multus-cni.io/default-network"
POD_ANNOTATIONS_CAPABILITY = "io.kubernetes.cri.pod-annotations"


async def plan_attachments(
    args: CmdArgs, outer: OuterConfig, node: Node
) -> tuple[PlannedAttachment, ...]:
    """Return everything that the pod is to be attached to, all of it checked; raise CNIError."""
    reference = required_pod(args, node)
    if outer.name == HOT_PLUG_NETWORK:
        hot_plugged = hot_plugged_attachment(
            outer.raw,
            args,
            namespace=pod_namespace(reference),
            policy=node.settings.policy,
            undeclared=node.settings.undeclared_capabilities,
        )
        return (hot_plugged,)
    annotations = await pod_annotations(reference, outer, node)
    elements = selected_elements(reference, annotations)
    default, inline = await _default_and_inline(args, reference, annotations, outer, node)
    always = await always_networks(reference, outer, node)
    networks = await asyncio.gather(
        *(selected_network(element, reference, outer, node) for element in elements)
    )
    selections = [
        Selection(element=element, network=network)
        for element, network in zip(elements, networks, strict=True)
    ]
    return make_plan(
        default,
        always=[*inline, *always],
        selections=selections,
        args=_pod_args(args, reference),
        auxiliary=await auxiliary_chain(outer, node),
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


def selected_elements(
    reference: PodReference | None, annotations: Mapping[str, Any]
) -> tuple[NetworkSelectionElement, ...]:
    """Return the pod's network selection elements, checked whole (NPWG 4.1)."""
    text = _annotation(annotations, NETWORKS_ANNOTATION)
    return parse_networks_annotation(text, pod_namespace=pod_namespace(reference))


def _annotation(annotations: Mapping[str, Any], key: str) -> str:
    text = annotations.get(key, "")
    if not isinstance(text, str):
        raise InvalidNetworkConfig(f"annotation {key}: must be text")
    return text


async def pod_annotations(
    reference: PodReference | None, outer: OuterConfig, node: Node
) -> Mapping[str, Any]:
    """Return the pod's annotations as the runtime gives them, else as the cluster has them; raise
    CNIError."""
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


async def _default_and_inline(
    args: CmdArgs,
    reference: PodReference | None,
    annotations: Mapping[str, Any],
    outer: OuterConfig,
    node: Node,
) -> tuple[PlannedAttachment, tuple[Network, ...]]:
    """Return the default network's attachment, which the pod may have chosen, and what `delegates`
    adds to it."""
    element = default_element(annotations, namespace=node.settings.system_namespace)
    if element is None:
        first, *inline = await default_networks(outer, node)
        default = default_attachment(
            first, ifname=args.ifname, args=args.args, capability_args=outer.runtime_config
        )
        return default, tuple(inline)
    chosen = Selection(
        element=element, network=await selected_network(element, reference, outer, node)
    )
    default = chosen_default_attachment(
        chosen,
        ifname=args.ifname,
        args=args.args,
        capability_args=outer.runtime_config,
        undeclared=node.settings.undeclared_capabilities,
    )
    return default, inline_networks(outer)[1:]


def default_element(
    annotations: Mapping[str, Any], *, namespace: str
) -> NetworkSelectionElement | None:
    """Return the element of the annotation that chooses another default network for a pod (one of
    `namespace`, unless it names its own), None where there is none; raise CNIError."""
    text = _annotation(annotations, DEFAULT_NETWORK_ANNOTATION)
    where = f"annotation {DEFAULT_NETWORK_ANNOTATION}"
    try:
        elements = parse_networks_annotation(text, pod_namespace=namespace)
    except CNIError as exc:
        raise DelegateError(f"{where}: {exc.msg}", code=exc.code, details=exc.details) from exc
    if len(elements) > 1:
        raise InvalidNetworkConfig(f"{where}: names {len(elements)} networks, may name one")
    return replace(elements[0], where=where) if elements else None


def _pod_args(args: CmdArgs, reference: PodReference | None) -> ArgPairs:
    return secondary_args(args) if reference else args.args
