"""The runtime's CNI configuration, kept by the daemon: written when pods can be served, written
again when another component has moved, changed or removed it, never removed.

Looked at every few seconds: unlike inotify that misses nothing, and costs a list of a small folder.
Two components that undo each other's work wait longer each time, and somebody is told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from metaplugin.cni.errors import CNIError
from metaplugin.commands.outer import OWN_TYPE
from metaplugin.install.conflist import BAK_SUFFIX, Installed, installed, kind_of, plugin_types
from metaplugin.install.files import InstallError, put
from metaplugin.install.installing import multus_first

log = logging.getLogger(__name__)

INTERVAL_S = 3
CONTESTED = 3  # restorations in a row that are no coincidence
LONGEST_PAUSE_S = 300
PEACE_S = 600  # so long undisturbed, and a disturbance is the first again

EventKind = Literal["Normal", "Warning"]


class NodeEvents(Protocol):
    """Tells the node's reader; never waits, never raises."""

    def told(self, kind: EventKind, reason: str, message: str) -> None:
        """Tell it once in a while."""


@dataclass(slots=True)
class Patience:
    """How long to wait before what somebody undoes is done again."""

    restored: int = 0
    _last: float = float("-inf")

    def may_restore(self, now: float) -> bool:
        """Say whether it is time: at once at first, then later and later."""
        if now - self._last >= PEACE_S:
            self.restored = 0
        pause = INTERVAL_S * 2**self.restored if self.restored else 0
        return now - self._last >= min(pause, LONGEST_PAUSE_S)

    def note(self, now: float) -> None:
        """Count a restoration."""
        self.restored += 1
        self._last = now


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The folder as it is: our file's content, and the others in the runtime's order."""

    ours: bytes | None
    others: tuple[Installed, ...]
    renamed: Path | None  # what our file has become

    def first_before(self, path: Path) -> Installed | None:
        """Return the configuration that runtimes take before the one at `path`."""
        usable = (each for each in self.others if each.kind != "unreadable")
        return next((each for each in usable if each.path.name < path.name), None)


@dataclass(slots=True, kw_only=True)
class Keeper:
    """Keeps the file at `path` as `wanted` says, which raises CNIError while nobody can say."""

    path: Path
    wanted: Callable[[], Awaitable[bytes]]
    events: NodeEvents
    disk: Executor
    beside_multus: bool = False
    now: Callable[[], float] = time.monotonic
    _patience: Patience = field(default_factory=Patience)
    _written: bytes | None = None  # by us, or found as we would have written it
    _last_wanted: bytes | None = None
    _disturbed: bool = False  # as somebody else has left it, for now
    _told: dict[str, str] = field(default_factory=dict)

    def problem(self) -> str:
        """Say why pods may not get their networks, "" when all is well."""
        known = next(iter(self._told.values()), "")
        if self._written is None:
            return known or f"{self.path} has not been written yet"
        if self._disturbed:
            return f"{self.path}: another component changes it again and again"
        return known

    async def keep(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("defect")
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """Look once, and do what is to be done."""
        try:
            wanted = await self._what_is_wanted()
            loop = asyncio.get_running_loop()
            view = await loop.run_in_executor(self.disk, _view, self.path)
            if wanted is not None:
                await self._settle(wanted, view)
            self._look_around(view)
            self._solved("folder")
        except (InstallError, OSError) as exc:
            self._problem("folder", "CNIConfigurationFailed", str(exc))

    async def _what_is_wanted(self) -> bytes | None:
        """Return the configuration; while the default network can't be read, the last one."""
        try:
            self._last_wanted = await self.wanted()
            self._solved("network")
        except CNIError as exc:
            self._problem(
                "network",
                "DefaultNetworkMissing",
                f"waiting for a default network that can be used: {exc.msg}"
                + (f" ({exc.details})" if exc.details else "")
                + ("; what is installed stays" if self._last_wanted else ""),
            )
        return self._last_wanted

    async def _settle(self, wanted: bytes, view: View) -> None:
        """Have the file be as wanted; raise InstallError."""
        if view.ours == wanted:
            if self._written is None:
                log.info("CNI configuration found as it should be", extra=self._where)
            self._written, self._disturbed = wanted, False
        elif self._written is None:
            await self._write_first(wanted, view)
        elif view.ours == self._written:
            await self._put(wanted)
            log.info("CNI configuration follows the default network", extra=self._where)
        else:
            await self._restore(wanted, view)

    async def _write_first(self, wanted: bytes, view: View) -> None:
        first = view.others[0] if view.others else None
        if view.ours is None and first and first.kind == "multus" and not self.beside_multus:
            self._problem("multus", "MultusInstalled", multus_first(first.path))
            return
        self._solved("multus")
        await self._put(wanted)
        verb = "replaced another" if view.ours is not None else "written"
        log.info("CNI configuration written", extra=self._where)
        self.events.told("Normal", "CNIConfigurationWritten", f"{self.path}: {verb}")

    async def _restore(self, wanted: bytes, view: View) -> None:
        now = self.now()
        if not self._patience.may_restore(now):
            self._disturbed = True
            return
        await self._put(wanted)
        self._patience.note(now)
        what = _what_happened(view)
        message = f"{self.path} was {what}; written again"
        if self._patience.restored < CONTESTED:
            log.warning("CNI configuration restored", extra={**self._where, "because": what})
            self.events.told("Warning", "CNIConfigurationRestored", message)
            return
        log.error("CNI configuration contested", extra={**self._where, "because": what})
        self.events.told(
            "Warning",
            "CNIConfigurationContested",
            f"{message}, {self._patience.restored} times by now and more and more rarely: pods "
            f"that start in between have only the default network. {_remedy(view)}",
        )

    async def _put(self, wanted: bytes) -> None:
        write = partial(put, self.path, wanted, mode=0o644)
        await asyncio.get_running_loop().run_in_executor(self.disk, write)
        self._written, self._disturbed = wanted, False

    def _look_around(self, view: View) -> None:
        """Tell of a configuration that runtimes take before ours."""
        if self._written is None or (before := view.first_before(self.path)) is None:
            self._solved("order")
            return
        self._problem(
            "order",
            "CNIConfigurationNotFirst",
            f"{before.path} comes before {self.path.name}: pods get no networks of metaplugin's "
            "until it is renamed or removed, or installation.fileName names one before it",
        )

    @property
    def _where(self) -> dict[str, str]:
        return {"file": str(self.path)}

    def _problem(self, about: str, reason: str, text: str) -> None:
        """Tell a problem when it is new."""
        if self._told.get(about) != text:
            self._told[about] = text
            log.warning("CNI configuration: %s", text)
            self.events.told("Warning", reason, text)

    def _solved(self, about: str) -> None:
        self._told.pop(about, None)


def _view(path: Path) -> View:
    found = installed(path.parent)
    renamed = path.with_name(path.name + BAK_SUFFIX)
    return View(
        ours=path.read_bytes() if path.is_file() else None,
        others=tuple(each for each in found if each.path != path),
        renamed=renamed if kind_of(renamed) == "ours" else None,
    )


def _what_happened(view: View) -> str:
    if guests := _guests(view):
        return f"changed by another component, which put {guests} into it"
    if view.ours is not None:
        return "changed by another component"
    return f"renamed to {view.renamed.name}" if view.renamed else "removed"


def _remedy(view: View) -> str:
    if guests := _guests(view):
        return (
            f"Have {guests} put into the default network's file, which ours runs as it is (Istio: "
            "cni.cniConfFileName)"
        )
    if view.renamed:
        return "Cilium does this unless its cni-exclusive is false (Helm: cni.exclusive=false)"
    return "Find out who writes to this folder, and have it leave the file alone"


def _guests(view: View) -> str:
    """Return the plugins that somebody has chained to ours."""
    try:
        types = plugin_types(view.ours or b"")
    except CNIError:
        return ""
    return ", ".join(sorted(types - {OWN_TYPE})) if OWN_TYPE in types else ""
