"""What `metaplugin uninstall` does: the runtime's CNI configuration goes first, so that the default
network's is the first again; the shim goes when nothing is left that only it can undo.

Runtimes take the configuration of the moment for a DEL: pods with records would lose their extra
networks' DELs, so they have to go before.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metaplugin.install.conflist import BAK_SUFFIX, installed, kind_of
from metaplugin.install.files import InstallError, content_of, put, remove
from metaplugin.install.installing import SHIM, SHIM_CONF, Say, taking_turns
from metaplugin.install.runtime_tree import remove_trees
from metaplugin.install.texts import GENERATED
from metaplugin.state.records import survey
from metaplugin.wire.container import DamagedRecord

RUN_ENTRIES = ("daemon.sock", ".daemon.sock.*", "locks", "turns")
STATE_ENTRIES = ("attachments", "definitions", "state.db*", "tombstones")
SETTLE_S = 1  # runtimes take a changed folder in within this
CALLS_S = 10  # a call that runs, and isn't stuck, ends within this


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What to remove, by paths as seen here; `force` although it is needed, `purge` the state."""

    bin_dir: Path
    conf_dir: Path
    state_dir: Path
    run_dir: Path
    config_path: Path
    force: bool
    purge: bool


def uninstall(removal: Removal, say: Say) -> None:
    """Remove what `install` and the daemon have put; raise InstallError, before anything is removed
    where a daemon or pods still need it."""
    with taking_turns(removal.state_dir):
        _require_unused(removal, say)
        _remove_configuration(removal, say)
        for name in (SHIM, SHIM_CONF):
            _told(remove(removal.bin_dir / name), removal.bin_dir / name, say)
        if (content_of(removal.config_path) or b"").startswith(GENERATED):
            _told(remove(removal.config_path), removal.config_path, say)
            with suppress(OSError):
                removal.config_path.parent.rmdir()  # somebody's net.d may be there
        _remove_ours(removal.run_dir, RUN_ENTRIES, say)
        versions = removal.state_dir / "runtime"
        for version in remove_trees(versions, keep=()):
            say(f"{versions / version}: removed")
        with suppress(OSError):
            versions.rmdir()  # somebody may still run from one
        if removal.purge:
            _remove_ours(removal.state_dir, STATE_ENTRIES, say)


def _require_unused(removal: Removal, say: Say) -> None:
    problems = []
    if _is_served(removal.run_dir):
        problems.append(
            "a daemon runs, which would put the CNI configuration back: end it first (delete the "
            "DaemonSet, or stop the service)"
        )
    if left := list(_attachments(removal.state_dir)):
        problems.append(
            f"these attachments would never be released, for only our shim can: {'; '.join(left)}. "
            "Drain the node (kubectl drain --ignore-daemonsets), stop static pods too; what is "
            "gone already is released by a daemon within minutes"
        )
    if problems and not removal.force:
        raise InstallError("not uninstalled: " + " Also: ".join(problems))
    for problem in problems:
        say(f"--force: although {problem}")


def _remove_configuration(removal: Removal, say: Say) -> None:
    """Remove every configuration that names us, whoever wrote it: without the shim the runtime
    could start no pod by it. Put them back if a pod got attached meanwhile."""
    removed = {path: content_of(path) for path in _ours(removal.conf_dir)}
    for path in removed:
        _told(remove(path), path, say)
    if removed:
        time.sleep(SETTLE_S)
    _await_calls(removal.run_dir)
    started = list(_attachments(removal.state_dir))
    if started and not removal.force:
        for path, content in removed.items():
            put(path, content or b"", mode=0o644)
        raise InstallError(
            f"not uninstalled: pods have started meanwhile ({'; '.join(started)}): cordon the node "
            "before you drain it"
        )
    _tell_what_is_first(removal.conf_dir, say)


def _ours(folder: Path) -> list[Path]:
    """Return the configurations that name us, and what Cilium has made of one."""
    if not folder.is_dir():
        return []
    found = [each.path for each in installed(folder) if each.kind == "ours"]
    renamed = sorted(folder.glob(f"*{BAK_SUFFIX}"))
    return found + [path for path in renamed if kind_of(path) == "ours"]


def _tell_what_is_first(folder: Path, say: Say) -> None:
    left = installed(folder) if folder.is_dir() else []
    say(
        f"{left[0].path} is what the runtime goes by now"
        if left
        else f"{folder}: no CNI configuration is left: the node takes no pods"
    )


def _await_calls(run_dir: Path) -> None:
    """Wait for calls under way, which may be about to write a record."""
    deadline = time.monotonic() + CALLS_S
    locks = run_dir / "locks"
    while locks.is_dir() and any(locks.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)


def _attachments(state_dir: Path) -> Iterator[str]:
    for name, stored in survey(state_dir).items():
        if isinstance(stored, DamagedRecord):
            yield f"{name} (the record is damaged: {stored})"
        else:
            yield f"{name} (pod {stored.record.pod or 'unnamed'})"


def _is_served(run_dir: Path) -> bool:
    """Say whether a daemon listens. Its socket's path may be longer than a socket's may be."""
    try:
        folder = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1)
            client.connect(f"/proc/self/fd/{folder}/daemon.sock")
    except OSError:
        return False
    finally:
        os.close(folder)
    return True


def _remove_ours(folder: Path, patterns: Iterable[str], say: Say) -> None:
    """Remove what is ours in a folder that somebody may share with us, and the folder if nothing
    else is in it."""
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        say(f"{path}: removed")
    with suppress(OSError):
        folder.rmdir()


def _told(removed: bool, path: Path, say: Say) -> None:  # noqa: FBT001 - reads as a sentence
    if removed:
        say(f"{path}: removed")
