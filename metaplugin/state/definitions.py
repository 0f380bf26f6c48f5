"""The net-attach-defs that pods of this node have used, each a file: static pods, the API server's
own among them, must start from them where neither API server nor state.db is there.

A file is whole and durable or not there. Daemon and standalone processes take turns by the folder's
lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from metaplugin.cni.errors import CNIError, InvalidNetworkConfig
from metaplugin.cni.raw import JSONObject, dump, load_object
from metaplugin.commands.ports import Name
from metaplugin.npwg.definition import NetworkAttachmentDefinition, definition_from_object
from metaplugin.npwg.names import require_label, require_subdomain
from metaplugin.state.folders import opened

log = logging.getLogger(__name__)

_UNFINISHED = ".unfinished"  # no namespace's name
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class DefinitionFolder:
    """`<folder>/<namespace>/<name>`, which needs no more than a file system. OSErrors are the
    caller's to tell."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[Name, NetworkAttachmentDefinition] = {}

    def holds(self, definition: NetworkAttachmentDefinition) -> bool:
        """Say whether this process has brought the definition here as it is; asks no disk."""
        return self._held.get((definition.namespace, definition.name)) == definition

    def names(self) -> list[Name]:
        """Return whose files there are."""
        return [
            (path.parent.name, path.name)
            for path in sorted(self._folder.glob("[!.]*/*"))
            if self._path((path.parent.name, path.name))
        ]

    def read(self, name: Name) -> NetworkAttachmentDefinition | None:
        """Return the definition; None where there is none, or none that can be read."""
        path = self._path(name)
        if path is None:
            return None
        try:
            found = definition_from_object(load_object(path.read_bytes(), what=str(path)))
        except FileNotFoundError:
            return None
        except CNIError as exc:
            log.error("kept definition unreadable", extra={"path": str(path), "error": exc.msg})
            return None
        return found if (found.namespace, found.name) == name else None

    def keep(self, definition: NetworkAttachmentDefinition) -> None:
        """Have the definition here, as it is."""
        name = (definition.namespace, definition.name)
        if self._path(name) and self.read(name) != definition:
            with self._locked() as folder:
                with suppress(FileExistsError):
                    os.mkdir(name[0], 0o700, dir_fd=folder)
                with opened(name[0], within=folder) as namespace:
                    _replace(name[1], namespace, dump(definition_object(definition)), folder)
                os.fsync(folder)
        self._held[name] = definition

    def drop(self, name: Name) -> None:
        """Have no definition of that name here."""
        self._held.pop(name, None)
        if (path := self._path(name)) and path.exists():
            with self._locked() as folder:
                with opened(name[0], within=folder) as namespace:
                    with suppress(FileNotFoundError):
                        os.unlink(name[1], dir_fd=namespace)
                    os.fsync(namespace)
                with suppress(OSError):  # there are others
                    os.rmdir(name[0], dir_fd=folder)

    def follow(self, changes: Mapping[Name, NetworkAttachmentDefinition | None]) -> None:
        """Bring up to date those that are here."""
        for name, definition in changes.items():
            path = self._path(name)
            if path is None or not path.exists():
                continue
            if definition is None:
                self.drop(name)
            else:
                self.keep(definition)

    def _path(self, name: Name) -> Path | None:
        """Return where the definition would be, None for what no definition is named: an operator's
        configuration may ask for anything."""
        try:
            require_label(name[0], where="")
            require_subdomain(name[1], where="")
        except InvalidNetworkConfig:
            return None
        return self._folder.joinpath(*name)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync(self._folder.parent)
        with opened(self._folder) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor


def definition_object(definition: NetworkAttachmentDefinition) -> JSONObject:
    """Return the Kubernetes object that a definition was made of."""
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {
            "namespace": definition.namespace,
            "name": definition.name,
            "uid": definition.uid,
            "resourceVersion": definition.resource_version,
            "annotations": dict(definition.annotations),
        },
        "spec": {"config": definition.config} if definition.config else {},
    }


def newer(
    one: NetworkAttachmentDefinition | None, other: NetworkAttachmentDefinition | None
) -> NetworkAttachmentDefinition | None:
    """Return the one of the later version; `one` where that can't be told."""
    if one is None or other is None:
        return one or other
    versions = one.resource_version, other.resource_version
    if all(version.isascii() and version.isdigit() for version in versions):
        return max(one, other, key=lambda each: int(each.resource_version))
    return one


def _replace(name: str, namespace: int, content: bytes, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(_UNFINISHED, dir_fd=folder)
    descriptor = os.open(_UNFINISHED, _CREATE, 0o600, dir_fd=folder)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.rename(_UNFINISHED, name, src_dir_fd=folder, dst_dir_fd=namespace)
    os.fsync(namespace)


def _sync(folder: Path) -> None:
    with opened(folder) as descriptor:
        os.fsync(descriptor)
