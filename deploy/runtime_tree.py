"""Builds the runtime: Python, metaplugin and all that they load, in one folder that runs wherever
it is copied to (`make runtime`, deploy/Containerfile).

    .venv/bin/python -m deploy.runtime_tree FOLDER --wheel dist/….whl --wheels build/wheels

Nothing of the node is needed: `bin/metaplugin` is static and starts the interpreter by the tree's
own dynamic loader. The same inputs give the same bytes; the version says so, by their digest.
Debian's interpreter is the one that is taken: its modules are looked for where Debian has them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = ROOT / "deploy" / "launcher.c"
COMMAND = ("bin/metaplugin",)
TIME = 0  # of every file: the epoch
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = f"lib/{PYTHON}/dist-packages"  # Debian's name for site-packages

# Of the standard library: what has a display, a terminal or a compiler, and tests.
_UNUSED_STDLIB = (
    *("__phello__", "ctypes/macholib", "ctypes/test", "curses", "dbm", "dist-packages"),
    *("distutils", "ensurepip", "idlelib", "lib2to3", "msilib", "pydoc_data", "test", "tkinter"),
    *("turtle.py", "turtledemo", "unittest/test", "venv", "xmlrpc"),
    *("sitecustomize.py", "antigravity.py", "this.py", "doctest.py", "LICENSE.txt"),
    *("EXTERNALLY-MANAGED", "config-*", "lib-dynload/_curses*", "lib-dynload/_tkinter*"),
    *("lib-dynload/_dbm*", "lib-dynload/_gdbm*", "lib-dynload/readline*"),
    *("lib-dynload/_ctypes_test*", "lib-dynload/_test*", "lib-dynload/_xx*", "lib-dynload/xx*"),
)
# Of the packages: nothing that metaplugin imports, directly or not; tests/packaging starts it all.
_UNUSED_PACKAGES = (
    "bin",
    "kubernetes/aio",  # 68 MB: the client's other half, over aiohttp
    *("kubernetes/client/api/[!_]*", "kubernetes/client/models/[!_]*"),  # 57 MB, loaded when named
    "kubernetes/**/*_test.py",
    *("aiohttp*", "aiosignal*", "aiohappyeyeballs*", "attr", "attrs*", "frozenlist*"),
    *("multidict*", "propcache*", "yarl*"),
    *("pygments/lexers/[!_]*", "tzdata*"),
    *("_distutils_hack", "pkg_resources", "setuptools*", "distutils-precedence.pth"),
    *("grpc/_cython/*.pyx", "grpc/_cython/*.pxd*", "**/*.pyi", "**/*.pyx", "**/*.pxd"),
    *("pyroute2/**/tests", "**/*.dist-info/RECORD", "**/*.dist-info/INSTALLER"),
    *("**/*.dist-info/direct_url.json", "**/*.dist-info/REQUESTED", "**/*.dist-info/sboms"),
)
_OWN = "metaplugin"  # its sources stay, for the trace of a defect; the others' are bytecode alone


class Unbuildable(Exception):
    """The tree can't be built from what there is."""


def build(folder: Path, wheel: Path, wheels: Path) -> str:
    """Build the tree in `folder`, which must not exist; return its version."""
    folder.mkdir(parents=True)
    _copy_interpreter(folder)
    _install(folder / PACKAGES, wheel, wheels)
    for found in _matching(folder / PACKAGES, _UNUSED_PACKAGES):
        _remove(found)
    _keep_own_shim(folder / PACKAGES)
    _compile_all(folder)
    loader = _copy_libraries(folder)
    _build_launcher(folder, loader)
    _normalise(folder)
    version = f"{wheel.name.split('-')[1]}-{digest(folder)[:8]}"
    content = {"version": version, "command": COMMAND}
    (folder / "runtime.json").write_text(json.dumps(content, indent=2) + "\n")
    _normalise(folder)
    return version


def files_of(folder: Path) -> Iterator[Path]:
    """Yield every file below `folder`, in an order that is always the same."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def digest(folder: Path) -> str:
    """Return the SHA-256 of all names and contents."""
    content = hashlib.sha256()
    for path in files_of(folder):
        content.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        content.update(path.read_bytes())
    return content.hexdigest()


def _copy_interpreter(folder: Path) -> None:
    (folder / "bin").mkdir()
    shutil.copyfile(Path(sys.base_prefix) / "bin" / PYTHON, folder / "bin" / "python3")
    standard = Path(sysconfig.get_path("stdlib"))
    unused = set(_matching(standard, _UNUSED_STDLIB))

    def ignored(parent: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "__pycache__" or Path(parent, name) in unused]

    shutil.copytree(standard, folder / "lib" / PYTHON, ignore=ignored)


def _install(target: Path, wheel: Path, wheels: Path) -> None:
    """Install the wheel and what it depends on, as constraints.txt has it, from files alone."""
    command: list[str | Path] = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-index", "--find-links", wheels, "-c", ROOT / "constraints.txt"),
        *("--no-compile", "--target", target),
        "--root-user-action=ignore",  # its warning is about a system's packages
    ]
    subprocess.run([*command, wheel], check=True)


def _keep_own_shim(packages: Path) -> None:
    """Leave the shim of this machine's architecture, the only one that this tree can serve."""
    for found in (packages / _OWN / "shim").iterdir():
        if found.name != "bin":
            _remove(found)
    for found in (packages / _OWN / "shim" / "bin").iterdir():
        if found.name != platform.machine():
            _remove(found)


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return [found for pattern in patterns for found in folder.glob(pattern)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _compile_all(folder: Path) -> None:
    """Replace sources by bytecode that no import compares with anything: the tree is read-only."""
    own = folder / PACKAGES / _OWN
    beside = folder.parent / f"{folder.name}.own"
    own.rename(beside)
    _compile(folder, "-b")  # in the sources' place
    for source in [path for path in files_of(folder) if path.suffix == ".py"]:
        source.unlink()
    beside.rename(own)
    _compile(own)


def _compile(folder: Path, *options: str) -> None:
    """Compile in an interpreter that has done nothing else: what it holds shows in the bytecode."""
    mode = ["--invalidation-mode", "unchecked-hash", "-s", str(folder), *options]
    command = [sys.executable, "-I", "-m", "compileall", "-q", *mode, str(folder)]
    subprocess.run(command, check=True)


def _copy_libraries(folder: Path) -> str:
    """Copy the libraries that the tree's programs and modules load; return the loader's name."""
    own = folder.resolve()
    needed = {
        name: path
        for program in files_of(folder)
        if _is_dynamic(program)
        for name, path in _libraries(program)
        if not path.is_relative_to(own)
    }
    for name, path in needed.items():
        shutil.copyfile(path, folder / "lib" / name)
    loaders = [name for name in needed if name.startswith("ld-")]
    if len(loaders) != 1:
        raise Unbuildable(f"one dynamic loader is expected, not {loaders}")
    return loaders[0]


def _is_dynamic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF" and path.name != _OWN  # shim and launcher are static


def _libraries(program: Path) -> Iterator[tuple[str, Path]]:
    """Yield what the loader would load: the name that is looked for, and where it is here."""
    command = ["/usr/bin/ldd", str(program)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "not found" in listed:
        raise Unbuildable(f"{program} needs a library that isn't here:\n{listed}")
    for name, path in re.findall(r"^\s*(?:(\S+) => )?(/\S+) \(", listed, re.MULTILINE):
        yield name or Path(path).name, Path(path).resolve()


def _build_launcher(folder: Path, loader: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        built = Path(temporary) / "metaplugin"
        compiler = ["musl-gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Os", "-static", "-s"]
        definition = f'-DLOADER="{loader}"'
        subprocess.run([*compiler, definition, "-o", built, LAUNCHER], check=True)
        shutil.copyfile(built, folder / COMMAND[0])


def _normalise(folder: Path) -> None:
    """Give every file and folder the same time, and the mode that it needs."""
    programs = {folder / "bin" / "python3", folder / COMMAND[0]}
    programs |= set((folder / "lib").glob("ld-*"))
    programs |= set((folder / PACKAGES / _OWN / "shim").rglob("metaplugin"))
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
                continue
            path.chmod(0o755)
        else:
            path.chmod(0o755 if path in programs else 0o644)
        os.utime(path, (TIME, TIME))
    folder.chmod(0o755)
    os.utime(folder, (TIME, TIME))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.folder.exists():
        shutil.rmtree(arguments.folder)
    sys.stdout.write(build(arguments.folder, arguments.wheel, arguments.wheels) + "\n")


if __name__ == "__main__":
    main()
