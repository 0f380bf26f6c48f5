"""The command line: `metaplugin daemon` and `metaplugin demo`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from metaplugin import __version__
from metaplugin.daemon.app import run_daemon
from metaplugin.daemon.config import ConfigurationError, load_config
from metaplugin.daemon.logs import set_up_logging


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Every network that a pod asks for, or a clear reason why not."""


@main.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("/etc/cni/metaplugin/daemon.yaml"),
    show_default=True,
    help="The configuration file.",
)
def daemon(path: Path) -> None:
    """Serve this node's shims until SIGTERM."""
    try:
        config = load_config(path)
    except ConfigurationError as exc:
        raise click.ClickException(str(exc)) from exc
    set_up_logging(config.log_level)
    try:
        asyncio.run(run_daemon(config))
    except OSError as exc:
        raise click.ClickException(f"the daemon can't start: {exc}") from exc
