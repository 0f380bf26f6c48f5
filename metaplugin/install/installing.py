"""What `metaplugin install` does, in an order in which every moment is a working node: the runtime
before the file that names it, the shim before what it reads, the runtime's CNI configuration last.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metaplugin.daemon.config import ConfigurationError, DaemonConfig, load_config
from metaplugin.install.conflist import installed
from metaplugin.install.detection import Places, below
from metaplugin.install.files import InstallError, content_of, locked, put
from metaplugin.install.runtime_tree import RuntimeTree, install_tree, remove_trees
from metaplugin.install.texts import GENERATED, host_config, shim_conf

SHIM, SHIM_CONF = "metaplugin", "metaplugin.conf"
KEPT_SUFFIX = ".before-install"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes where. `root` is where the host's folders are seen; all other paths are the
    host's, but for the sources."""

    root: Path
    places: Places
    config: DaemonConfig
    config_path: Path
    source: Path | None  # of the host's copy of the configuration
    shim: Path
    tree: RuntimeTree | None
    other_program: Path | None  # in place of a tree
    node_name: str

    @property
    def versions(self) -> Path:
        """The folder of runtimes, as the host names it."""
        return self.config.state_dir / "runtime"

    @property
    def fallback(self) -> Path | None:
        """The program that the shim is to start where no daemon runs, as the host names it."""
        if self.tree:
            return self.versions / self.tree.version / self.tree.program
        return self.other_program

    def here(self, path: Path) -> Path:
        """Return where the host's path is seen."""
        return below(self.root, path)


def load_source(path: Path) -> DaemonConfig:
    """Return the configuration; raise InstallError."""
    try:
        return load_config(path)
    except ConfigurationError as exc:
        raise InstallError(str(exc)) from exc


def install(plan: Plan, say: Say) -> None:
    """Put everything but the CNI configuration in its place; raise InstallError.

    Whatever is equal already is left alone. Two installers take turns.
    """
    shim = content_of(plan.shim)
    if shim is None:
        raise InstallError(f"{plan.shim}: there is no shim; --shim names another")
    bin_dir = plan.here(plan.places.bin_dir.path)
    require_folder(bin_dir, "plugins", plan.places.bin_dir.reason, "--bin-dir")
    with taking_turns(plan.here(plan.config.state_dir)):
        before = _runtime_named_by(bin_dir / SHIM_CONF, plan.versions)
        _put_runtime(plan, say)
        # A new runtime reads an old file; an old one may not know a new file's keys.
        absent = not plan.here(plan.config_path).exists()
        if absent:
            _put_config(plan, say)
        say(_told(bin_dir / SHIM, changed=put(bin_dir / SHIM, shim, mode=0o755)))
        _put_shim_conf(plan, bin_dir / SHIM_CONF, say)
        if not absent:
            _put_config(plan, say)
        keep = {before, plan.tree.version if plan.tree else before}
        for version in remove_trees(plan.here(plan.versions), keep=keep):
            say(f"{plan.versions / version}: removed, no longer used")


@contextmanager
def taking_turns(state_dir: Path) -> Iterator[None]:
    """Be the only installer; raise InstallError."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(state_dir.stat().st_mode) != 0o700:  # as the kubelet makes a hostPath
            state_dir.chmod(0o700)
        with locked(state_dir):
            yield
    except OSError as exc:
        raise InstallError(f"{state_dir}: {exc.strerror or exc}") from exc


def require_multus_gone(plan: Plan) -> None:
    """Raise InstallError where pods are Multus's to delete: its configuration is the first."""
    beside = plan.config.installation and plan.config.installation.beside_multus
    folder = plan.here(plan.places.conf_dir.path)
    require_folder(folder, "CNI configurations", plan.places.conf_dir.reason, "--conf-dir")
    first = next(iter(installed(folder)), None)
    if first and first.kind == "multus" and not beside:
        raise InstallError(multus_first(first.path))


def multus_first(path: Path) -> str:
    """Say what to do where Multus's configuration is the runtime's."""
    return (
        f"{path} makes Multus the runtime's plugin: `metaplugin migrate` prints its configuration "
        "as ours, `migrate --import-cache` takes its pods over; then remove this file, or set "
        "installation.besideMultus: true to have ours put before it"
    )


def require_folder(path: Path, what: str, reason: str, option: str) -> None:
    """Raise InstallError where a guess, or what was asked for, is no folder."""
    if not path.is_dir():
        raise InstallError(f"{path}: no such folder for {what} ({reason}); {option} names another")


def _runtime_named_by(conf: Path, versions: Path) -> str:
    """Return which of the `versions` the shim starts now, "" for none."""
    for line in (content_of(conf) or b"").decode(errors="replace").splitlines():
        key, _, value = line.partition("=")
        program = Path(value.strip())
        if key.strip() == "fallback" and program.is_relative_to(versions):
            return next(iter(program.relative_to(versions).parts), "")
    return ""


def _put_runtime(plan: Plan, say: Say) -> None:
    if plan.tree is None:
        say(
            f"no runtime tree is here: where no daemon runs the shim starts {plan.other_program}"
            if plan.other_program
            else "no runtime is installed: where no daemon runs, no pod starts (no fallback)"
        )
        return
    changed = install_tree(plan.tree, plan.here(plan.versions))
    say(_told(plan.versions / plan.tree.version, changed=changed))


def _put_shim_conf(plan: Plan, path: Path, say: Say) -> None:
    content = shim_conf(plan.config, fallback=plan.fallback, config_path=plan.config_path)
    _put_generated(path, content, say)


def _put_config(plan: Plan, say: Say) -> None:
    """Write the host's copy."""
    path = plan.here(plan.config_path)
    if plan.source is None:
        return
    source = content_of(plan.source)
    if source is None:
        raise InstallError(f"{plan.source}: there is no such file")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as exc:
        raise InstallError(f"{path.parent}: {exc.strerror}") from exc
    _put_generated(path, host_config(source, plan.config, node_name=plan.node_name), say)


def _put_generated(path: Path, content: bytes, say: Say) -> None:
    """Put a file; what somebody else wrote is kept beside it."""
    before = content_of(path)
    if before is not None and not before.startswith(GENERATED) and before != content:
        kept = path.with_name(path.name + KEPT_SUFFIX)
        if not os.path.lexists(kept):
            put(kept, before, mode=0o600)
            say(f"{kept}: what was in {path.name}")
    say(_told(path, changed=put(path, content, mode=0o600)))


def _told(path: Path, *, changed: bool) -> str:
    return f"{path}: {'written' if changed else 'as it should be'}"
