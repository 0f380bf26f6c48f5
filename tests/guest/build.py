"""Brings together, once, into the cache folder, what a guest with SR-IOV needs: an emulator that
has a network card with virtual functions, a kernel that knows it, and the plugin that hands them
out.

    python3 -m tests.guest.build

Debian's packages are unpacked, not installed, and apt works on lists of its own: the machine's
sources stay as they are. The standard library only: it runs before there is an environment.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.controlplane.assets import cache_folder
from tests.controlplane.build import Go, alone

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
RELEASE = "bookworm"
BACKPORTS = f"{RELEASE}-backports"  # Debian 12's own qemu has no such card, its kernel no vfio here
EMULATOR = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
KERNEL = "linux-image-amd64"  # names the package of its newest version as what it depends on

SRIOV_CNI = "v2.1.0+incompatible"  # later ones are not served as Go modules
SRIOV_MODULE = f"""module sriov
go 1.21
require (
	github.com/intel/sriov-cni {SRIOV_CNI}
	github.com/containernetworking/cni v0.6.0
	github.com/containernetworking/plugins v0.7.5
	github.com/coreos/go-iptables v0.8.0
	github.com/vishvananda/netlink v1.0.0
	github.com/vishvananda/netns v0.0.5
	golang.org/x/sys v0.36.0
)
replace github.com/intel/sriov-cni => github.com/k8snetworkplumbingwg/sriov-cni {SRIOV_CNI}
"""


@dataclass(frozen=True)
class Parts:
    """Where the parts lie in the folder; `root` is the packages' common root."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def plugins(self) -> Path:
        return self.folder / "plugins"

    @property
    def emulator(self) -> Path:
        return self.root / "usr" / "bin" / "qemu-system-x86_64"

    @property
    def libraries(self) -> tuple[Path, ...]:
        return tuple(self.root / lib / "x86_64-linux-gnu" for lib in ("usr/lib", "lib"))

    @property
    def firmware(self) -> tuple[Path, ...]:
        usr = self.root / "usr"
        return (usr / "share" / "qemu", usr / "share" / "seabios", usr / "lib" / "ipxe" / "qemu")

    @property
    def kernel(self) -> Path:
        (kernel,) = (self.root / "boot").glob("vmlinuz-*")
        return kernel

    @property
    def modules(self) -> Path:
        return self.root / "lib" / "modules" / self.kernel.name.removeprefix("vmlinuz-")

    @property
    def kmod(self) -> Path:
        return self.root / "bin" / "kmod"


def parts() -> Parts:
    """Return where the parts are, or will be; the folder's name changes with what is chosen here,
    not with what the archive has: delete it to get newer packages."""
    return Parts(cache_folder() / f"guest-{BACKPORTS}-{SRIOV_CNI.partition('+')[0]}")


def require_parts() -> Parts:
    """Return the parts; raise FileNotFoundError with the remedy."""
    found = parts()
    if not found.folder.exists():
        raise FileNotFoundError("there is no guest yet: run `make guest`")
    return found


class Apt:
    """apt-get with sources, lists and cache in a folder of its own, and the machine's packages as
    what is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        origin = f"[signed-by={KEYRING}] {_mirror()}"
        sources = "".join(f"deb {origin} {suite} main\n" for suite in (RELEASE, BACKPORTS))
        settings = {
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Debug::NoLocking": "true",  # nothing of the machine's is written
            "APT::Sandbox::User": "root",  # who can read this folder
            "APT::Install-Recommends": "false",
            "Acquire::Languages": "none",
        }
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "sources.list").write_text(sources)
        lines = (f'{key} "{value}";\n' for key, value in settings.items())
        (folder / "apt.conf").write_text("".join(lines))
        self.run("apt-get", "update")

    def run(self, *command: str) -> str:
        return subprocess.run(
            [*command, "-q"],
            check=True,
            cwd=self._folder,
            env=os.environ | {"APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def download(self, *packages: str) -> None:
        """Download the packages with all that they need and this machine lacks."""
        options = ("--yes", "--download-only", "--reinstall")
        self.run("apt-get", "install", *options, *packages)

    def download_alone(self, package: str) -> None:
        self.run("apt-get", "download", package)

    def needed_by(self, package: str) -> str:
        """Return the first package that this one depends on."""
        found = re.search(r"Depends: (\S+)", self.run("apt-cache", "depends", package))
        if found is None:
            raise LookupError(f"{package} depends on nothing")
        return found[1]

    def unpack(self, target: Path) -> None:
        for archive in sorted(self._folder.rglob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive, target], check=True)


def _mirror() -> str:
    """Return from where this machine gets Debian; LookupError where it isn't this release."""
    form = ("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)")
    lines = subprocess.run(form, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    for uri, release in (line.split() for line in lines):
        if release == RELEASE:
            return uri
    raise LookupError(f"apt's sources on this machine have no {RELEASE}")


def _unpack_packages(target: Parts) -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        apt = Apt(Path(name))
        apt.download("kmod", *(f"{package}/{BACKPORTS}" for package in EMULATOR))
        apt.download_alone(apt.needed_by(f"{KERNEL}/{BACKPORTS}"))
        apt.unpack(target.root)
    # What kmod does goes by the name that it is called by.
    depmod: list[str | Path] = ["depmod", "-b", target.root, target.modules.name]
    subprocess.run(depmod, executable=target.kmod, check=True)


def _build_plugin(target: Parts) -> None:
    target.plugins.mkdir()
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        (Path(name) / "go.mod").write_text(SRIOV_MODULE)
        package = "github.com/intel/sriov-cni/cmd/sriov"
        options = ("-o", str(target.plugins / "sriov"), "-ldflags=-s -w")
        Go().run("build", *options, package, folder=Path(name))


@contextmanager
def _complete(folder: Path) -> Iterator[Path]:
    """Lend a folder that becomes `folder` when all of it is there."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        new = Path(name) / "new"
        new.mkdir()
        yield new
        new.rename(folder)


def main() -> None:
    if parts().folder.exists():
        return
    with alone():
        if parts().folder.exists():
            return
        sys.stderr.write("downloading a guest's kernel and emulator, once: 140 MB\n")
        with _complete(parts().folder) as new:
            _unpack_packages(Parts(new))
            _build_plugin(Parts(new))


if __name__ == "__main__":
    main()
