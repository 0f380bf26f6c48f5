"""Fetches what no Debian 12 package has, once, into the cache folder: a runtime that speaks CNI
1.1.0, and libcni on a command line, as Go modules; the next Debian's containerd, unpacked.

    python3 -m tests.runtimes.build

The standard library only: it runs before there is an environment.
"""

from __future__ import annotations

import subprocess
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


def trixie_folder() -> Path:
    """Return where the containerd of Debian's next release is."""
    return cache_folder() / "containerd-trixie" / "usr" / "bin"


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


def _unpack_trixie() -> None:
    """Take containerd 1.7 out of trixie's package, with lists that no other apt sees."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        folder = Path(name)
        (folder / "lists" / "partial").mkdir(parents=True)
        site = _output("apt-get", "indextargets", "--format", "$(SITE)").splitlines()[0]
        keys = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
        (folder / "sources.list").write_text(f"deb [{keys}] {site} trixie main\n")
        settings = {
            "APT::Sandbox::User": "root",  # another user can't write here
            "Dir::State::lists": f"{folder}/lists",
            "Dir::Etc::sourcelist": f"{folder}/sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
        }
        apt = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in settings.items())]
        for command in (["update"], ["download", "containerd"]):
            subprocess.run([*apt, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        [archive] = folder.glob("containerd_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, folder / "unpacked"], check=True)
        (folder / "unpacked").rename(cache_folder() / "containerd-trixie")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    if _missing():
        with alone():
            _build(_missing())
    if not trixie_folder().exists():
        with alone():
            if not trixie_folder().exists():
                _unpack_trixie()


if __name__ == "__main__":
    main()
