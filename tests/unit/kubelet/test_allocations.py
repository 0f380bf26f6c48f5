"""From the kubelet's messages to an allocation, whatever their order."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from metaplugin.kubelet.allocations import allocation_of
from metaplugin.kubelet.messages import message_classes

MESSAGES = message_classes()
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["a/nic", "b/nic", ""]),
        st.lists(st.sampled_from(["vf1", "vf2", "vf10", ""]), max_size=3),
        st.lists(st.integers(min_value=0, max_value=3), max_size=2),
    ),
    max_size=8,
)


@given(entries=ENTRIES, seed=st.integers())
def test_the_order_of_entries_does_not_matter_and_no_device_is_twice(
    entries: list[tuple[str, list[str], list[int]]], seed: int
) -> None:
    shuffled = random.Random(seed).sample(entries, len(entries))
    first, second = (
        MESSAGES["PodResources"](
            containers=[
                {
                    "name": "c",
                    "devices": [
                        {
                            "resource_name": resource,
                            "device_ids": ids,
                            "topology": {"nodes": [{"ID": node} for node in nodes]},
                        }
                        for resource, ids, nodes in order
                    ],
                }
            ]
        )
        for order in (entries, shuffled)
    )
    found = allocation_of(first, "").devices
    assert found == allocation_of(second, "").devices
    names = [(device.resource, device.id) for device in found]
    expected = {(resource, each) for resource, ids, _ in entries for each in ids}
    assert len(names) == len(set(names))
    assert set(names) == {(resource, each) for resource, each in expected if resource and each}
    nodes = {
        (r, i): {n for r2, ids, ns in entries if r2 == r and i in ids for n in ns} for r, i in names
    }
    assert [set(device.numa_nodes) for device in found] == [nodes[name] for name in names]


def test_fields_that_are_not_known_are_passed_over() -> None:
    """cpu_ids and memory, and what later kubelets add."""
    content = MESSAGES["PodResources"](name="p", containers=[{"name": "c"}]).SerializeToString()
    content += b"\xa2\x06\x03abc"  # field 100
    assert MESSAGES["PodResources"].FromString(content).containers[0].name == "c"


def test_a_claim_of_another_namespace_gives_the_pod_nothing() -> None:
    """A claim's name is looked up in the pod's namespace, where another may have it."""
    device = {"driver_name": "d", "pool_name": "n", "device_name": "0"}
    claims = [
        {"claim_name": "c", "claim_namespace": namespace, "claim_resources": [device]}
        for namespace in ("theirs", "ours")
    ]
    container = {"name": "app", "dynamic_resources": claims}
    pod = MESSAGES["PodResources"](name="p", namespace="ours", containers=[container])
    assert [each.claim for each in allocation_of(pod, "").claimed] == ["c"]
    theirs = MESSAGES["PodResources"](name="p", namespace="none", containers=[container])
    assert allocation_of(theirs, "").claimed == ()
