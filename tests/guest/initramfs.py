"""A guest's first root: busybox, and the modules by which it gets at the machine's own."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from pathlib import Path

BUSYBOX = Path("/bin/busybox")  # static, by busybox-static
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")  # what the kernel may have built in
FOLDERS = ("bin", "modules", "proc", "sys", "dev", "machine", "own", "root")


def initramfs(modules: Path, init: bytes) -> bytes:
    """Return the archive: `modules` is the kernel's folder of modules, `init` the first program.

    The modules' names there sort in the order in which they are to be loaded.
    """
    entries = [_entry(name, 0o040755, b"") for name in FOLDERS]
    entries.append(_entry("init", 0o100755, init))
    entries.append(_entry("bin/busybox", 0o100755, BUSYBOX.read_bytes()))
    for position, path in enumerate(_in_order(modules)):
        name = f"modules/{position:02}-{path.name.removesuffix('.xz')}"
        entries.append(_entry(name, 0o100644, _contents(path)))
    return b"".join([*entries, _entry("TRAILER!!!", 0, b"")])


def _contents(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _in_order(modules: Path) -> list[Path]:
    """Return the files of MODULES, each after those that it needs."""
    lines = (modules / "modules.dep").read_text().splitlines()
    pairs = (line.split(":") for line in lines)
    needs = {name: needed.split() for name, needed in pairs}
    files = {Path(name).name.partition(".")[0].replace("-", "_"): name for name in needs}
    found = [files[name] for name in MODULES if name in files]
    return [modules / name for name in dict.fromkeys(_closure(found, needs))]


def _closure(names: list[str], needs: dict[str, list[str]]) -> Iterator[str]:
    for name in names:
        yield from _closure(needs[name], needs)
        yield name


def _entry(name: str, mode: int, data: bytes) -> bytes:
    """Return a file or folder in cpio's format that the kernel reads ("newc")."""
    path = name.encode() + b"\0"
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + path) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
