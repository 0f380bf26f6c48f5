"""The command line: `metaplugin daemon`, `standalone`, `check`, `install`, `uninstall`, `migrate`,
`demo`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from metaplugin import __version__
from metaplugin.checkup import check_all
from metaplugin.cni.errors import CNIError
from metaplugin.daemon.app import run_daemon
from metaplugin.daemon.config import ConfigurationError, DaemonConfig, load_config
from metaplugin.daemon.logs import set_up_logging
from metaplugin.demo.bundle import EXAMPLES, SHIM
from metaplugin.demo.namespaces import enter
from metaplugin.install.cli import install, uninstall
from metaplugin.install.runtime_tree import hold_own_tree
from metaplugin.migrate.cli import migrate
from metaplugin.standalone import run_standalone


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Every network that a pod asks for, or a clear reason why not."""


main.add_command(migrate)
main.add_command(install)
main.add_command(uninstall)

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path("/etc/cni/metaplugin/daemon.yaml"),
    show_default=True,
    help="The configuration file.",
)


def _configured(path: Path) -> DaemonConfig:
    """Return the file's configuration, logging set up by it."""
    try:
        config = load_config(path)
    except ConfigurationError as exc:
        raise click.ClickException(str(exc)) from exc
    set_up_logging(config.log_level)
    return config


@main.command()
@config_option
@click.option("--descriptor", type=int, required=True, help="The shim's socket.")
def standalone(path: Path, descriptor: int) -> None:
    """Answer one shim's request: the shim starts this where no daemon runs (`fallback`)."""
    hold_own_tree()
    asyncio.run(run_standalone(_configured(path), descriptor))


@main.command()
@config_option
def daemon(path: Path) -> None:
    """Serve this node's shims until SIGTERM."""
    hold_own_tree()
    config = _configured(path)
    try:
        asyncio.run(run_daemon(config))
    except (OSError, ConfigurationError) as exc:
        raise click.ClickException(f"the daemon can't start: {exc}") from exc


@main.command()
@config_option
@click.option("--all", "everything", is_flag=True, required=True, help="Every attachment.")
@click.option(
    "--shim",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=Path("/opt/cni/bin/metaplugin"),
    show_default=True,
    help="The shim as the runtime executes it.",
)
@click.option("--cni-path", default="", help="Plugins' folders, by ':'; default: the shim's own.")
def check(path: Path, shim: Path, cni_path: str, *, everything: bool) -> None:
    """Have every attachment of this node checked (CNI's CHECK); exit with 1 if one has changed."""
    del everything  # said, so that a later form can name one pod
    config = _configured(path)
    try:
        findings = asyncio.run(check_all(config.state_dir, shim, cni_path or str(shim.parent)))
    except (CNIError, OSError) as exc:
        raise click.ClickException(f"the attachments can't be checked: {exc}") from exc
    for finding in findings:
        click.echo(f"{finding.record} {finding.pod or '-'}: {finding.problem or 'as it should be'}")
    changed = sum(bool(finding.problem) for finding in findings)
    click.echo(f"{len(findings)} attached, {changed} not as they should be")
    raise SystemExit(1 if changed else 0)


@main.command()
@click.option("--keep", is_flag=True, help="Leave the pods to look at, until ENTER or Ctrl-C.")
@click.option(
    "--examples",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    default=EXAMPLES,
    help="The folder with the examples (and cluster/ in it).",
)
@click.option(
    "--shim",
    type=click.Path(path_type=Path, resolve_path=True),
    default=SHIM,
    help="The shim.",
)
def demo(examples: Path, shim: Path, *, keep: bool) -> None:
    """Run every example in private namespaces, and verify all that is shown."""
    if os.geteuid() != 0:
        raise click.ClickException("the demo makes network namespaces: run it as root")
    options = ["--examples", str(examples), "--shim", str(shim)]
    enter([*options, "--keep"] if keep else options)


if __name__ == "__main__":
    main()
