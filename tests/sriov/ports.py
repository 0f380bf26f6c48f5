"""The guest's network cards: their ports (physical functions) and virtual functions, as the kernel
and `ip` show them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.node import ip_json

NETWORK = Path("/sys/class/net")
PCI = Path("/sys/bus/pci")
FUNCTIONS = 4


@dataclass(frozen=True)
class VirtualFunction:
    """A virtual function and where it is told of: `index` at the port of name `port`."""

    port: str
    index: int
    address: str

    @property
    def interface(self) -> str:
        """Return its interface's name on the node; LookupError where there is none."""
        names = sorted(path.name for path in (self.folder / "net").glob("*"))
        if not names:
            raise LookupError(f"{self.address} has no interface here")
        return names[0]

    @property
    def is_here(self) -> bool:
        """Tell whether its interface is in the node's namespace."""
        return any((self.folder / "net").glob("*"))

    @property
    def folder(self) -> Path:
        return PCI / "devices" / self.address

    @property
    def mac(self) -> str:
        (link,) = ip_json("link", "show", self.interface)
        return str(link["address"])

    def at_port(self) -> dict[str, Any]:
        """Return what the port says of it: `address`, `vlan` (0 for none), `spoofchk`…"""
        (link,) = ip_json("-details", "link", "show", self.port)
        entry = dict(link["vfinfo_list"][self.index])
        vlans = entry.get("vlan_list") or [{}]
        return entry | {"vlan": vlans[0].get("vlan", 0)}

    def bind(self, driver: str) -> None:
        """Give it to another driver; return when it has it."""
        (self.folder / "driver_override").write_text(driver)
        (self.folder / "driver" / "unbind").write_text(self.address)
        (PCI / "drivers_probe").write_text(self.address)
        wait_until(lambda: (self.folder / "driver").resolve().name == driver)


@dataclass(frozen=True)
class Port:
    name: str
    functions: tuple[VirtualFunction, ...]


def ports() -> tuple[str, ...]:
    """Return the interfaces that can have virtual functions, () on a machine that has none."""
    found = NETWORK.glob("*/device/sriov_totalvfs")
    return tuple(sorted(path.parent.parent.name for path in found))


def open_port(name: str) -> Port:
    """Switch the port and its virtual functions on."""
    device = NETWORK / name / "device"
    (device / "sriov_numvfs").write_text(str(FUNCTIONS))
    addresses = [(device / f"virtfn{index}").resolve().name for index in range(FUNCTIONS)]
    functions = tuple(VirtualFunction(name, *pair) for pair in enumerate(addresses))
    wait_until(lambda: all(function.is_here for function in functions))
    return Port(name, functions)


def wait_until(holds: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
