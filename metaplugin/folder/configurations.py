"""Network configurations on the node's disk (NPWG 3.4.1): `.conflist` before `.conf` and `.json`.

Files are read when asked for: a node has few, and a changed one counts for the next pod. A file
that can't be read is nobody's problem but its own network's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from metaplugin.cni.configuration import (
    NetworkConfigList,
    PluginConf,
    parse_network_config,
    parse_open_list,
    parse_plugin,
    with_plugins,
)
from metaplugin.cni.errors import CNIError, InvalidNetworkConfig, IOFailure
from metaplugin.cni.raw import load_object

log = logging.getLogger(__name__)

_SUFFIXES_IN_ORDER = ((".conflist",), (".conf", ".json"))

_T = TypeVar("_T")


class ConfigurationFiles:
    """The port of that name over the disk."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def named(self, name: str, *, folder: str) -> NetworkConfigList | None:
        return await self._run(lambda: _named(name, Path(folder)))

    async def at(self, path: str, *, own: Collection[str]) -> NetworkConfigList:
        return await self._run(lambda: _at(Path(path), own))

    async def plugins(self, folder: str) -> tuple[PluginConf, ...]:
        return await self._run(lambda: tuple(_folder_plugins(Path(folder))))

    async def exists(self, path: str) -> bool:
        return await self._run(Path(path).exists)

    async def _run(self, operation: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, operation)
        except OSError as exc:  # a path may be longer than any, or on a disk that fails
            raise IOFailure(f"{exc.filename}: can't be looked at: {exc.strerror}") from exc


def _named(name: str, folder: Path) -> NetworkConfigList | None:
    for path in _candidates(folder):
        try:
            config = _load(path)
        except CNIError as exc:
            log.warning("configuration unreadable", extra={"file": str(path), "error": exc.msg})
            continue
        if config.name == name:
            return config
    return None


def _at(path: Path, own: Collection[str]) -> NetworkConfigList:
    """Return the configuration in a file, or in a folder's first file that isn't of a type in
    `own`. A first file that can't be read is an error: the next one is another network."""
    if not path.is_dir():
        return _load(path)
    for candidate in sorted(_candidates(path), key=lambda candidate: candidate.name):
        config = _load(candidate)
        if not any(plugin.type in own for plugin in config.plugins):
            return config
    raise InvalidNetworkConfig(f"{path}: no network configuration in this folder")


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield what runtimes consider: a link, too, that leads nowhere from here."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_symlink() or path.is_file())
    except OSError:
        return
    for suffixes in _SUFFIXES_IN_ORDER:
        yield from (path for path in files if path.suffix in suffixes)


def _load(path: Path) -> NetworkConfigList:
    """Return a file's configuration, plugins of the folder named after its network appended (CNI
    section 1, loadOnlyInlinedPlugins)."""
    raw = load_object(_content(path), what=str(path))
    if path.suffix != ".conflist":
        return parse_network_config(raw, where=str(path))
    config = parse_open_list(raw, where=str(path))
    if not config.load_only_inlined_plugins:
        config = with_plugins(config, tuple(_folder_plugins(path.parent / config.name)))
    if not config.plugins:
        raise InvalidNetworkConfig(f"{path}: plugins: must hold at least one plugin")
    return config


def _folder_plugins(folder: Path) -> Iterator[PluginConf]:
    for path in sorted(folder.glob("*.conf")):
        yield parse_plugin(load_object(_content(path), what=str(path)), where=str(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise IOFailure(
            f"{path}: can't be read: {exc.strerror}",
            details="it is a link that leads nowhere; in a container, to what isn't mounted there: "
            "put the file itself there, or name the default network by clusterNetwork"
            if path.is_symlink()
            else "",
        ) from exc
