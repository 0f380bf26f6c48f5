"""`metaplugin migrate`: Multus's configuration as ours, or its pods as our records."""

from __future__ import annotations

import os
from pathlib import Path

import click

from metaplugin.daemon.config import ConfigurationError, DaemonConfig, load_config
from metaplugin.migrate.importing import Importer
from metaplugin.migrate.installation import Installation, MigrationError, read_installation
from metaplugin.migrate.record_writer import RecordStore
from metaplugin.migrate.rendering import printed, write
from metaplugin.migrate.translation import translate

MULTUS_CACHE = Path("/var/lib/cni/multus")
MULTUS_NETWORK = "multus-cni-network"

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option("--cni-config", type=_FILE, help="Multus's file in /etc/cni/net.d (looked for).")
@click.option("--daemon-config", type=_FILE, help="The thick daemon's daemon-config.json.")
@click.option("--manifest", type=_FILE, help="YAML with Multus's ConfigMap, in their place.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the files to this folder.")
@click.option("--import-cache", is_flag=True, help="Import the pods that Multus attached.")
@click.option("--cni-dir", type=click.Path(path_type=Path), help="Multus's cniDir.")
@click.option("--gone", is_flag=True, help="Import sandboxes that are gone, to be released.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("/etc/cni/metaplugin/daemon.yaml"),
    show_default=True,
    help="Our configuration, for the folders of the import.",
)
def migrate(
    cni_config: Path | None,
    daemon_config: Path | None,
    manifest: Path | None,
    output: Path | None,
    cni_dir: Path | None,
    config: Path,
    **flags: bool,
) -> None:
    """Print an installed Multus's configuration as ours; or import its pods' records.

    Nothing of Multus's is changed.
    """
    try:
        if flags["import_cache"]:
            installed = _installation(cni_config, daemon_config, manifest)
            _import(installed, cni_dir, config, gone=flags["gone"])
            return
        made = translate(read_installation(cni_config, daemon_config, manifest))
        if output:
            click.echo("\n".join(str(path) for path in write(made, output)))
        else:
            click.echo(printed(made), nl=False)
    except (MigrationError, ConfigurationError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


def _installation(*places: Path | None) -> Installation | None:
    """Return Multus's configuration if there is (still) one: an import can do without, but not
    with one that was named and can't be read."""
    try:
        return read_installation(*places)
    except MigrationError:
        if any(places):
            raise
        return None


def _import(
    installed: Installation | None, cni_dir: Path | None, config: Path, *, gone: bool
) -> None:
    keys = installed.keys if installed else None
    cache = cni_dir or Path(keys.cni_dir if keys and keys.cni_dir else MULTUS_CACHE)
    if not cache.is_dir():
        raise click.ClickException(f"{cache}: no cache of Multus; --cni-dir names another folder")
    if os.geteuid() != 0:
        raise click.ClickException("records are root's: run the import as root")
    ours = load_config(config) if config.exists() else DaemonConfig()
    store = RecordStore(state_dir=ours.state_dir, run_dir=ours.run_dir)
    store.prepare()
    importer = Importer(
        store=store,
        network=(keys.name if keys else "") or MULTUS_NETWORK,
        deadline_s=ours.deadlines.delegate_seconds,
        gone=gone,
    )
    counts = {True: 0, False: 0}
    for outcome in importer.run(cache):
        counts[outcome.imported] += 1
        verb = "imported" if outcome.imported else "not imported"
        click.echo(f"{outcome.container_id}: {verb}: {outcome.text}")
    click.echo(f"{counts[True]} imported, {counts[False]} not")
