"""The kubelet's checkpoint in both of its forms, as kubelets write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaplugin.attachments.devices import AllocatedDevice
from metaplugin.kubelet.checkpoint import Checkpoint, CheckpointUnreadable

UID = "6f2d8a0e-5d0f-4f3b-9c41-2f1f0a1b7c55"
OTHER = "11111111-2222-3333-4444-555555555555"
NIC = "intel.com/sriov_netdevice"

# Kubernetes 1.20 and later; -1 is a device for which the plugin told no NUMA node.
BY_NODE = """{"Data":{"PodDeviceEntries":[
{"PodUID":"OTHER","ContainerName":"app","ResourceName":"intel.com/sriov_netdevice",
 "DeviceIDs":{"0":["0000:3b:02.7"]},"AllocResp":"CjwKF1BDSURFVklDRV8="},
{"PodUID":"UID","ContainerName":"zeta","ResourceName":"vendor.com/gpu",
 "DeviceIDs":{"-1":["gpu-10","gpu-9"]},"AllocResp":""},
{"PodUID":"UID","ContainerName":"app","ResourceName":"intel.com/sriov_netdevice",
 "DeviceIDs":{"0":["0000:3b:02.5"],"1":["0000:3b:02.1","0000:3b:02.5"]},"AllocResp":"Cg=="}
],"RegisteredDevices":{"intel.com/sriov_netdevice":["0000:3b:02.1","0000:3b:02.5"]}},
"Checksum":3384286391}""".replace('"UID"', f'"{UID}"').replace("OTHER", OTHER)
# Up to 1.19.
LIST = """{"Data":{"PodDeviceEntries":[
{"PodUID":"UID","ContainerName":"app","ResourceName":"intel.com/sriov_netdevice",
 "DeviceIDs":["0000:3b:02.5","0000:3b:02.1"],"AllocResp":"Cg=="}],
"RegisteredDevices":{}},"Checksum":1}""".replace('"UID"', f'"{UID}"')
EMPTY = '{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":2}'


def device(device_id: str, *numa_nodes: int, resource: str = NIC, container: str = "app") -> Any:
    return AllocatedDevice(
        id=device_id, resource=resource, container=container, numa_nodes=numa_nodes
    )


def devices(folder: Path, text: str, uid: str = UID) -> tuple[AllocatedDevice, ...]:
    path = folder / "kubelet_internal_checkpoint"
    path.write_text(text)
    return Checkpoint(path).devices(uid)


def test_devices_are_of_all_numa_nodes(tmp_path: Path) -> None:
    assert devices(tmp_path, BY_NODE) == (
        device("0000:3b:02.1", 1),
        device("0000:3b:02.5", 0, 1),
        device("gpu-9", resource="vendor.com/gpu", container="zeta"),
        device("gpu-10", resource="vendor.com/gpu", container="zeta"),
    )


def test_the_older_form_is_read(tmp_path: Path) -> None:
    assert devices(tmp_path, LIST) == (device("0000:3b:02.1"), device("0000:3b:02.5"))


@pytest.mark.parametrize("text", [BY_NODE, LIST, EMPTY])
def test_a_pod_that_is_not_there_has_none(tmp_path: Path, text: str) -> None:
    assert devices(tmp_path, text, uid="6f2d8a0e") == ()


def test_other_pods_entries_may_be_anything(tmp_path: Path) -> None:
    document = json.loads(LIST)
    document["Data"]["PodDeviceEntries"] += [None, 1, {"PodUID": OTHER, "DeviceIDs": 7}]
    assert len(devices(tmp_path, json.dumps(document))) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "content: empty"),
        (BY_NODE[:200], "content: no JSON"),
        ("[]", "content: must be a JSON object"),
        ("{}", "Data: must be an object"),
        ('{"Data":{"PodDeviceEntries":{"a":1}}}', "Data.PodDeviceEntries: must be a list"),
        (LIST.replace('"ContainerName":"app",', ""), "PodDeviceEntries[0].ContainerName: Field"),
        (LIST.replace('["0000:3b:02.5",', "[5,"), "PodDeviceEntries[0].DeviceIDs"),
        (BY_NODE.replace('"-1"', '"x"'), "PodDeviceEntries[1].DeviceIDs"),
    ],
)
def test_what_can_not_be_read_says_where(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(CheckpointUnreadable) as caught:
        devices(tmp_path, text)
    assert problem in str(caught.value)


@pytest.mark.parametrize("what", ["nothing", "folder"])
def test_what_is_no_file_is_unreadable(tmp_path: Path, what: str) -> None:
    path = tmp_path if what == "folder" else tmp_path / "nothing"
    with pytest.raises(CheckpointUnreadable, match="can't be read: "):
        Checkpoint(path).devices(UID)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([UID, "a", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0", "-1", "x", "PodUID"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ENTRIES = st.fixed_dictionaries(
    {"PodUID": st.just(UID)},
    optional={"ContainerName": VALUES, "ResourceName": VALUES, "DeviceIDs": VALUES},
)


@given(entries=st.lists(ENTRIES | VALUES, max_size=4))
def test_odd_entries_are_devices_or_unreadable(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Any]
) -> None:
    text = json.dumps({"Data": {"PodDeviceEntries": entries}})
    try:
        found = devices(tmp_path_factory.getbasetemp(), text)
    except CheckpointUnreadable:
        return
    assert all(type(each.id) is type(each.container) is str for each in found)
