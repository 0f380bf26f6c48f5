"""The demo inside its namespaces; `metaplugin demo` starts it there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import click

from metaplugin.demo import report
from metaplugin.demo.claims import NotSoError
from metaplugin.demo.demo import Request, run_demo
from metaplugin.demo.namespaces import furnished
from metaplugin.demo.node import Node

ROOT = Path("/run/metaplugin-demo")


@click.command()
@click.option("--holder", type=int, required=True)
@click.option("--examples", type=click.Path(path_type=Path), required=True)
@click.option("--shim", type=click.Path(path_type=Path), required=True)
@click.option("--keep", is_flag=True)
def main(holder: int, examples: Path, shim: Path, *, keep: bool) -> None:
    """Run the demo; exit with 1 and the reason if something that it shows isn't so."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # the first process of a namespace has no defaults
        signal.signal(number, signal.default_int_handler)
    console = report.make_console()
    node = Node(root=ROOT, examples=examples)
    request = Request(examples=examples, shim=shim, keep=keep, holder=holder)
    try:
        with furnished():
            try:
                run_demo(request, node, console)
            except NotSoError as exc:
                report.show_failure(console, str(exc), node.last_words())
                sys.exit(1)
    except subprocess.CalledProcessError as exc:
        report.show_failure(console, f"{' '.join(exc.cmd)}: {exc.stderr.strip()}", "")
        sys.exit(1)
    except (OSError, subprocess.TimeoutExpired) as exc:
        report.show_failure(console, str(exc), "")
        sys.exit(1)


if __name__ == "__main__":
    main()
