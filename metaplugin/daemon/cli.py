"""The command line: `metaplugin daemon` and `metaplugin demo`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from metaplugin import __version__
from metaplugin.daemon.app import run_daemon
from metaplugin.daemon.config import ConfigurationError, load_config
from metaplugin.daemon.logs import set_up_logging
from metaplugin.demo.namespaces import enter

REPOSITORY = Path(__file__).resolve().parents[2]


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


@main.command()
@click.option("--keep", is_flag=True, help="Leave the pods to look at, until ENTER or Ctrl-C.")
@click.option(
    "--examples",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    default=REPOSITORY / "examples",
    help="The folder with the examples (and cluster/ in it).",
)
@click.option(
    "--shim",
    type=click.Path(path_type=Path, resolve_path=True),
    default=REPOSITORY / "build" / "metaplugin-shim",
    help="The shim, as `make setup` builds it.",
)
def demo(examples: Path, shim: Path, *, keep: bool) -> None:
    """Run every example in private namespaces, and verify all that is shown."""
    if os.geteuid() != 0:
        raise click.ClickException("the demo makes network namespaces: run it as root")
    options = ["--examples", str(examples), "--shim", str(shim)]
    enter([*options, "--keep"] if keep else options)


if __name__ == "__main__":
    main()
