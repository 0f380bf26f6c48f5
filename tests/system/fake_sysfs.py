"""PCI network devices that this kernel doesn't have: a made tree in the place of
/sys/bus/pci/devices, with veth ends posing as the functions' interfaces.

What a real kernel does and this doesn't: a function's `net` folder stays as it is while its
interface is in a pod, and `sriov_numvfs` makes nothing. tests/sriov has real ones.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEVICES = Path("/sys/bus/pci/devices")


class FakeSysfs:
    """The made tree. Whatever starts in the test's mount namespace sees it, plugins too."""

    def __init__(self, root: Path) -> None:
        self.devices = root / "devices"
        self._drivers = root / "drivers"
        self._wires: list[str] = []
        self.devices.mkdir()

    def function(self, address: str, netdev: str = "", *, driver: str, numa_node: int = -1) -> Path:
        """Make a PCI function; its interface is a veth end named `netdev`, none if that is empty.

        Return its folder in the tree, for what a test wants to have there besides."""
        folder = self.devices / address
        folder.mkdir()
        (self._drivers / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(self._drivers / driver)
        (folder / "numa_node").write_text(f"{numa_node}\n")
        (folder / "vendor").write_text("0x8086\n")
        if netdev:
            (folder / "net" / netdev).mkdir(parents=True)
            self._make_link(netdev)
        return folder

    def virtual_function(
        self, address: str, netdev: str = "", *, of: str, driver: str = "igbvf", numa_node: int = -1
    ) -> Path:
        """Make the next virtual function of the physical one at `of`."""
        physical = self.devices / of
        index = len(list(physical.glob("virtfn*")))
        folder = self.function(address, netdev, driver=driver, numa_node=numa_node)
        (folder / "physfn").symlink_to(f"../{of}")
        (physical / f"virtfn{index}").symlink_to(f"../{address}")
        for name in ("sriov_numvfs", "sriov_totalvfs"):
            (physical / name).write_text(f"{index + 1}\n")
        return folder

    def _make_link(self, name: str) -> None:
        wire = f"wire{len(self._wires)}.{name}"[:15]
        command = ["ip", "link", "add", name, "type", "veth", "peer", "name", wire]
        subprocess.run(command, check=True)
        self._wires.append(wire)
        subprocess.run(["ip", "link", "set", wire, "up"], check=True)

    def remove_links(self) -> None:
        """Remove the interfaces, wherever they are: the other ends have never been moved."""
        for wire in self._wires:
            subprocess.run(["ip", "link", "del", wire], check=False, capture_output=True)


@contextmanager
def fake_sysfs() -> Iterator[FakeSysfs]:
    """Put an empty tree over the kernel's, in a mount namespace that isn't the machine's."""
    with tempfile.TemporaryDirectory(prefix="sysfs") as name:
        tree = FakeSysfs(Path(name))
        subprocess.run(["mount", "--bind", tree.devices, DEVICES], check=True)
        try:
            yield tree
        finally:
            tree.remove_links()
            subprocess.run(["umount", "--lazy", DEVICES], check=True)
