"""The kubelet in the daemon: what its configuration may say, and that grpc is imported late."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from metaplugin.attachments.devices import ClaimedDevice, ResolvedDevice
from metaplugin.cni.errors import TryAgainLater
from metaplugin.daemon.cluster import MemoryAlone
from metaplugin.daemon.config import ConfigurationError, load_config
from metaplugin.state.database import StateDatabase
from tests.kubelet.asking import NIC, pod
from tests.kubelet.podresources import FakeKubelet, Pod

ASKS = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.daemon.app import wire
from metaplugin.daemon.cluster import NoCluster
from metaplugin.daemon.config import load_config
from metaplugin.state.records import RecordFolder
import metaplugin.k8s.connection, metaplugin.standalone

HEAVY = {"grpc", "google.protobuf"}

async def main():
    with ThreadPoolExecutor() as disk:
        config = load_config(Path(sys.argv[1]))
        node = wire(config, NoCluster(), RecordFolder(config.state_dir, disk), disk)
        print(sorted(HEAVY & sys.modules.keys()))
        found = await node.kubelet.allocation(PodReference(namespace="default", name="p"))
        print([device.id for device in found.devices], sorted(HEAVY & sys.modules.keys()))

asyncio.run(main())
"""


def configuration(folder: Path, text: str) -> Path:
    path = folder / "daemon.yaml"
    path.write_text(text)
    return path


def test_grpc_is_imported_when_a_pods_devices_are_first_asked_for(
    kubelet: FakeKubelet, tmp_path: Path
) -> None:
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
    path = configuration(
        tmp_path, f"kubelet: {{socket: {kubelet.socket}, checkpoint: {kubelet.checkpoint}}}\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", ASKS, str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.stdout.splitlines() == ["[]", "['a'] ['google.protobuf', 'grpc']"]
    assert finished.stderr == ""  # grpc's core has lines of its own


def test_the_kubelets_usual_places_are_the_defaults(tmp_path: Path) -> None:
    """DEV-1: the folder of device information, too, which device plugins and others share."""
    config = load_config(configuration(tmp_path, ""))
    assert str(config.device_info_dir) == "/var/run/k8s.cni.cncf.io/devinfo"
    kubelet = config.kubelet
    assert str(kubelet.socket) == "/var/lib/kubelet/pod-resources/kubelet.sock"
    assert str(kubelet.checkpoint) == (
        "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kubelet: {sock: /x}\n", "kubelet.sock: unknown key; the nearest known one is 'socket'"),
        ("kubelet: {socket: x}\n", "kubelet.socket: must be an absolute path"),
        ("kubelet: {checkpoint: x}\n", "kubelet.checkpoint: must be an absolute path"),
        ("kubelet: {timeoutSeconds: 0}\n", "kubelet.timeoutSeconds"),
        ("kubelet: {timeoutSeconds: 60}\n", "kubelet.timeoutSeconds"),
    ],
)
def test_a_mistake_in_its_section_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config(configuration(tmp_path, text))
    assert message in str(caught.value)


def test_claims_of_a_cluster_without_credentials_are_what_a_daemon_was_told(tmp_path: Path) -> None:
    """Where they could be guessed (`claims` None) there is no API server."""
    claimed = ClaimedDevice(claim="c", container="app", driver="d", pool="p", device="x")
    told = ResolvedDevice(claimed=claimed, id="0000:03:10.0")
    known = replace(pod(), uid="u")

    async def ask() -> None:
        state = StateDatabase(tmp_path / "state.db")
        await state.open()
        side = MemoryAlone(state, "kubernetes: no usable credentials")
        state.learn_claimed_devices(known, [told])
        try:
            assert await side.claims.resolve(known, [claimed]) == (told,)
            with pytest.raises(TryAgainLater, match="default/p: c: not known: kubernetes: no usab"):
                await side.claims.resolve(replace(known, uid="later"), [claimed])
        finally:
            await state.close()

    asyncio.run(ask())
