"""Device information files (NPWG DEV 4): what a device plugin says of a device, below `dp`, is
copied for an attachment's CNI plugins, below `cni`, and read after them.

Others write these files. One that is no plain file, too large or malformed is logged and counts as
absent: it describes a device, and isn't what the pod needs to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from metaplugin.attachments.devices import AssignedDevice
from metaplugin.cni.errors import CNIError, IOFailure
from metaplugin.cni.raw import JSONObject, load_object
from metaplugin.npwg.device_info import device_plugin_file, parse_device_info

log = logging.getLogger(__name__)

MAX_BYTES = 64 << 10  # four types of some ten short texts each
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_T = TypeVar("_T")


class _Unusable(Exception):
    """What is at the path is no device information; the text says why."""


class DeviceInfoFolder:
    """The port DeviceInformation over a folder."""

    def __init__(self, folder: Path, executor: Executor) -> None:
        self._plugins = folder / "cni"
        self._devices = folder / "dp"
        self._executor = executor

    async def prepare(self, name: str, device: AssignedDevice | None) -> None:
        try:
            await self._run(lambda: self._prepare(name, device))
        except OSError as exc:
            raise IOFailure(
                f"device information: {self._plugins / name} can't be written: {exc.strerror}",
                details="deviceInfoDir in metaplugin's configuration is its folder; where the "
                "daemon runs in a container the host's must be mounted there",
            ) from exc

    async def read(self, name: str) -> JSONObject | None:
        found = await self._run(lambda: _usable(self._plugins / name))
        return found and found[1]

    async def remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            await self._run(lambda: (self._plugins / name).unlink(missing_ok=True))

    async def written(self) -> list[str]:
        """Return the names of the files that are ours; raise OSError."""
        return await self._run(lambda: [n for n in _names(self._plugins) if _is_ours(n)])

    async def drop_all_but(self, records: Collection[str], written: Collection[str]) -> None:
        """Remove those files of `written` that belong to none of these records; raise OSError."""
        orphans = [name for name in written if name.rpartition(":")[0] not in records]
        await self._run(lambda: self._remove_all(orphans))

    async def _run(self, operation: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, operation)

    def _prepare(self, name: str, device: AssignedDevice | None) -> None:
        self._plugins.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = self._plugins / name
        path.unlink(missing_ok=True)
        if device is None or not device.resource:
            return
        known = _usable(self._devices / device_plugin_file(device.resource, device.id))
        if known:
            with open(os.open(path, _WRITE, 0o644), "wb") as file:
                file.write(known[0])

    def _remove_all(self, names: Collection[str]) -> None:
        for name in names:
            (self._plugins / name).unlink(missing_ok=True)


def _usable(path: Path) -> tuple[bytes, JSONObject] | None:
    """Return the device information in a file, as it is and parsed, None where there is none that
    can be used."""
    try:
        content = _content(path)
        return content, parse_device_info(load_object(content, what=path.name), where=path.name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, _Unusable, CNIError) as exc:
        log.warning("device information not used", extra={"path": str(path), "error": str(exc)})
        return None


def _content(path: Path) -> bytes:
    """Return a plain file's bytes; raise OSError, ValueError for a path that none has, or
    _Unusable."""
    with open(os.open(path, _READ), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _Unusable("is no plain file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _Unusable(f"is over {MAX_BYTES >> 10} KiB")
    return content


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _is_ours(name: str) -> bool:
    """Say whether a name is of the form `<container id>@<interface>:<interface>`: Multus, and
    others, may have files there as well."""
    record, colon, _ = name.rpartition(":")
    return bool(colon) and "@" in record
