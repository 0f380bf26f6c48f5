"""Builds what no Debian 12 package has, once, into the cache folder: a runtime that speaks CNI
1.1.0, and libcni on a command line.

    python3 -m tests.runtimes.build

They come as Go modules. The standard library only: it runs before there is an environment.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.controlplane.assets import cache_folder
from tests.controlplane.build import Go, alone

PACKAGES = (
    "github.com/containernetworking/cni/cnitool@v1.3.0",
    "github.com/containerd/containerd/v2/cmd/containerd@v2.3.4",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@v2.3.4",
)
_OPTIONS = ("-ldflags=-s -w", "-tags=no_btrfs,no_zfs,no_devmapper")  # what would need C libraries


def built_folder() -> Path:
    """Return where the programs are; its name changes with their versions."""
    versions = {package.rpartition("@")[2] for package in PACKAGES}
    return cache_folder() / "-".join(["runtimes", *sorted(versions)])


def _missing() -> list[str]:
    return [package for package in PACKAGES if not (built_folder() / _name(package)).exists()]


def _name(package: str) -> str:
    return package.rpartition("@")[0].rpartition("/")[2]


def _build(packages: list[str]) -> None:
    built_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        go = Go(GOBIN=folder)
        for package in packages:
            sys.stderr.write(f"building {package}, once: some minutes\n")
            go.run("install", *_OPTIONS, package)
            (Path(folder) / _name(package)).rename(built_folder() / _name(package))


def main() -> None:
    if _missing():
        with alone():
            _build(_missing())


if __name__ == "__main__":
    main()
