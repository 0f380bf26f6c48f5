"""`make soak`: daemon and API server killed at random for ten minutes, or so many seconds."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from tests.soak.soak import run_soak


@click.command()
@click.argument("seconds", default=600.0)
@click.option("--seed", default=lambda: time.time_ns() % 10_000, type=int, help="Repeats a run.")
def main(seconds: float, seed: int) -> None:
    """Soak, tell what was done, and exit with 1 if anything was wrong."""
    click.echo(f"{seconds:g} s, --seed {seed}")
    with tempfile.TemporaryDirectory() as root:
        soak = run_soak(Path(root), seconds, seed)
    for what, times in sorted(soak.done.items()):
        click.echo(f"{times:6} {what}")
    for wrong in soak.wrong:
        click.echo(f"WRONG: {wrong}")
    raise SystemExit(1 if soak.wrong else 0)


if __name__ == "__main__":
    main()
