"""Another release of the image, made of the one that there is by a layer with what differs."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.image import NAME
from deploy.runtime_tree import PACKAGES
from metaplugin import __version__

VERSION = "0.9.0"
OTHER = f"{NAME.rpartition(':')[0]}:{VERSION}"
_OURS = PurePosixPath("runtime") / PACKAGES / "metaplugin"
_SHIM = _OURS / "shim" / "bin" / platform.machine() / "metaplugin"
_MANIFEST = PurePosixPath("runtime") / "runtime.json"
_SPEAKS = "Hello(PROTOCOL_VERSION, PROTOCOL_VERSION)"

Files = dict[str, bytes]


def other_release(archive: Path, target: Path) -> bytes:
    """Write the image `OTHER`: it has another version, so its runtime's folder has another name, a
    shim with other bytes, and a daemon that speaks a newer protocol too. Return that shim."""
    with tarfile.open(archive) as opened:
        layout = {each.name: _read(opened, each.name) for each in opened if each.isfile()}
    index = json.loads(layout["index.json"])
    manifest = json.loads(_blob(layout, index["manifests"][0]))
    config = json.loads(_blob(layout, manifest["config"]))
    with tarfile.open(fileobj=io.BytesIO(_blob(layout, manifest["layers"][0]))) as layer:
        changed = _changed(layer)
    over = _tar(changed)
    config["rootfs"]["diff_ids"].append(_digest(over))
    manifest["layers"].append(_add(layout, "application/vnd.oci.image.layer.v1.tar", over))
    manifest["config"] = _add(layout, manifest["config"]["mediaType"], _json(config))
    entry = _add(layout, manifest["mediaType"], _json(manifest))
    index["manifests"] = [entry | {"annotations": {"io.containerd.image.name": OTHER}}]
    target.write_bytes(_tar(layout | {"index.json": _json(index)}))
    return changed[str(_SHIM)]


def _changed(layer: tarfile.TarFile) -> Files:
    manifest = json.loads(_read(layer, str(_MANIFEST)))
    manifest["version"] = f"{VERSION}-{manifest['version'].rpartition('-')[2]}"
    shim = _read(layer, str(_SHIM)) + VERSION.encode()  # after all that the kernel loads
    files = {str(_MANIFEST): _json(manifest), str(_SHIM): shim}
    newer = _SPEAKS.replace("N)", "N + 1)")
    files |= _edited(layer, _OURS / "runner" / "session.py", _SPEAKS, newer)
    return files | _edited(layer, _OURS / "__init__.py", __version__, VERSION)


def _edited(layer: tarfile.TarFile, module: PurePosixPath, old: str, new: str) -> Files:
    """Return the module with another text, and what hides its bytecode."""
    text = _read(layer, str(module)).decode()
    assert old in text, f"{module}: {old}"
    cached = f"{module.stem}.cpython-{re.sub('[^0-9]', '', PACKAGES)}.pyc"
    hidden = module.parent / "__pycache__" / f".wh.{cached}"
    return {str(module): text.replace(old, new).encode(), str(hidden): b""}


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def _blob(layout: Files, descriptor: dict[str, Any]) -> bytes:
    return layout[_place(descriptor["digest"])]


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(layout: Files, media_type: str, data: bytes) -> dict[str, Any]:
    layout[_place(_digest(data))] = data
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def _tar(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755 if name == str(_SHIM) else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
