"""What a real kubelet says of devices is what tests/kubelet's says, to which everything else of
devices is held."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cluster.devices import FOLDER, RESOURCE, SOCKET, ask, named, offered, using
from tests.cluster.machine import until
from tests.cluster.metaplugin import Installed
from tests.cluster.node import Node
from tests.cluster.objects import pod
from tests.cluster.site import Site
from tests.kubelet.podresources import BURST, Device, FakeKubelet, Pod, Resources

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

DEVICES = [
    Device(id="0000:03:02.0", numa=(0,)),
    Device(id="0000:03:02.1", numa=(0,)),
    Device(id="0000:03:02.2", numa=(1,)),
    Device(id="0000:03:02.3", numa=(0, 1)),
    Device(id="0000:03:02.4"),
]


@pytest.fixture
def node(installed: Installed) -> Iterator[Node]:
    """A node with `DEVICES`."""
    site, node = installed.site, installed.site.nodes[0]
    with offered(site, node, DEVICES):
        yield node
        site.clear()


Entry = tuple[str, tuple[str, ...], tuple[int, ...]]


def containers(answer: Any) -> list[tuple[str, list[Entry]]]:
    """Return the containers in the answer's order, the entries of each sorted."""
    return [(each.name, sorted(map(entry, each.devices))) for each in answer.containers]


def entry(devices: Any) -> Entry:
    nodes = tuple(node.ID for node in devices.topology.nodes)
    return devices.resource_name, tuple(devices.device_ids), nodes


def checkpoint(path: Path) -> list[tuple[Any, ...]]:
    """Return pod, container, resource and devices by NUMA node of each entry, sorted."""
    entries = json.loads(path.read_text())["Data"]["PodDeviceEntries"] or ()
    return sorted(
        (
            each["PodUID"],
            each["ContainerName"],
            each["ResourceName"],
            sorted((node, sorted(ids)) for node, ids in each["DeviceIDs"].items()),
        )
        for each in entries
    )


def given(site: Site, name: str, of: str) -> list[Device]:
    """Return the devices that a container was given, as its environment says."""
    ids = site.execute(name, "sh", "-c", "echo $DEVICES", container=of).strip().split(",")
    return [device for device in DEVICES if device.id in ids]


def test_a_kubelet_answers_as_ours_does(installed: Installed, node: Node, tmp_path: Path) -> None:
    """Entries for each device and NUMA node; init containers in the checkpoint alone; the order of
    containers is the pod's."""
    site = installed.site
    init = using(1, "init") | {"command": ["/bin/sh", "-c", "echo $DEVICES"]}
    site.apply(pod("p", containers=[using(2, "z"), using(3, "a")], initContainers=[init]))
    site.wait_for_pods("p")
    own = {of: {RESOURCE: given(site, "p", of)} for of in ("z", "a")}
    assert sorted(len(each[RESOURCE]) for each in own.values()) == [2, 3]
    first = site.kubectl("logs", "p", "-c", "init").strip()
    fake = FakeKubelet(tmp_path)
    uid = site.pod("p")["metadata"]["uid"]
    earlier: Resources = {RESOURCE: [each for each in DEVICES if each.id == first]}
    fake.admit("default", "p", Pod(uid=uid, containers=own, init={"init": earlier}))
    with fake:
        sockets = (node.machine.path(SOCKET), fake.socket)
        listed = [ask(socket, "List").pod_resources[0] for socket in sockets]
        got = [ask(socket, "Get", **named("p")).pod_resources for socket in sockets]
    for answer in (*listed, *got):
        assert (answer.name, answer.namespace) == ("p", "default")
        assert containers(answer) == containers(got[0])
    files = (node.machine.path(f"{FOLDER}/kubelet_internal_checkpoint"), fake.checkpoint)
    real, ours = map(checkpoint, files)
    assert real == ours


def test_a_kubelet_refuses_as_ours_does(node: Node, tmp_path: Path) -> None:
    """A pod that it doesn't know; more questions than it takes at once."""
    with FakeKubelet(tmp_path) as fake:
        for path in (node.machine.path(SOCKET), fake.socket):
            with pytest.raises(grpc.RpcError) as raised:
                ask(path, "Get", **named("p"))
            assert raised.value.code() == grpc.StatusCode.UNKNOWN
            assert "pod p in namespace default not found" in raised.value.details()
            assert grpc.StatusCode.RESOURCE_EXHAUSTED in {outcome(path) for _ in range(5 * BURST)}


def outcome(path: Path) -> grpc.StatusCode:
    try:
        ask(path, "List")
    except grpc.RpcError as refused:
        return refused.code()
    return grpc.StatusCode.OK


def test_a_kubelet_knows_devices_after_its_restart(installed: Installed, node: Node) -> None:
    """At once, before the plugin has registered again."""
    site = installed.site
    site.apply(pod("p", containers=[using(2)]))
    site.wait_for_pods("p")
    before = containers(ask(node.machine.path(SOCKET), "List").pod_resources[0])
    assert node.kubelet is not None
    node.kubelet.kill()
    node.start(containerd=False)
    until(lambda: outcome_of_get(node) == before, "the devices are forgotten")


def outcome_of_get(node: Node) -> object:
    try:
        answer = ask(node.machine.path(SOCKET), "Get", **named("p"))
    except grpc.RpcError as refused:
        return refused
    return containers(answer.pod_resources)
