"""A folder for network-status: a file a pod, with the annotation as one would see it on the pod.

Level-triggered: each live record's file is made to be what the record says, again and again until
it is, and goes with the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path

import yaml

from metaplugin.attachments.record import Record
from metaplugin.cni.raw import JSONObject
from metaplugin.npwg.status import STATUS_ANNOTATION

log = logging.getLogger(__name__)

RETRY_INTERVAL_S = 1
_LONGEST_NAME = 200  # a file's name has 255 bytes; a namespace and a pod's name may have 316
WAIT_S = 2  # how long an ADD waits for its status to be written


class StatusFolder:
    """The port StatusPublisher over a folder. Run `keep_writing` for as long as it is used."""

    def __init__(self, folder: Path, executor: Executor) -> None:
        self._folder = folder
        self._executor = executor
        self._due: dict[str, Record | None] = {}
        self._owners: dict[str, str] = {}
        self._wake = asyncio.Event()

    async def publish(self, record: Record) -> None:
        if name := _file_name(record):
            self._owners[name] = record.generation
            if not record.status:  # somebody else's to write
                self._due.pop(name, None)
                return
            self._due[name] = record
            await self._write_due(name)

    async def withdraw(self, record: Record) -> None:
        """Remove the pod's file, unless a newer sandbox of that pod has written it since."""
        name = _file_name(record)
        if name and self._owners.get(name, record.generation) == record.generation:
            self._owners.pop(name, None)
            self._due[name] = None
            await self._write_due(name)

    def resume(self, records: Iterable[Record]) -> None:
        """Take up the live records of an earlier process."""
        for record in sorted(records, key=lambda record: record.created):
            name = _file_name(record)
            if name and record.complete:
                self._owners[name] = record.generation
                if record.status:
                    self._due[name] = record
        self._wake.set()

    async def written(self) -> dict[str, int]:
        """Return the names of the folder's status files, with when each was written (ns)."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._written)

    async def drop_all_but(self, records: Iterable[Record], written: dict[str, int]) -> None:
        """Remove those of the files `written` whose pod has none of the records.

        They are of pods that a shim without a daemon has deleted. The records are to be read after
        the files, and a file that was written since is left: it is a new sandbox's.
        """
        gone = set(written) - {_file_name(record) for record in records}
        orphans = {name: written[name] for name in gone}
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._drop, orphans)

    async def keep_writing(self) -> None:
        """Write what couldn't be written at once; runs until it is cancelled."""
        while True:
            await self._wake.wait()
            for name in list(self._due):
                await self._write_due(name)
            if self._due:
                await asyncio.sleep(RETRY_INTERVAL_S)
            else:
                self._wake.clear()

    async def _write_due(self, name: str) -> None:
        record = self._due.get(name)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(WAIT_S):
                await loop.run_in_executor(self._executor, self._bring_about, name, record)
        except (OSError, ValueError, TimeoutError) as exc:
            log.warning("network-status not written", extra={"file": name, "error": str(exc)})
            self._wake.set()
            return
        if self._due.get(name) is record:
            self._due.pop(name, None)

    def _bring_about(self, name: str, record: Record | None) -> None:
        path = self._folder / name
        if record is None:
            path.unlink(missing_ok=True)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        content = _content(record)
        with contextlib.suppress(FileNotFoundError):
            if path.read_text() == content:
                return
        temporary = path.with_name(f".{name}.new")
        temporary.write_text(content)
        os.replace(temporary, path)

    def _written(self) -> dict[str, int]:
        paths = self._folder.glob("[!.]*_*.yaml")
        return {path.name: path.stat().st_mtime_ns for path in paths if _is_ours(path)}

    def _drop(self, files: dict[str, int]) -> None:
        for name, written in files.items():
            path = self._folder / name
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime_ns == written:
                    path.unlink()


def _is_ours(path: Path) -> bool:
    """Whether a file has network-status and nothing else: the folder may hold others' files."""
    try:
        document = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        return list(document["metadata"]["annotations"]) == [STATUS_ANNOTATION]
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, RecursionError):
        return False


def _file_name(record: Record) -> str:
    """Return the pod's file; names are DNS labels or subdomains, checked before they make a
    path."""
    pod = record.pod
    if pod is None or record.hot_plugged or "/" in pod.namespace + pod.name:
        return ""
    name = f"{pod.namespace}_{pod.name}"
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.yaml"


def _content(record: Record) -> str:
    metadata: JSONObject = {}
    if pod := record.pod:
        metadata = {"namespace": pod.namespace, "name": pod.name}
        metadata |= {"uid": pod.uid} if pod.uid else {}
    metadata["annotations"] = {STATUS_ANNOTATION: record.status}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    return yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False)
