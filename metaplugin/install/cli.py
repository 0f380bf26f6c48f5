"""`metaplugin install` and `metaplugin uninstall`: a node's disk, by hand or as the init container
of the DaemonSet."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from metaplugin.cni.errors import CNIError
from metaplugin.daemon.config import DaemonConfig, InstallationConfig
from metaplugin.demo.bundle import SHIM
from metaplugin.install.conflist import conflist
from metaplugin.install.default_network import network_on_disk
from metaplugin.install.detection import UNSEEN, Choice, Places, below, detect
from metaplugin.install.files import InstallError, put
from metaplugin.install.installing import (
    Plan,
    load_source,
    require_folder,
    require_multus_gone,
)
from metaplugin.install.installing import install as put_everything
from metaplugin.install.runtime_tree import RuntimeTree, own_tree, read_tree
from metaplugin.install.uninstalling import Removal
from metaplugin.install.uninstalling import uninstall as remove_everything

CONFIG = Path("/etc/cni/metaplugin/daemon.yaml")
LOOK_AGAIN_S = 1

_PATH = click.Path(path_type=Path)


_Function = TypeVar("_Function", bound=Callable[..., None])


def _option(name: str, help_text: str) -> Callable[[_Function], _Function]:
    variable = f"METAPLUGIN_{name.strip('-').replace('-', '_').upper()}"
    return click.option(name, type=_PATH, envvar=variable, show_envvar=True, help=help_text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The paths that were named; what wasn't has a default, or is looked for."""

    root: Path | None
    config: Path | None
    bin_dir: Path | None
    conf_dir: Path | None
    from_config: Path | None = None
    runtime_tree: Path | None = None
    shim: Path | None = None

    @property
    def host(self) -> Path:
        """Where the host's folders are seen."""
        return self.root or Path("/")

    @property
    def config_path(self) -> Path:
        """The daemon's file, as the host names it."""
        return self.config or CONFIG


def _root(function: _Function) -> _Function:
    return _option("--root", "Where the host's folders are seen, by itself at /.")(function)


def _config(function: _Function) -> _Function:
    return _option("--config", f"The daemon's file on the host, by itself {CONFIG}.")(function)


def _bin_dir(function: _Function) -> _Function:
    return _option("--bin-dir", "The runtime's folder of plugins (detected).")(function)


def _conf_dir(function: _Function) -> _Function:
    return _option("--conf-dir", "The runtime's folder of CNI configurations (detected).")(function)


@click.command()
@_root
@_config
@_option("--from-config", "A file to copy to --config.")
@_bin_dir
@_conf_dir
@_option("--runtime-tree", "The runtime for cold starts (this program's own).")
@_option("--shim", "The shim (this program's own).")
@click.option(
    "--runtime/--no-runtime",
    default=True,
    help="Have the shim start the runtime where no daemon runs (by itself it does).",
)
@click.option("--configuration", is_flag=True, help="Write the CNI configuration, too.")
@click.option(
    "--wait", default=120, show_default=True, help="Seconds to wait for a default network."
)
def install(wait: int, *, configuration: bool, runtime: bool, **paths: Path | None) -> None:
    """Put shim, its file, the runtime and the configuration on this node.

    What is equal stays as it is. The runtime's CNI configuration is the daemon's to write, if
    `installation` is in its file.
    """
    try:
        _require_root()
        plan = _plan(Asked(**paths), runtime=runtime)
        for what, choice in (
            ("plugins", plan.places.bin_dir),
            ("CNI configurations", plan.places.conf_dir),
        ):
            click.echo(f"{choice.path}: the runtime's {what} ({choice.reason})")
        if configuration:
            require_multus_gone(plan)
            _require_default_network(plan)
        put_everything(plan, click.echo)
        if configuration:
            _put_configuration(plan, wait)
    except InstallError as exc:
        raise click.ClickException(str(exc)) from exc


@click.command()
@_root
@_config
@_bin_dir
@_conf_dir
@click.option("--force", is_flag=True, help="Although a daemon runs or pods have attachments.")
@click.option("--purge", is_flag=True, help="The state as well: records, caches.")
def uninstall(*, force: bool, purge: bool, **paths: Path | None) -> None:
    """Take metaplugin off this node, which has been drained and has no daemon any more.

    The default network's configuration becomes the runtime's again.
    """
    try:
        _require_root()
        asked = Asked(**paths)
        root = asked.host
        found = below(root, asked.config_path)
        ours = load_source(found) if found.exists() else DaemonConfig()
        stated = ours.installation.cni_conf_dir if ours.installation else None
        places = detect(root, asked.bin_dir, asked.conf_dir or stated)
        removal = Removal(
            bin_dir=below(root, places.bin_dir.path),
            conf_dir=below(root, places.conf_dir.path),
            state_dir=below(root, ours.state_dir),
            run_dir=below(root, ours.run_dir),
            config_path=found,
            force=force,
            purge=purge,
        )
        remove_everything(removal, click.echo)
    except InstallError as exc:
        raise click.ClickException(str(exc)) from exc


def _require_root() -> None:
    if os.geteuid() != 0:
        raise InstallError("what is installed is root's: run this as root")


def _places(asked: Asked, config: DaemonConfig) -> Places:
    """Return the runtime's folders; raise InstallError where the daemon would write its
    configuration to another than the runtime reads."""
    places = detect(asked.host, asked.bin_dir, asked.conf_dir)
    if config.installation is None:
        return places
    stated, found = config.installation.cni_conf_dir, places.conf_dir
    if found.reason == UNSEEN:
        found = Choice(path=stated, reason="installation.cniConfDir of the daemon's file")
    if found.path != stated:
        raise InstallError(
            f"installation.cniConfDir: the daemon would write to {stated}, but the runtime reads "
            f"{found.path} ({found.reason}): correct the daemon's file, or say by --conf-dir that "
            f"{stated} is right"
        )
    return Places(bin_dir=places.bin_dir, conf_dir=found)


def _plan(asked: Asked, *, runtime: bool) -> Plan:
    source = asked.from_config or below(asked.host, asked.config_path)
    if not source.exists():
        raise InstallError(
            f"{source}: there is no such file: write the daemon's configuration first (the least "
            "of it: `kubernetes: {}` and `installation: {}`), or name one with --from-config"
        )
    ours = load_source(source)
    tree = _tree(asked) if runtime else None
    to_start = runtime and tree is None and asked.host == Path("/")
    return Plan(
        root=asked.host,
        places=_places(asked, ours),
        config=ours,
        config_path=asked.config_path,
        source=asked.from_config,
        shim=asked.shim or SHIM,
        tree=tree,
        other_program=_own_program() if to_start else None,
        node_name=os.environ.get("NODE_NAME", ""),
    )


def _tree(asked: Asked) -> RuntimeTree | None:
    return read_tree(asked.runtime_tree) if asked.runtime_tree else own_tree()


def _own_program() -> Path | None:
    """Return this program of a virtual environment: what is started as root has to be root's."""
    name = shutil.which(sys.argv[0])
    path = Path(name).absolute() if name else None
    return path if path and path.name == "metaplugin" and path.stat().st_uid == 0 else None


def _require_default_network(plan: Plan) -> None:
    if not plan.config.settings().cluster_network:
        raise InstallError(
            f"{plan.source or plan.config_path}: clusterNetwork: no pod could start without one; "
            f"`installation: {{cniConfDir: {plan.places.conf_dir.path}}}` makes it the first there"
        )


def _put_configuration(plan: Plan, wait: int) -> None:
    """Write the runtime's configuration as soon as there is a default network; raise
    InstallError."""
    installation = plan.config.installation or InstallationConfig()
    folder = plan.here(plan.places.conf_dir.path)
    require_folder(folder, "CNI configurations", plan.places.conf_dir.reason, "--conf-dir")
    reference = plan.config.settings().cluster_network
    deadline, told = time.monotonic() + wait, ""
    with ThreadPoolExecutor(max_workers=1) as disk:
        while True:
            try:
                network = asyncio.run(
                    network_on_disk(reference, plan.config.conf_dir, plan.here, disk)
                )
                break
            except CNIError as exc:
                if time.monotonic() > deadline:
                    raise InstallError(f"no default network can be used: {exc.msg}") from exc
                if told != exc.msg:
                    click.echo(f"waiting for a default network: {exc.msg}")
                    told = exc.msg
                time.sleep(LOOK_AGAIN_S)
    path = folder / installation.file_name
    changed = put(path, conflist(network, installation.network_name), mode=0o644)
    click.echo(f"{path}: {'written' if changed else 'as it should be'}")
