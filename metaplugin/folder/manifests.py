"""A folder of manifests as the cluster: the YAML files that one would `kubectl apply`.

Every look-up first compares names, sizes and times of the files with the last reading and reads
what changed, so a file written just before a pod starts is seen: there is no watch that could lag.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import CNIError, InvalidNetworkConfig, TryAgainLater
from metaplugin.cni.raw import MAX_NESTING, JSONObject
from metaplugin.commands.ports import KnownPod, Learner
from metaplugin.npwg.definition import NetworkAttachmentDefinition, definition_from_object

log = logging.getLogger(__name__)

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_KINDS = frozenset({"Pod", "NetworkAttachmentDefinition"})
_Stamp = tuple[int, int, int]
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Reading:
    """One file as last read; `problem` says why it couldn't be."""

    stamp: _Stamp
    objects: Mapping[_Key, JSONObject] = field(default_factory=dict)
    problem: str = ""


class ManifestFolder:
    """The port Cluster over a folder and all below it. An unreadable folder is a cluster that is
    away."""

    def __init__(self, folder: Path, executor: Executor, learner: Learner) -> None:
        self._folder = folder
        self._executor = executor
        self._learner = learner
        self._readings: dict[Path, _Reading] = {}
        self._next: asyncio.Task[list[_Reading]] | None = None

    async def pod(self, reference: PodReference) -> KnownPod | None:
        raw = await self._look_up("Pod", reference.namespace, reference.name)
        return _known_pod(raw) if raw else None

    async def definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None:
        raw = await self._look_up("NetworkAttachmentDefinition", namespace, name)
        return definition_from_object(raw) if raw else None

    async def _look_up(self, kind: str, namespace: str, name: str) -> JSONObject | None:
        if self._next is None:
            self._next = asyncio.create_task(self._refreshed())
        try:
            readings = await asyncio.shield(self._next)
        except OSError as exc:
            raise TryAgainLater(f"the manifests in {self._folder} can't be read: {exc}") from exc
        for reading in readings:
            if found := reading.objects.get((kind, namespace, name)):
                return found
        if problems := [reading.problem for reading in readings if reading.problem]:
            raise TryAgainLater(
                f"{kind} {namespace}/{name} may be in a manifest that can't be read: {problems[0]}"
            )
        return None

    async def _refreshed(self) -> list[_Reading]:
        """Refresh for all who asked before it began; who asks later begins the next."""
        self._next = None
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._refresh)

    def _refresh(self) -> list[_Reading]:
        self._folder.stat()
        paths = sorted(p for p in self._folder.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
        known = self._readings
        readings = {path: _read_again(path, known.get(path)) for path in paths}
        self._readings = {path: reading for path, reading in readings.items() if reading}
        for path, reading in self._readings.items():
            if reading is not known.get(path):
                self._teach(reading)
        return list(self._readings.values())

    def _teach(self, reading: _Reading) -> None:
        """Have what a changed file says remembered; a malformed object is left for who asks."""
        for (kind, namespace, name), raw in reading.objects.items():
            with contextlib.suppress(CNIError):
                if kind == "Pod":
                    self._learner.learn_pods({(namespace, name): _known_pod(raw)})
                else:
                    definition = definition_from_object(raw)
                    self._learner.learn_definitions({(namespace, name): definition})


def _read_again(path: Path, known: _Reading | None) -> _Reading | None:
    """Return what the file holds now, None when it has just been removed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
    if known and known.stamp == stamp:
        return known
    try:
        objects = dict(_objects(_documents(path.read_bytes())))
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as exc:
        log.error("manifest unreadable", extra={"file": str(path), "error": str(exc)})
        return _Reading(stamp, problem=f"{path}: {exc}")
    return _Reading(stamp, objects)


def _documents(content: bytes) -> list[Any]:
    """Return the documents; raise ValueError for one so deep that reading it would overflow the
    stack of the C library, and end the daemon."""
    depth = 0
    for event in yaml.parse(content, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_NESTING:
            raise ValueError(f"nested too deeply, at most {MAX_NESTING} levels are allowed")
    return list(yaml.load_all(content, yaml.CSafeLoader))


def _objects(documents: Any) -> Iterator[tuple[_Key, JSONObject]]:
    """Yield the pods and definitions of a file's documents, Lists unfolded; raise ValueError."""
    if not isinstance(documents, list):
        raise ValueError("the items of a List are no list")
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, dict):
            raise ValueError("a document is no object")
        kind = document.get("kind")
        if kind == "List":
            yield from _objects(document.get("items") or [])
        elif isinstance(kind, str) and kind in _KINDS:
            yield _key(document), document


def _key(document: JSONObject) -> _Key:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise ValueError(f"a {document['kind']} needs metadata.name, as text")
    if not isinstance(metadata.setdefault("namespace", "default"), str):
        raise ValueError(f"{document['kind']} {metadata['name']}: namespace must be text")
    return document["kind"], metadata["namespace"], metadata["name"]


def _known_pod(raw: JSONObject) -> KnownPod:
    metadata = raw["metadata"]
    annotations = metadata.get("annotations") or {}
    if not _is_text_map(annotations):
        raise InvalidNetworkConfig(
            f"pod {metadata['namespace']}/{metadata['name']}: metadata.annotations must map text "
            f"to text"
        )
    return KnownPod(uid=str(metadata.get("uid") or ""), annotations=annotations)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(item, str) for key, item in value.items()
    )
