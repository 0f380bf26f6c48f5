"""An image of Debian's static busybox alone, made here: no registry is asked."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

_COMMANDS = ("cat", "httpd", "ip", "ls", "ping", "sh", "sleep", "wget")  # more than sh finds itself
IMAGE = "tests.local/busybox:1"  # a name without a dot would be looked for at a registry


def root_file_system() -> bytes:
    """Return a tar of a container's root."""
    return _tar({"bin/busybox": Path("/bin/busybox").read_bytes()}, mode=0o755)


def oci_archive(name: str = IMAGE) -> bytes:
    """Return an OCI layout with one layer."""
    layer = root_file_system()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox", "sleep", "9999"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    blobs = {_digest(layer): layer}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(blobs, "application/vnd.oci.image.config.v1+json", config),
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": _digest(layer),
                "size": len(layer),
            }
        ],
    }
    entry = _blob(blobs, manifest["mediaType"], manifest)
    index = {
        "schemaVersion": 2,
        "manifests": [entry | {"annotations": {"io.containerd.image.name": name}}],
    }
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": _json(index)}
    files |= {f"blobs/{digest.replace(':', '/')}": blob for digest, blob in blobs.items()}
    return _tar(files)


def _blob(blobs: dict[str, bytes], media_type: object, content: object) -> dict[str, Any]:
    data = _json(content)
    blobs[_digest(data)] = data
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc", "proc", "sys", "dev") if "bin/busybox" in files else ():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        for name in _COMMANDS if "bin/busybox" in files else ():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
