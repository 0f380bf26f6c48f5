"""The runtime tree: metaplugin with an interpreter of its own in one folder, which works wherever
it lies. On a node it is what the shim starts where no daemon runs.

The image has one, with `runtime.json` at its top. Each version gets a folder; one that is in use is
locked by whoever runs from it, so that nobody's modules vanish.
"""

from __future__ import annotations

import ctypes
import fcntl
import filecmp
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metaplugin.install.files import InstallError

MANIFEST = "runtime.json"
TRIAL_S = 60  # a node that boots is busy
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_PROGRAM = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_.-]+)*")
_KEYS = ("version", "command")
_AT_FDCWD, _EXCHANGE = -100, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeTree:
    """A tree, as its manifest says; `program` is relative to `root`."""

    root: Path
    version: str
    program: str


def read_tree(root: Path) -> RuntimeTree:
    """Return the tree in the folder; raise InstallError."""
    manifest = root / MANIFEST
    try:
        raw = json.loads(manifest.read_bytes())
    except OSError as exc:
        raise InstallError(f"{manifest}: no runtime tree: {exc.strerror}") from exc
    except ValueError as exc:
        raise InstallError(f"{manifest}: no JSON: {exc}") from exc
    version, command = (raw.get(k) if isinstance(raw, dict) else None for k in _KEYS)
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise InstallError(f"{manifest}: version: must be a name")
    if not isinstance(command, list) or len(command) != 1 or not isinstance(command[0], str):
        raise InstallError(f"{manifest}: command: must be one program: the shim passes no words on")
    if not _PROGRAM.fullmatch(command[0]):
        raise InstallError(f"{manifest}: command: {command[0]!r} is no path in the tree")
    return RuntimeTree(root=root, version=version, program=command[0])


def own_tree() -> RuntimeTree | None:
    """Return the tree that this program is part of; None for another kind of installation. Raise
    InstallError for a damaged one."""
    for folder in Path(__file__).parents:
        if (folder / MANIFEST).is_file():
            return read_tree(folder)
    return None


def hold_own_tree() -> None:
    """Keep the tree that this program runs from, if it is one, from being removed until it ends."""
    with suppress(OSError, InstallError):  # a damaged manifest is the installer's to complain of
        if tree := own_tree():
            descriptor = os.open(tree.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def install_tree(tree: RuntimeTree, versions: Path) -> bool:
    """Have a copy of the tree in the folder `versions`, under its version's name; return whether
    that changed anything. Raise InstallError: one that doesn't run there isn't left behind."""
    target = versions / tree.version
    unfinished = versions / f".{tree.version}.unfinished"
    try:
        versions.mkdir(mode=0o755, parents=True, exist_ok=True)
        if tree.root == target or (target.is_dir() and not _difference(tree.root, target)):
            return False
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            _copy(tree.root, unfinished)
            _try_out(unfinished / tree.program)
            _sync_file_system(versions)
            _take_place(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        _sync_file_system(versions)
    except OSError as exc:
        raise InstallError(f"{target}: the runtime can't be put there: {exc}") from exc
    return True


def remove_trees(versions: Path, *, keep: Collection[str]) -> list[str]:
    """Remove the trees that are not in `keep` and that nobody runs from, and what a crash has left;
    return their versions. Raise InstallError."""
    removed = []
    try:
        for folder in sorted(versions.iterdir()) if versions.is_dir() else []:
            if folder.name.startswith("."):
                shutil.rmtree(folder)
            elif folder.name not in keep and folder.is_dir() and not _in_use(folder):
                doomed = folder.with_name(f".{folder.name}.doomed")
                folder.rename(doomed)  # whole or gone
                shutil.rmtree(doomed)
                removed.append(folder.name)
    except OSError as exc:
        raise InstallError(f"{versions}: can't be tidied up: {exc}") from exc
    return removed


def _in_use(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            yield str(path.relative_to(root)), path.lstat()


def _difference(source: Path, target: Path) -> bool:
    """Say whether the trees differ, in content or mode; a crash may have emptied a file."""
    wanted, found = dict(_entries(source)), dict(_entries(target))
    if wanted.keys() != found.keys():
        return True
    for name, there in wanted.items():
        here = found[name]
        if stat.S_IFMT(there.st_mode) != stat.S_IFMT(here.st_mode) or here.st_uid != 0:
            return True
        if stat.S_ISREG(there.st_mode) and (
            _mode(there) != stat.S_IMODE(here.st_mode)
            or there.st_size != here.st_size
            or not filecmp.cmp(source / name, target / name, shallow=False)
        ):
            return True
    return False


def _mode(there: os.stat_result) -> int:
    return 0o755 if there.st_mode & 0o111 else 0o644


def _copy(source: Path, target: Path) -> None:
    """Copy plain files and folders, root's, readable by all, writable by root alone."""
    target.mkdir()
    target.chmod(0o755)
    for name, there in _entries(source):
        path = target / name
        if stat.S_ISDIR(there.st_mode):
            path.mkdir()
            path.chmod(0o755)
        elif stat.S_ISREG(there.st_mode):
            shutil.copyfile(source / name, path)
            path.chmod(_mode(there))
        else:
            raise OSError(f"{source / name} is neither a file nor a folder")


def _try_out(program: Path) -> None:
    """Run the program where it is going to be; raise InstallError."""
    try:
        done = subprocess.run(
            [program, "--version"], check=False, capture_output=True, timeout=TRIAL_S, env={}
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise InstallError(f"{program} does not run ({exc}): is its disk mounted noexec?") from exc
    if done.returncode != 0:
        raise InstallError(f"{program} does not run: {done.stderr.decode(errors='replace')[-500:]}")


def _take_place(new: Path, target: Path) -> None:
    """Rename; what is in the place already, damaged, changes places with it at once."""
    if not target.exists():
        new.rename(target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(new), os.fsencode(target))
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def _sync_file_system(path: Path) -> None:
    """Have all of the file system on disk: one call for thousands of files."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(descriptor)
