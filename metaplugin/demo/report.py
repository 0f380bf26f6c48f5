"""How the demo's findings look: on a terminal, and as plain lines of 110 columns in a log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from metaplugin.demo.claims import Finding, NotSoError
from metaplugin.demo.cluster import Example
from metaplugin.demo.leftovers import Comparison
from metaplugin.demo.runtime import Sandbox
from metaplugin.demo.verification import View

LOG_WIDTH = 110


def make_console() -> Console:
    """Return the console for standard output; a log gets a width that tables fit in."""
    console = Console(highlight=False, emoji=False)  # `:ab:` is part of a MAC address, not an emoji
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def show_title(console: Console, title: str, file: str = "") -> None:
    """Show where a chapter begins, with the example's file if it is one's."""
    console.print()
    source = f"  [dim]examples/{escape(file)}[/dim]" if file else ""
    console.rule(f"[bold]{escape(title)}[/bold]{source}", align="left")


def show_step(console: Console, verb: str, text: str) -> None:
    console.print(f"[bold cyan]{verb:6}[/bold cyan] {escape(text)}")


def show_pod(console: Console, view: View) -> None:
    """Show a pod's interfaces as the kernel has them, then the network-status as it was written."""
    networks = {str(entry.get("interface")): str(entry.get("name")) for entry in view.status}
    # Four columns fit into a terminal of 80.
    table = _table(str(view.sandbox.pod), "interface", "network", "MAC, addresses", "routes")
    for name, interface in view.interfaces.items():
        table.add_row(
            f"{name}\nMTU {interface.mtu}",
            networks.get(name, "?"),
            "\n".join([interface.mac, *interface.addresses]),
            "\n".join(interface.routes),
        )
    console.print(table)
    console.print("network-status:", style="dim")
    for entry in view.status:
        console.print(f"  {escape(json.dumps(entry))}", style="dim", soft_wrap=True)


def show_findings(console: Console, findings: Iterable[Finding]) -> None:
    """Show each claim as it is looked into; raise NotSoError for all that don't hold."""
    problems = []
    for finding in findings:
        mark = "[red]NOT SO[/red]" if finding.problem else "[green]ok[/green]"
        console.print(f"  {mark} {escape(finding.claim)}")
        if finding.problem:
            problems.append(f"{finding.claim}: {finding.problem}")
    if problems:
        raise NotSoError("\n".join(problems))


def show_comparisons(console: Console, comparisons: Iterable[Comparison]) -> None:
    """Show what was there and what stays; raise NotSoError if anything is left."""
    table = _table("The node", "", "before", "during", "left", "kept by design")
    problems = []
    for comparison in comparisons:
        reasons = "\n".join(sorted(set(comparison.kept.values())))
        kept = f"{len(comparison.kept)}: {reasons}" if comparison.kept else ""
        count = len(comparison.left)
        left = f"[red]{count}[/red]" if count else "[green]0[/green]"
        table.add_row(comparison.kind, str(comparison.before), str(comparison.during), left, kept)
        problems += [f"left behind ({comparison.kind}): {thing}" for thing in comparison.left]
    console.print(table)
    if problems:
        raise NotSoError("\n".join(problems))


def show_failure(console: Console, reason: str, log: str) -> None:
    """Show why the demo ends here, with the daemon's last words."""
    console.print()
    console.print(Panel(escape(reason), title="THE DEMO FAILED", style="bold red"))
    if log:
        console.print("The daemon's log ends with:", style="bold")
        console.print(escape(log), soft_wrap=True)


def show_keeping(
    console: Console, sandboxes: Iterable[Sandbox], *, example: str, ending: str
) -> None:
    """Show how to look at the pods while they are kept."""
    names = ", ".join(sandbox.namespace for sandbox in sandboxes)
    lines = (
        f"The pods stay. Look at one of {names}:\n  {example}\nEverything is deleted on {ending}."
    )
    console.print()
    console.print(escape(lines), soft_wrap=True, style="bold")


def show_success(console: Console, examples: Sequence[Example], seconds: float) -> None:
    pods = sum(len(example.pods) for example in examples)
    console.print()
    console.print(
        f"[bold green]All of it is so:[/bold green] {len(examples)} examples, {pods} pods, nothing "
        f"left, {seconds:.1f} s."
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=escape(title), title_justify="left", title_style="bold")
    for column in table.columns:
        column.overflow = "fold"  # a shortened address says nothing
    return table
