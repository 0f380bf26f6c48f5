"""Last known copies: in state.db all pods, network definitions and devices of pods' ResourceClaims,
beside it the definitions that pods have used, which outlive a loss of state.db.

state.db is a cache: a damaged one is moved aside and begun anew, an unwritable one is logged, and
neither fails a request. One thread does all of it, so SQLite sees one writer and the loop never
waits for the disk.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from metaplugin.attachments.devices import ClaimedDevice, ResolvedDevice
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import CNIError, DecodingFailure
from metaplugin.cni.raw import JSONObject, dump, load_object
from metaplugin.commands.ports import KnownPod, Name
from metaplugin.npwg.definition import NetworkAttachmentDefinition, definition_from_object
from metaplugin.state.definitions import DefinitionFolder, definition_object, newer

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    content BLOB NOT NULL, seen REAL NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID
"""
_UPSERT = (
    "INSERT OR REPLACE INTO objects (kind, namespace, name, content, seen) VALUES (?, ?, ?, ?, ?)"
)
_DELETE = "DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?"
_FORGET_KIND = "DELETE FROM objects WHERE kind = ?"
_CLAIMED = "claimed devices"
_FORGET_ORPHANS = """
DELETE FROM objects WHERE kind = ? AND NOT EXISTS (
    SELECT 1 FROM objects AS pod
    WHERE pod.kind = 'pod' AND pod.namespace = objects.namespace AND pod.name = objects.name
)
"""
_SELECT = "SELECT content FROM objects WHERE kind = ? AND namespace = ? AND name = ?"

# A changed byte may also be in a text that SQLite hands over, its own error's included.
_DAMAGE = (sqlite3.Error, UnicodeDecodeError)

_T = TypeVar("_T")
_Step = tuple[str, Iterable[tuple[Any, ...]]]  # a statement, and rows to execute it with


class StateDatabase:
    """The ports Memory, Learner and ClaimMemory over SQLite, and the folder `definitions` beside
    its file. Close it to have everything written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._used = DefinitionFolder(path.with_name("definitions"))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state.db")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Make the database usable, anew if it is damaged; never raises."""
        await self._run(self._open, None)

    async def close(self) -> None:
        await self._run(self._close, None)
        self._thread.shutdown()

    async def pod(self, reference: PodReference) -> KnownPod | None:
        return await self._recall("pod", reference.namespace, reference.name, _known_pod)

    async def definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None:
        known = await self._recall("definition", namespace, name, definition_from_object)
        used = await self._run(lambda: self._used.read((namespace, name)), None)
        return newer(known, used)

    async def used_definitions(self) -> Sequence[Name]:
        nothing: list[Name] = []
        return await self._run(self._used.names, nothing)

    async def claimed_devices(self, pod: PodReference) -> tuple[ResolvedDevice, ...]:
        """Return what was learnt of the pod of that UID; () where nothing was."""
        parse = partial(_claimed_devices, uid=pod.uid)
        return await self._recall(_CLAIMED, pod.namespace, pod.name, parse) or ()

    def learn_claimed_devices(self, pod: PodReference, devices: Sequence[ResolvedDevice]) -> None:
        content = {"uid": pod.uid, "devices": [asdict(device) for device in devices]}
        row = (_CLAIMED, pod.namespace, pod.name, dump(content), time.time())
        self._submit([(_UPSERT, [row])])

    def learn_pods(self, pods: Mapping[Name, KnownPod | None]) -> None:
        gone = [(_CLAIMED, *name) for name, known in pods.items() if known is None]
        self._submit([*_changes("pod", pods, _pod_object), (_DELETE, gone)])

    def learn_definitions(
        self, definitions: Mapping[Name, NetworkAttachmentDefinition | None]
    ) -> None:
        self._submit(_changes("definition", definitions, definition_object))
        self._in_order(self._used.follow, definitions)

    def learn_use(self, name: Name, definition: NetworkAttachmentDefinition | None) -> None:
        if definition is None:
            self._in_order(self._used.drop, name)
        elif not self._used.holds(definition):
            self._in_order(self._used.keep, definition)

    def learn_all_pods(self, pods: Mapping[Name, KnownPod]) -> None:
        learnt = _changes("pod", pods, _pod_object)
        self._submit([(_FORGET_KIND, [("pod",)]), *learnt, (_FORGET_ORPHANS, [(_CLAIMED,)])])

    def learn_all_definitions(
        self, definitions: Mapping[Name, NetworkAttachmentDefinition]
    ) -> None:
        kept = _changes("definition", definitions, definition_object)
        self._submit([(_FORGET_KIND, [("definition",)]), *kept])

    def _submit(self, steps: Sequence[_Step]) -> None:
        """Have the steps executed in one transaction, after what has been submitted before."""
        self._in_order(self._transact, steps)

    def _in_order(self, operation: Callable[[_T], None], argument: _T) -> None:
        self._thread.submit(operation, argument).add_done_callback(_log_failure)

    async def _recall(
        self, kind: str, namespace: str, name: str, parse: Callable[[JSONObject], _T]
    ) -> _T | None:
        nothing: list[Any] = []
        rows = await self._run(lambda: self._execute(_SELECT, (kind, namespace, name)), nothing)
        try:
            return parse(_content(rows[0][0])) if rows else None
        except CNIError as exc:
            log.error("cached object unreadable", extra={"error": exc.msg})
            return None

    async def _run(self, operation: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, operation)
        except (*_DAMAGE, OSError) as exc:
            log.error("last known copies unusable", extra={"error": str(exc)})
            return otherwise

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._connect()
        except sqlite3.OperationalError:  # busy, full, not to be opened: none of it is damage
            self._close()
            raise
        except _DAMAGE as exc:
            aside = self._path.with_name(f"{self._path.name}.damaged")
            log.error(
                "state.db damaged; begun anew", extra={"error": str(exc), "aside": str(aside)}
            )
            self._close()
            os.replace(self._path, aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._connect()

    def _connect(self) -> None:
        self._connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False
        )
        os.chmod(self._path, 0o600)
        mode = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            log.warning("state.db has no write-ahead log", extra={"journal_mode": mode})
        self._connection.execute("PRAGMA synchronous=FULL")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise sqlite3.DatabaseError(
                f"its schema is {version}, this release has {SCHEMA_VERSION}"
            )
        self._connection.execute(_TABLES)
        self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        if (found := self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _transact(self, steps: Sequence[_Step]) -> None:
        if self._connection is not None:
            with self._connection:
                self._connection.execute("BEGIN")
                for statement, rows in steps:
                    self._connection.executemany(statement, rows)

    def _execute(self, statement: str, values: Iterable[Any]) -> list[Any]:
        if self._connection is None:
            return []
        return self._connection.execute(statement, tuple(values)).fetchall()


class StateSnapshot(StateDatabase):
    """The same ports over what a daemon has written, for a process beside or after it: its database
    is never written."""

    def _submit(self, steps: Sequence[_Step]) -> None:
        """Leave it to the daemon."""

    def _open(self) -> None:
        if not self._path.exists():
            return
        # A database whose daemon ended well has no log, and can't be opened as one that has it.
        logged = self._path.with_name(f"{self._path.name}-wal").exists()
        mode = "mode=ro" if logged else "mode=ro&immutable=1"
        self._connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?{mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )


def _content(value: Any) -> JSONObject:
    if not isinstance(value, bytes):
        raise DecodingFailure("a cached object is no bytes")
    return load_object(value, what="a cached object")


def _known_pod(raw: JSONObject) -> KnownPod:
    uid, annotations = raw.get("uid"), raw.get("annotations")
    if not isinstance(uid, str) or not isinstance(annotations, dict):
        raise DecodingFailure("a cached pod has no uid or annotations")
    return KnownPod(uid=uid, annotations=annotations)


def _claimed_devices(raw: JSONObject, *, uid: str) -> tuple[ResolvedDevice, ...]:
    if not uid or raw.get("uid") != uid:
        return ()
    try:
        return tuple(_resolved_device(**device) for device in raw["devices"])
    except (AttributeError, KeyError, TypeError) as exc:
        raise DecodingFailure(f"a cached pod's claimed devices: {exc!r}") from exc


def _resolved_device(*, claimed: JSONObject, **values: str) -> ResolvedDevice:
    device = ClaimedDevice(**claimed | {"cdi": tuple(claimed["cdi"])})
    return ResolvedDevice(claimed=device, **values)


def _changes(
    kind: str, objects: Mapping[Name, _T | None], content: Callable[[_T], JSONObject]
) -> list[_Step]:
    """Return the steps that bring objects into the table, and those that are gone out of it."""
    now = time.time()
    gone = [(kind, *name) for name, known in objects.items() if known is None]
    there = ((name, known) for name, known in objects.items() if known is not None)
    return [
        (_DELETE, gone),
        (_UPSERT, ((kind, *name, dump(content(known)), now) for name, known in there)),
    ]


def _pod_object(pod: KnownPod) -> JSONObject:
    return {"uid": pod.uid, "annotations": dict(pod.annotations)}


def _log_failure(task: Future[Any]) -> None:
    if error := task.exception():
        log.error("last known copies not written", extra={"error": str(error)})
