"""A pod's allocation from the kubelet's messages.

Kubelets list the devices of a container in a random order, anew with each answer, and one entry for
each device and NUMA node: here the same allocation always reads the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from metaplugin.attachments.devices import AllocatedDevice, Allocation, ClaimedDevice


def allocation_of(pod: Any, source: str) -> Allocation:
    """Return what a PodResources message says: containers as they are listed, which is the pod's
    order; a container's devices by resource and id, its claims as the pod names them."""
    return Allocation(
        devices=tuple(d for container in pod.containers for d in _devices(container)),
        claimed=tuple(
            device
            for container in pod.containers
            for device in dict.fromkeys(_claimed(container, pod.namespace))
        ),
        source=source,
    )


def in_order(devices: Iterable[AllocatedDevice]) -> tuple[AllocatedDevice, ...]:
    """Return a container's devices in an order that only depends on them: by resource, then id, of
    which shorter ones are first (`vf9`, `vf10`)."""
    return tuple(sorted(devices, key=lambda each: (each.resource, len(each.id), each.id)))


def _devices(container: Any) -> tuple[AllocatedDevice, ...]:
    nodes: dict[tuple[str, str], set[int]] = {}
    for entry in container.devices:
        for device_id in filter(None, entry.device_ids):
            known = nodes.setdefault((entry.resource_name, device_id), set())
            known |= {node.ID for node in entry.topology.nodes}
    return in_order(
        AllocatedDevice(
            id=device_id,
            resource=resource,
            container=container.name,
            numa_nodes=tuple(sorted(numa_nodes)),
        )
        for (resource, device_id), numa_nodes in nodes.items()
        if resource
    )


def _claimed(container: Any, namespace: str) -> Iterator[ClaimedDevice]:
    for claim in container.dynamic_resources:
        if claim.claim_namespace != namespace:
            continue  # a pod's claims are of its own namespace
        by_driver = sorted(claim.claim_resources, key=lambda each: each.driver_name)
        for _, resources in groupby(by_driver, key=lambda each: each.driver_name):
            yield from _claimed_of_driver(container.name, claim.claim_name, resources)


def _claimed_of_driver(
    container: str, claim: str, resources: Iterable[Any]
) -> Iterator[ClaimedDevice]:
    before: list[str] = []
    for resource in resources:
        names = [device.name for device in resource.cdi_devices]
        own = names
        # Kubelets to 1.36 at least put the names of a driver's earlier devices before a device's.
        if before and names[: len(before)] == before:
            own = names[len(before) :]
        before = names
        # Kubelets before 1.31 name no device: each CDI device is taken for one.
        for cdi in [tuple(own)] if resource.device_name else [(name,) for name in own]:
            yield ClaimedDevice(
                claim=claim,
                container=container,
                driver=resource.driver_name,
                pool=resource.pool_name,
                device=resource.device_name,
                cdi=cdi,
            )
