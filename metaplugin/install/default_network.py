"""The default network that our configuration for the runtime stands before, as ADD would find it,
or as a node's disk alone says."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from metaplugin.cni.configuration import NetworkConfigList
from metaplugin.cni.raw import dump
from metaplugin.commands.networks import default_networks
from metaplugin.commands.outer import OWN_TYPE, OuterConfig, parse_outer_config
from metaplugin.commands.ports import Node
from metaplugin.folder.configurations import ConfigurationFiles
from metaplugin.install.conflist import CNI_VERSION, conflist

ASKED_EVERY_S = 60  # a net-attach-def that isn't watched costs the API server a request


@dataclass(slots=True)
class DefaultNetwork:
    """What to write for the runtime, for as long as a daemon runs."""

    node: Node
    name: str
    now: Callable[[], float] = time.monotonic
    _made: bytes = b""
    _asked: float = float("-inf")

    async def configuration(self) -> bytes:
        """Return our configuration over the default network's; raise CNIError."""
        on_disk = self.node.settings.cluster_network.startswith("/")
        if not on_disk and self._made and self.now() - self._asked < ASKED_EVERY_S:
            return self._made
        default, *_ = await default_networks(_outer(self.name), self.node)
        self._made, self._asked = conflist(default.config, self.name), self.now()
        return self._made


def _outer(name: str) -> OuterConfig:
    """Return the configuration as the runtime would hand it over."""
    return parse_outer_config(dump({"cniVersion": CNI_VERSION, "name": name, "type": OWN_TYPE}))


async def network_on_disk(
    reference: str, conf_dir: Path, here: Callable[[Path], Path], disk: Executor
) -> NetworkConfigList | None:
    """Return the default network that an operator names, None where the cluster alone knows it;
    raise CNIError."""
    files = ConfigurationFiles(disk)
    if reference.startswith("/"):
        return await files.at(str(here(Path(reference))), own=_outer("any").output_types)
    return await files.named(reference.rpartition("/")[2], folder=str(here(conf_dir)))
