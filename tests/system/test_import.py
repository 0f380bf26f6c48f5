"""Pods that Multus attached: imported, then checked and deleted by our shim."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path

import pytest

from metaplugin.attachments.devices import AssignedDevice
from metaplugin.attachments.record import decode_stored_record
from tests.system import multus
from tests.system.node import CLI, Node, bridge_network, macvlan_network, noop_network

pytestmark = pytest.mark.system


def import_cache(node: Node, cache: Path, *options: str) -> str:
    node.write_config()
    command = [*CLI, "migrate", "--import-cache", "--cni-dir", str(cache), *options]
    command += ["--config", str(node.root / "daemon.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("served", [True, False], ids=["daemon", "shim alone"])
def test_pods_of_multus_are_checked_and_deleted_after_the_switch(
    idle_node: Node, *, served: bool
) -> None:
    """MULTUS-19, MULTUS-26: bridge, macvlan and a hot-plugged interface; nothing is left."""
    node, cache = idle_node, idle_node.root / "multus"
    pod = node.pod()
    links = node.host_links()
    macvlan = macvlan_network(node.root) | {"name": "macvlan-conf"}
    networks = {"cbr0": bridge_network(node.root), "default/macvlan": macvlan}
    multus.attach(node, pod, cache, networks)
    second = macvlan_network(node.root, "10.92.0.0/24") | {"name": "second"}
    multus.hot_plug(node, pod, cache, second, "hot0")
    assert node.pod_links(pod) == {"eth0", "net1", "hot0"}
    before = snapshot(cache)

    text = import_cache(node, cache)
    assert "1 imported, 0 not" in text
    assert "second (hot0) was hot-plugged" in text
    assert node.records() == [f"{pod.container_id}@eth0"]
    assert node.locks() == []
    if served:
        node.start()
        assert node.call("CHECK", pod).exit_code == 0
        subprocess.run(["ip", "-n", pod.netns.name, "link", "set", "net1", "down"], check=True)
        subprocess.run(["ip", "-n", pod.netns.name, "addr", "flush", "net1"], check=True)
        assert node.call("CHECK", pod).exit_code == 1
    assert node.delete(pod).exit_code == 0
    assert node.pod_links(pod) == set()
    assert node.host_links() == links
    assert node.records() == node.leases() == []

    assert "metaplugin has deleted it already" in import_cache(node, cache)
    assert node.records() == []
    assert snapshot(cache) == before


def test_an_imported_del_gets_what_the_add_had(recording_node: Node) -> None:
    """MULTUS-26: the whole configuration (Multus's own copy loses keys), prevResult, CNI_ARGS."""
    node, cache = recording_node, recording_node.root / "multus"
    pod = node.pod()
    config = noop_network(node.root, "default-net", capabilities={"portMappings": True})
    multus.attach(node, pod, cache, {"default-net": config})
    (path,) = (cache / "results").iterdir()
    ports = [{"hostPort": 80, "containerPort": 8080}]
    cached = json.loads(path.read_text()) | {"capabilityArgs": {"portMappings": ports}}
    path.write_text(json.dumps(cached))
    import_cache(node, cache)
    assert node.delete(pod).exit_code == 0
    added, deleted = node.noop_calls()
    assert deleted["env"] == added["env"] | {"CNI_COMMAND": "DEL"}
    expected = json.loads(added["stdin"]) | {"prevResult": cached["result"]}
    expected["runtimeConfig"] = {"portMappings": ports}
    assert json.loads(deleted["stdin"]) == {
        key: value for key, value in expected.items() if key != "capabilities"
    }


def test_a_device_stays_known_to_be_an_imported_pods(recording_node: Node) -> None:
    """Issue 6: it is in Multus's configuration; CHECK can't know of an interface of it."""
    node, cache = recording_node, recording_node.root / "multus"
    pod = node.pod()
    config = noop_network(node.root, "default-net", deviceID="0000:03:10.0")
    multus.attach(node, pod, cache, {"default-net": config})
    import_cache(node, cache)
    content = (node.root / "state" / "attachments" / node.records()[0]).read_bytes()
    (made,) = decode_stored_record(content).record.attachments
    assert made.planned.device == AssignedDevice(id="0000:03:10.0")
    assert not made.in_kernel


def test_importing_twice_changes_nothing(recording_node: Node) -> None:
    """MULTUS-19: a record that is there is never replaced."""
    node, cache = recording_node, recording_node.root / "multus"
    pod = node.pod()
    multus.attach(node, pod, cache, {"default-net": noop_network(node.root)})
    import_cache(node, cache)
    records = snapshot(node.root / "state" / "attachments")
    assert len(records) == 1
    assert "it has a record already" in import_cache(node, cache)
    assert snapshot(node.root / "state" / "attachments") == records


def test_what_cannot_be_imported_is_named_with_the_reason(recording_node: Node) -> None:
    """MULTUS-19: the rest is imported all the same."""
    node, cache = recording_node, recording_node.root / "multus"
    pods = [node.pod() for _ in range(7)]
    fine, gone, torn, failed, busy, process, orphan = pods
    for pod in pods:
        multus.attach(node, pod, cache, {"default-net": noop_network(node.root)})
    subprocess.run(["ip", "netns", "del", gone.netns.name], check=True)
    (cache / torn.container_id).write_text('[{"Name": "def')
    (cache / "results" / f"noop-{failed.container_id}-eth0").unlink()
    path = cache / "results" / f"noop-{process.container_id}-eth0"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"netns": "/proc/1/ns/net"}))
    (cache / orphan.container_id).unlink()
    (node.root / "run" / "locks").mkdir(exist_ok=True)
    with (node.root / "run" / "locks" / busy.container_id).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = import_cache(node, cache).splitlines()
    said = {line.split(":")[0]: line for line in lines}
    assert node.records() == [f"{fine.container_id}@eth0"]
    assert lines[-1] == "1 imported, 6 not"
    assert "is gone" in said[gone.container_id]
    assert "no JSON" in said[torn.container_id]
    assert "its ADD failed, or its DEL has been done" in said[failed.container_id]
    assert "something runs for it now" in said[busy.container_id]
    assert "may be another by now" in said[process.container_id]
    assert "a DEL was interrupted" in said[orphan.container_id]


def test_what_multus_left_of_a_sandbox_that_is_gone_is_released(node: Node) -> None:
    """MULTUS-27: imported on request, the next clean-up runs its DEL."""
    cache = node.root / "multus"
    pod, other = node.pod(), node.pod()
    multus.attach(node, pod, cache, {"cbr0": bridge_network(node.root)})
    subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    assert len(node.leases()) == 1
    assert "1 imported" in import_cache(node, cache, "--gone")
    assert node.add(other).exit_code == 0  # the first request of a daemon's life is the clean-up's
    node.wait_for_records(1)
    assert node.delete(other).exit_code == 0
    assert node.leases() == []
