"""Devices for networks, whatever the kubelet reports and whatever the elements say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metaplugin.attachments.devices import (
    AllocatedDevice,
    Allocation,
    DeviceRequest,
    assign_devices,
)
from metaplugin.cni.errors import InvalidNetworkConfig, TryAgainLater

RESOURCES = st.sampled_from(["r/a", "r/b"])
CONTAINERS = st.sampled_from(["one", "two"])
IDS = st.sampled_from([f"0000:03:10.{n}" for n in range(6)])

ALLOCATIONS = st.lists(
    st.builds(AllocatedDevice, id=IDS, resource=RESOURCES, container=CONTAINERS), max_size=8
)
REQUESTS = st.lists(
    st.none()
    | st.builds(DeviceRequest, where=st.just("w"), network=st.just("n"), resource=RESOURCES)
    | st.builds(
        DeviceRequest,
        where=st.just("w"),
        network=st.just("n"),
        resource=RESOURCES,
        container=CONTAINERS,
    )
    | st.builds(
        DeviceRequest, where=st.just("w"), network=st.just("n"), resource=RESOURCES, device_id=IDS
    ),
    max_size=6,
)


@given(REQUESTS, ALLOCATIONS)
def test_no_device_is_given_twice_and_each_is_what_was_asked_for(
    requests: list[DeviceRequest | None], devices: list[AllocatedDevice]
) -> None:
    allocation = Allocation(devices=tuple(devices))
    try:
        found = assign_devices(requests, allocation)
    except (InvalidNetworkConfig, TryAgainLater):
        return
    assert assign_devices(requests, allocation) == found
    ids = [device.id for device in found if device]
    assert len(ids) == len(set(ids))
    for asked, device in zip(requests, found, strict=True):
        assert (asked is None) == (device is None)
        if asked and device:
            assert device.resource == asked.resource
            assert asked.device_id in ("", device.id)
            having = {
                d.container for d in devices if (d.resource, d.id) == (device.resource, device.id)
            }
            assert not asked.container or asked.container in having


@given(st.lists(IDS, unique=True), st.data())
def test_as_many_networks_as_devices_are_always_served(ids: list[str], data: st.DataObject) -> None:
    """Whatever elements say that is true of some device each, in whatever order they come."""
    containers = [data.draw(st.sets(CONTAINERS, min_size=1)) for _ in ids]
    devices = tuple(
        AllocatedDevice(id=device, resource="r/a", container=container)
        for device, having in zip(ids, containers, strict=True)
        for container in sorted(having)
    )
    requests = []
    for device, having in zip(ids, containers, strict=True):
        said = data.draw(st.sampled_from([{}, {"device_id": device}, {"container": min(having)}]))
        requests.append(DeviceRequest(where="w", network="n", resource="r/a", **said))
    shuffled = data.draw(st.permutations(requests))
    found = assign_devices(shuffled, Allocation(devices=devices))
    assert sorted(device.id for device in found if device) == sorted(ids)
