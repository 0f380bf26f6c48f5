"""Where a program runs: what its plugins would make goes to its network namespace, what they write
below its root."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from metaplugin.cni.errors import InvalidEnvironment

_Identity = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """A process's network namespace and root folder, by device and inode."""

    network: _Identity
    root: _Identity


def surroundings(pid: int) -> Surroundings | None:
    """Return a process's surroundings, None where we can't see it: it is outside of our container,
    or gone."""
    try:
        network, root = os.stat(f"/proc/{pid}/ns/net"), os.stat(f"/proc/{pid}/root")
    except OSError:
        return None
    return Surroundings(network=(network.st_dev, network.st_ino), root=(root.st_dev, root.st_ino))


@dataclass(slots=True)
class RuntimePlace:
    """Where the runtime's shims were seen to run, so that those we start run nowhere else."""

    _seen: list[Surroundings | None] = field(default_factory=list)

    def note(self, pid: int) -> None:
        """Take the place of a shim that the runtime started."""
        self._seen = [surroundings(pid)]

    def require(self, pid: int) -> None:
        """Raise InvalidEnvironment when a shim of ours runs elsewhere than the runtime's do: its
        plugins would make their interfaces in the wrong place. Before a runtime has been seen
        nothing speaks against what the configuration says."""
        for seen in self._seen:
            if seen is None or surroundings(pid) != seen:
                raise InvalidEnvironment(
                    "hot-plug: the daemon's shim does not run where the runtime's do; nothing was "
                    "changed",
                    details="run the daemon in the host's network namespace and on its root, or "
                    "have delegateApi.shim enter them (deploy/README.md: Hot-plug)",
                )
