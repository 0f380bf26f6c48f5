"""Makes the image without a container engine (`make image`): an OCI layout in a tar, as
`ctr images import` and `skopeo copy oci-archive:` take it.

    .venv/bin/python -m deploy.image root build/runtime build/image
    .venv/bin/python -m deploy.image archive build/image dist/metaplugin-image.tar

What the image's configuration is stands in deploy/Containerfile; the root is the same folder for
both. The same root gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import platform
import shlex
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deploy.runtime_tree import PACKAGES, TIME
from metaplugin import __version__

CONTAINERFILE = Path(__file__).with_name("Containerfile")
# Never looked for at a registry; who has one gives it a name there (deploy/README.md).
NAME = f"localhost/metaplugin:{__version__}"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MEDIA = "application/vnd.oci.image"
_ROOT_USER = {
    "etc/passwd": "root:x:0:0:root:/:/nonexistent\n",
    "etc/group": "root:x:0:\n",
}
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

Blobs = dict[str, bytes]


def make_root(tree: Path, root: Path) -> None:
    """Make the image's root of the runtime; what was there goes."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(tree, root / "runtime")
    for name, text in _ROOT_USER.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    (root / _CERTIFICATES).parent.mkdir(parents=True)
    # For API servers whose kubeconfig names no authority; the service account has its own.
    shutil.copyfile(tree / PACKAGES / "certifi" / "cacert.pem", root / _CERTIFICATES)
    (root / "tmp").mkdir()  # a place to mount something writable at
    (root / "tmp").chmod(0o1777)


def configuration(containerfile: Path = CONTAINERFILE) -> dict[str, Any]:
    """Return the OCI configuration that the Containerfile's last stage gives."""
    config: dict[str, Any] = {"Env": []}
    for word, value in _last_stage(containerfile.read_text()):
        match word:
            case "ENV":
                config["Env"] += shlex.split(value)
            case "USER":
                config["User"] = value
            case "ENTRYPOINT" | "CMD":
                config[word.capitalize()] = json.loads(value)
            case "COPY" | "FROM":
                pass  # make_root's
            case _:
                raise ValueError(f"{containerfile}: {word} is not known here")
    return config


def _last_stage(text: str) -> Iterable[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    start = max(at for at, line in enumerate(lines) if line.startswith("FROM "))
    for line in lines[start:]:
        word, _, value = line.partition(" ")
        yield word, value.strip()


def make_archive(root: Path, archive: Path, name: str = NAME) -> None:
    """Write the image whose root is a folder."""
    layer = _tar((path, path.relative_to(root)) for path in sorted(root.rglob("*")))
    compressed = gzip.compress(layer, mtime=TIME)
    blobs: Blobs = {}
    config = {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": configuration(),
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": _blob(blobs, f"{_MEDIA}.config.v1+json", _json(config)),
        "layers": [_blob(blobs, f"{_MEDIA}.layer.v1.tar+gzip", compressed)],
    }
    entry = _blob(blobs, f"{_MEDIA}.manifest.v1+json", _json(manifest))
    # containerd takes the first of these names, podman and skopeo the second.
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index = {"schemaVersion": 2, "manifests": [entry | {"annotations": names}]}
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    files |= {f"blobs/{digest.replace(':', '/')}": blob for digest, blob in blobs.items()}
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w") as layout:
        for path, data in files.items():
            entry_of_file = tarfile.TarInfo(path)
            entry_of_file.size = len(data)
            layout.addfile(entry_of_file, io.BytesIO(data))


def _tar(paths: Iterable[tuple[Path, Path]]) -> bytes:
    """Return a tar of files and folders, root's, without their times."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, name in paths:
            entry = archive.gettarinfo(path, str(name))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mtime = TIME
            if entry.isdir():
                entry.mode = 0o1777 if entry.mode & 0o1000 else 0o755
                archive.addfile(entry)
            else:
                entry.mode = 0o755 if entry.mode & 0o111 else 0o644
                archive.addfile(entry, io.BytesIO(path.read_bytes()))
    return buffer.getvalue()


def _blob(blobs: Blobs, media_type: str, data: bytes) -> dict[str, Any]:
    blobs[_digest(data)] = data
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(required=True)
    for name, step in (("root", make_root), ("archive", make_archive)):
        command = steps.add_parser(name)
        command.add_argument("source", type=Path)
        command.add_argument("target", type=Path)
        command.set_defaults(step=step)
    arguments = parser.parse_args()
    arguments.step(arguments.source, arguments.target)


if __name__ == "__main__":
    main()
