"""The demo's story: start metaplugin, attach the pods of every example, show and verify them,
remove everything, and prove that nothing is left.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from metaplugin.demo import report
from metaplugin.demo.claims import Finding
from metaplugin.demo.cluster import Example, read_examples
from metaplugin.demo.inspection import interfaces
from metaplugin.demo.leftovers import MUST_APPEAR, bridges, compare, everything
from metaplugin.demo.namespaces import command
from metaplugin.demo.node import Node, install, running_daemon, stop
from metaplugin.demo.runtime import Runtime, Sandbox
from metaplugin.demo.verification import View, neighbour_findings, pod_findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the demo was asked for. `holder` is the process that holds its namespaces, by the number
    that it has outside of them."""

    examples: Path
    shim: Path
    keep: bool
    holder: int


def run_demo(request: Request, node: Node, console: Console) -> None:
    """Tell the whole story; raise NotSoError at the first part of it that isn't so."""
    started = time.monotonic()
    examples = read_examples(request.examples)
    install(node, request.shim)
    runtime = Runtime(folder=node.plugins, config=node.plugin_config())
    before = everything(node.root)
    sandboxes: list[Sandbox] = []
    with running_daemon(node) as daemon:
        report.show_step(console, "daemon", "serves, in network and mount namespaces of its own")
        for example in examples:
            sandboxes += attach_and_verify(example, node, runtime, console)
        during = everything(node.root)
        if request.keep:
            wait_for_the_reader(request.holder, sandboxes, console)
        report.show_title(console, "Everything deleted again")
        remove_all(sandboxes, runtime, console)
        stop(daemon)
        report.show_step(console, "daemon", "stopped by SIGTERM, exit code 0")
    prove_nothing_is_left(before, during, node, console)
    report.show_success(console, examples, time.monotonic() - started)


def attach_and_verify(
    example: Example, node: Node, runtime: Runtime, console: Console
) -> Sequence[Sandbox]:
    """Bring an example's pods up, show them, and look into every claim about them."""
    report.show_title(console, example.title, example.file)
    sandboxes = []
    for pod in example.pods:
        with console.status(f"ADD {pod}"):
            sandboxes.append(runtime.run(pod))
        report.show_step(console, "ADD", f"{pod} in {sandboxes[-1].took_ms} ms")
    views = [view(sandbox, node) for sandbox in sandboxes]
    for shown in views:
        report.show_pod(console, shown)
        report.show_findings(console, pod_findings(shown, runtime))
    report.show_findings(console, neighbour_findings(views))
    return sandboxes


def view(sandbox: Sandbox, node: Node) -> View:
    """Return what the kernel and the status folder say of a pod."""
    return View(
        sandbox=sandbox,
        interfaces=interfaces(sandbox.namespace),
        status=node.status(sandbox.pod),
    )


def remove_all(sandboxes: Sequence[Sandbox], runtime: Runtime, console: Console) -> None:
    """Detach every pod, the last one first."""
    for sandbox in reversed(sandboxes):
        with console.status(f"DEL {sandbox.pod}"):
            took_ms = runtime.remove(sandbox)
        report.show_step(console, "DEL", f"{sandbox.pod} in {took_ms} ms")


def prove_nothing_is_left(
    before: Mapping[str, set[str]], during: Mapping[str, set[str]], node: Node, console: Console
) -> None:
    """Show that the node is as it was but for what stays by design, and remove such bridges."""
    report.show_findings(console, appearance_findings(before, during))
    report.show_comparisons(console, compare(before, during, everything(node.root)))
    for bridge in bridges():
        command(["ip", "link", "delete", bridge])
        report.show_step(console, "remove", f"bridge {bridge}, which its plugin keeps")


def appearance_findings(
    before: Mapping[str, set[str]], during: Mapping[str, set[str]]
) -> Iterator[Finding]:
    """Yield that the examples did make things of each kind: else their absence proves nothing."""
    for kind in MUST_APPEAR:
        problem = "" if during[kind] - before[kind] else "there were none"
        yield Finding(
            claim=f"while the pods ran there were {kind} of theirs to see", problem=problem
        )


def wait_for_the_reader(holder: int, sandboxes: Sequence[Sandbox], console: Console) -> None:
    """Say how to look at the pods, and return on ENTER, Ctrl-C or SIGTERM; without a terminal, on a
    signal."""
    example = f"nsenter --target {holder} --mount --net ip -n {sandboxes[0].namespace} address"
    on_terminal = sys.stdin.isatty()
    ending = "ENTER or Ctrl-C here" if on_terminal else f"Ctrl-C, or kill -KILL {holder}"
    report.show_keeping(console, sandboxes, example=example, ending=ending)
    try:
        if on_terminal:
            sys.stdin.readline()
        else:
            signal.pause()
    except KeyboardInterrupt:
        console.print()
