"""Whether the default network has announced that it is ready (NPWG 6.1.2): by a file, if at all."""

from __future__ import annotations

import asyncio

from metaplugin.cni.errors import TryAgainLater
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.ports import Node

_LOOK_AGAIN_S = 0.2  # its folder may be still to be made as well: nothing to be told by


async def is_ready(node: Node) -> bool:
    """Say whether pods can be attached as far as the default network has a say in it."""
    path = node.settings.readiness_file
    return not path or await node.configurations.exists(path)


async def await_readiness(node: Node, deadline: Deadline) -> None:
    """Return once the default network is ready; raise TryAgainLater."""
    path, limits = node.settings.readiness_file, node.settings.deadlines
    loop = asyncio.get_running_loop()
    until = min(loop.time() + limits.readiness, deadline.at - limits.rollback)
    while not await is_ready(node):
        if loop.time() >= until:
            raise TryAgainLater(
                f"the default network is not ready: {path} did not appear within "
                f"{limits.readiness:g} s (deadlines.readinessSeconds)"
            )
        await asyncio.sleep(_LOOK_AGAIN_S)
