"""The host's folders as the daemon's container has them: mounted read-only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubelet.asking import NIC, Asking, device, pod
from tests.kubelet.podresources import FakeKubelet, Pod

pytestmark = pytest.mark.system


@pytest.fixture
def mounted(kubelet: FakeKubelet) -> Iterator[Path]:
    folder = kubelet.socket.parents[1]
    names = (kubelet.socket.parent.name, kubelet.checkpoint.parent.name)
    for name in names:
        (folder / "container" / name).mkdir(parents=True)
        paths = (folder / name, folder / "container" / name)
        subprocess.run(["mount", "--bind", "-o", "ro", *paths], check=True)
    yield folder / "container"
    for name in names:
        subprocess.run(["umount", folder / "container" / name], check=True)


def test_read_only_mounts_of_the_folders_are_enough_and_follow_the_kubelet(
    kubelet: FakeKubelet, mounted: Path
) -> None:
    """deploy/README.md, Devices."""
    socket = mounted / "pod-resources/kubelet.sock"
    checkpoint = mounted / "device-plugins/kubelet_internal_checkpoint"
    with Asking(socket=socket, checkpoint=checkpoint) as asking:
        for n in range(2):
            given = {"app": {NIC: [f"vf{n}"]}}
            kubelet.admit("default", "p", Pod(uid=f"u{n}", containers=given))
            found = asking.allocation(pod(uid=f"u{n}"))
            assert (found.devices, found.source) == ((device(f"vf{n}"),), f"Get at {socket}")
            kubelet.stop()
            assert asking.allocation(pod(uid=f"u{n}")).source == f"checkpoint {checkpoint}"
            kubelet.start()
    with pytest.raises(OSError, match="Read-only"):
        checkpoint.touch()
