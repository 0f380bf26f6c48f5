"""The server's etcd: objects, one increasing resourceVersion, and a log of events to watch from.

Not locked: the server does that. Objects are kept beside their bytes, so that a list of 10,000
costs a join.
"""

from __future__ import annotations

import base64
import copy
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.apiserver.resources import (
    ApiError,
    JSONObject,
    Requirement,
    Resource,
    Target,
    conflict,
    expired,
    invalid,
    merge_patch,
    not_found,
    resource_of,
)

Key = tuple[str, str, str]  # resource, namespace, name

FIRST_VERSION = 100  # of the empty store, as a real one's isn't 0 either


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was at one version; never changed in place."""

    obj: JSONObject
    raw: bytes
    item: bytes  # as an item of a list

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"]["uid"])

    @property
    def version(self) -> int:
        return int(self.obj["metadata"]["resourceVersion"])


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the log: `after` is None for a deletion, `before` for a creation."""

    version: int
    key: Key
    before: Stored | None
    after: Stored | None


@dataclass(frozen=True)
class Scope:
    """What a list or a watch is of."""

    resource: Resource
    namespace: str
    selector: tuple[Requirement, ...]

    def has(self, key: Key, obj: JSONObject) -> bool:
        if key[0] != self.resource.name or self.namespace not in {"", key[1]}:
            return False
        return all(requirement.matches(obj) for requirement in self.selector)

    def seen(self, change: Change) -> tuple[str, bytes] | None:
        """Type and object of the watch event that a change is to this scope."""
        before = change.before is not None and self.has(change.key, change.before.obj)
        after = change.after is not None and self.has(change.key, change.after.obj)
        if after and change.after:
            return ("MODIFIED" if before else "ADDED"), change.after.raw
        if before and change.before:
            # The last state, with the version of the deletion.
            gone = copy.deepcopy(change.before.obj)
            gone["metadata"]["resourceVersion"] = str(change.version)
            return "DELETED", encode(gone)
        return None


@dataclass(frozen=True)
class Page:
    items: list[bytes]
    version: int
    next: str = ""  # the continue token
    remaining: int = 0


@dataclass
class Store:
    version: int = FIRST_VERSION
    compacted: int = FIRST_VERSION
    objects: dict[Key, Stored] = field(default_factory=dict)
    log: list[Change] = field(default_factory=list)
    _snapshots: dict[str, tuple[int, list[Stored]]] = field(default_factory=dict)

    def put(self, obj: JSONObject) -> Stored:
        """Creates or replaces; another uid than the one that is there deletes that one first."""
        new = copy.deepcopy(obj)
        resource = resource_of(new["kind"])
        metadata = new.setdefault("metadata", {})
        key = (resource.name, metadata.setdefault("namespace", "default"), metadata["name"])
        before = self.objects.get(key)
        if before and metadata.get("uid", before.uid) != before.uid:
            self.delete(key)
            before = None
        new.setdefault("apiVersion", resource.api_version)
        inherited = before.obj["metadata"] if before else {}
        metadata.setdefault("uid", inherited.get("uid") or str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", inherited.get("creationTimestamp") or _now())
        return self._write(key, new)

    def delete(self, key: Key) -> None:
        before = self.objects.pop(key, None)
        if before is None:
            raise not_found(resource_of(key[0]), key[2])
        self.version += 1
        self.log.append(Change(self.version, key, before, None))

    def get(self, target: Target) -> Stored:
        found = self.objects.get((target.resource.name, target.namespace, target.name))
        if found is None:
            raise not_found(target.resource, target.name)
        return found

    def patch_pod_status(self, target: Target, patch: JSONObject, mismatch: int) -> Stored:
        """Metadata and status of a merge patch; `mismatch` is the code for another uid."""
        before = self.get(target)
        metadata = patch.get("metadata") or {}
        if metadata.get("uid", before.uid) != before.uid:
            raise _other_uid(target, metadata["uid"], before.uid, mismatch)
        if metadata.get("resourceVersion", str(before.version)) != str(before.version):
            raise conflict(
                target.resource,
                target.name,
                "the object has been modified; please apply your changes to the latest version "
                "and try again",
            )
        if {metadata.get("name", target.name), metadata.get("namespace", target.namespace)} != {
            target.name,
            target.namespace,
        }:
            raise invalid("Pod", target.name, "metadata.name", "field is immutable")
        kept = {key: patch[key] for key in ("metadata", "status") if key in patch}
        after = merge_patch(before.obj, kept)
        if after == before.obj:
            return before  # what changes nothing makes no version
        return self._write((target.resource.name, target.namespace, target.name), after)

    def changes(self, since: int) -> Iterator[Change]:
        """Those after a version, which must not be older than the last compaction."""
        if since < self.compacted:
            raise expired(f"too old resource version: {since} ({self.compacted})")
        start = len(self.log)
        while start and self.log[start - 1].version > since:
            start -= 1
        return iter(self.log[start:])

    def current(self, scope: Scope) -> list[Stored]:
        """In etcd's order: by namespace, then name."""
        keys = sorted(key for key, stored in self.objects.items() if scope.has(key, stored.obj))
        return [self.objects[key] for key in keys]

    def first_page(self, scope: Scope, limit: int) -> Page:
        items = self.current(scope)
        if not limit or len(items) <= limit:
            return Page([stored.item for stored in items], self.version)
        snapshot = uuid.uuid4().hex
        self._snapshots[snapshot] = (self.version, items)
        return self._page(snapshot, 0, limit)

    def next_page(self, token: str, limit: int) -> Page:
        """From the state that the first page was of, unless that is compacted."""
        try:
            snapshot, start = json.loads(base64.urlsafe_b64decode(token))
        except ValueError:
            raise ApiError(400, "invalid continue token: continue key is not valid") from None
        if snapshot not in self._snapshots:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You must start a new list without the continue parameter."
            )
        return self._page(snapshot, start, limit)

    def compact(self) -> None:
        """Forgets all history: older watches and pages that have begun get 410."""
        self.compacted = self.version
        self.log.clear()
        self._snapshots.clear()

    def _page(self, snapshot: str, start: int, limit: int) -> Page:
        version, items = self._snapshots[snapshot]
        end = start + (limit or len(items))
        token = base64.urlsafe_b64encode(json.dumps([snapshot, end]).encode()).decode()
        remaining = max(0, len(items) - end)
        page = [stored.item for stored in items[start:end]]
        return Page(page, version, token if remaining else "", remaining)

    def _write(self, key: Key, obj: JSONObject) -> Stored:
        self.version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        raw = encode(obj)
        item = raw
        if resource_of(key[0]).typed:
            item = encode({k: v for k, v in obj.items() if k not in {"kind", "apiVersion"}})
        stored = Stored(obj, raw, item)
        self.log.append(Change(self.version, key, self.objects.get(key), stored))
        self.objects[key] = stored
        return stored


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def joined(items: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _other_uid(target: Target, given: str, actual: str, code: int) -> Exception:
    if code == 422:
        return invalid(
            "Pod", target.name, "metadata.uid", f'Invalid value: "{given}": field is immutable'
        )
    why = f"Precondition failed: UID in precondition: {given}, UID in object meta: {actual}"
    return conflict(target.resource, target.name, why)
