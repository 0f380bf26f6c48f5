"""What a real kubelet says of devices while a pod's ADD runs, and around its own end and start
(issue 6)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from metaplugin.attachments.devices import Allocation
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import TryAgainLater
from tests.cluster.machine import until
from tests.cluster.objects import container, pod
from tests.cluster.site import Site, running_site
from tests.controlplane.client import JSONObject
from tests.kubelet.asking import Asking
from tests.kubelet.deviceplugin import DevicePlugin
from tests.kubelet.podresources import Device

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

KUBELET = "/var/lib/kubelet"
NIC = "vendor.example/nic"
DEVICES = [
    *(Device(id=f"0000:3b:02.{n}", numa=(0,)) for n in range(6)),
    Device(id="of-both-nodes", numa=(0, 1)),
    Device(id="of-none"),
]
# A plugin that waits in each ADD until it may go on; its pods have no network.
GATE = """#!/bin/sh
if [ "$CNI_COMMAND" = VERSION ]; then
    echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}'
elif [ "$CNI_COMMAND" = ADD ]; then
    echo "$CNI_ARGS" >> /run/adds
    until [ -e /run/open ]; do sleep 0.05; done
    echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'"$CNI_NETNS"'"}],' \\
        '"ips":[{"address":"10.244.1.9/24","interface":0}]}'
fi
"""


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), nodes=1) as started:
        machine = started.nodes[0].machine
        machine.write("/opt/cni/bin/gate", GATE, 0o755)
        machine.run("cp", "/usr/lib/cni/loopback", "/opt/cni/bin/loopback")
        configuration = {"cniVersion": "1.0.0", "name": "gate", "plugins": [{"type": "gate"}]}
        machine.write("/etc/cni/net.d/10-gate.conflist", json.dumps(configuration))
        started.wait_for_nodes()
        yield started


def has_devices(site: Site) -> bool:
    node = site.admin.get("/api/v1/nodes/node1")
    return str(node["status"].get("allocatable", {}).get(NIC)) == str(len(DEVICES))


def with_devices(name: str, count: int, **keys: object) -> JSONObject:
    return {**container(name), "resources": {"limits": {NIC: str(count)}}, **keys}


def pod_with_devices(name: str) -> JSONObject:
    made = pod(name, node="node1")
    made["spec"]["initContainers"] = [
        with_devices("first", 1, command=["/bin/sh", "-c", ":"]),
        with_devices("side", 1, restartPolicy="Always"),
    ]
    made["spec"]["containers"] = [with_devices("b", 2), with_devices("a", 3)]
    return made


def given(site: Site, container_name: str) -> list[str]:
    """Return what the device plugin has told a container."""
    command = ("exec", "p", "-c", container_name, "--", "/bin/sh", "-c", "echo $DEVICES")
    return site.kubectl(*command).strip().split(",")


def test_devices_are_known_during_add_and_a_restart_makes_none_vanish(site: Site) -> None:
    node = site.nodes[0]
    socket = node.machine.path(f"{KUBELET}/pod-resources/kubelet.sock")
    checkpoint = node.machine.path(f"{KUBELET}/device-plugins/kubelet_internal_checkpoint")
    with (
        DevicePlugin(checkpoint.parent, NIC, DEVICES),
        Asking(socket=socket, checkpoint=checkpoint) as asking,
    ):
        until(lambda: has_devices(site), "the device plugin isn't there")
        site.apply(pod_with_devices("p"))
        until(node.machine.path("/run/adds").exists, "no ADD")
        known = PodReference(namespace="default", name="p", uid=site.pod("p")["metadata"]["uid"])
        during = asking.allocation(known)
        assert during.source == f"Get at {socket}"
        assert [each.container for each in during.devices] == [*("side", "b", "b"), *"aaa"]
        listed = asking.allocations(known, PodReference(namespace="default", name="other"))
        assert listed[0] == Allocation(devices=during.devices, source=f"List at {socket}")
        assert "it is another pod's of that name" in asking.refusal(
            PodReference(namespace="default", name="p", uid="earlier")
        )
        node.machine.write("/run/open", "")
        site.wait_for_pods("p")
        for name in "ba":
            assert given(site, name) == sorted(d.id for d in during.devices if d.container == name)

        assert node.kubelet is not None
        node.kubelet.kill()
        assert asking.allocation(known).source == f"checkpoint {checkpoint}"
        node.start(containerd=False)
        last = time.monotonic() + 10
        while time.monotonic() < last:
            (answer,) = asking.allocations(known)
            assert isinstance(answer, TryAgainLater) or (
                isinstance(answer, Allocation) and set(answer.devices) >= set(during.devices)
            ), answer
