"""The startup taint: what keeps pods off a node until the daemon serves."""

from __future__ import annotations

import asyncio
import logging
import random

from metaplugin.k8s.api import ApiAway, ApiRefused
from metaplugin.k8s.calls import Calls
from metaplugin.k8s.objects import node_path

log = logging.getLogger(__name__)

TIMEOUT_S = 10
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0  # no right to: an operator has to act
_CONFLICT = 409


class StartupTaint:
    """A node's taints with one key, whatever their effect."""

    def __init__(self, calls: Calls, node_name: str, key: str) -> None:
        self._calls = calls
        self._path = node_path(node_name)
        self._key = key

    async def remove(self) -> None:
        """Take the taint away where it is there; try until the server has done so."""
        delay, complaint = FIRST_DELAY_S, ""
        while True:
            try:
                await self._remove_once()
            except (ApiAway, ApiRefused) as exc:
                if str(exc) != complaint and getattr(exc, "status", 0) != _CONFLICT:
                    complaint = str(exc)
                    log.error("startup taint not removed", extra={"why": complaint})
            else:
                return
            await asyncio.sleep(delay * random.uniform(1, 1.3))  # noqa: S311 - apart from others
            delay = min(delay * 2, LONGEST_DELAY_S)

    async def _remove_once(self) -> None:
        """Raise ApiAway, or ApiRefused: 409 where somebody else has changed the node meanwhile."""
        node = await self._calls.call("GET", self._path, timeout_s=TIMEOUT_S)
        taints = node.get("spec", {}).get("taints") or []
        kept = [taint for taint in taints if taint.get("key") != self._key]
        if len(kept) == len(taints):
            return
        version = node["metadata"]["resourceVersion"]  # a list is replaced whole
        patch = {"metadata": {"resourceVersion": version}, "spec": {"taints": kept or None}}
        await self._calls.call("PATCH", self._path, timeout_s=TIMEOUT_S, body=patch)
        log.info("startup taint removed", extra={"taint": self._key})
