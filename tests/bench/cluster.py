"""`make bench-cluster`: 110 pods at once on a node of a real cluster, without metaplugin, with it,
and with two extra networks each; a table."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from tests.bench.__main__ import machine
from tests.cluster.crowd import (
    NETWORKS,
    Started,
    delete_pods,
    extra_networks,
    start_pods,
)
from tests.cluster.machine import until
from tests.cluster.metaplugin import Metaplugin, install_default_network, install_plugins
from tests.cluster.node import Node
from tests.cluster.site import Site, running_site
from tests.controlplane.cluster import CRDS, RBAC

PODS = 110  # what a kubelet takes unless it is told otherwise
WARM_UP = 10
SETTLE_S = 3.0
PATIENCE_S = 600.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What it took to start all pods, and to have them gone."""

    started: Started
    gone: float
    cpu: float  # of all programs of the cluster, from the first create to the last Ready
    host_cpu: float  # of all that the machine did meanwhile
    daemon_cpu: float  # with the DELs

    def row(self, name: str, base: Figures) -> str:
        started = self.started
        middle, most = started.percentile(0.5), started.percentile(0.95)
        return (
            f"| {name} | {started.all:.1f} | {started.all / base.started.all:.2f} "
            f"| {middle:.1f} | {most:.1f} | {len(started.failures)} | {self.gone:.1f} "
            f"| {self.cpu:.0f} | {self.cpu / base.cpu:.2f} | {self.daemon_cpu:.1f} "
            f"| {max(0.0, 1 - self.cpu / self.host_cpu):.0%} |"
        )


COLUMNS = (
    "networks",
    "all Ready, s",
    "ratio",
    "median pod, s",
    "95 % of pods, s",
    "failed sandboxes",
    "gone, s",
    "CPU, s",
    "ratio",
    "of it the daemon's, DELs too, s",
    "CPU of others and kernel threads",
)


def programs_cpu() -> float:
    """Return the seconds of processor time that all programs of these namespaces took, and what
    they waited for."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = path.read_text().rpartition(")")[2].split()
            ticks += sum(int(each) for each in fields[11:15])
    return ticks * _TICK_S


def host_cpu() -> float:
    """Return the seconds of processor time that the whole machine has spent."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * _TICK_S


def measure(site: Site, metaplugin: Metaplugin, count: int, networks: str = "") -> Figures:
    """Start pods, and delete them; raise TimeoutError where something stays behind."""
    daemon = daemon_cpu(metaplugin)
    spent, on_host = programs_cpu(), host_cpu()
    started = start_pods(site, count, networks, seconds=PATIENCE_S)
    spent = programs_cpu() - spent
    on_host = host_cpu() - on_host
    gone = delete_pods(site, seconds=PATIENCE_S)
    until(lambda: metaplugin.footprint() == {}, lambda: str(metaplugin.footprint()))
    remove_sandboxes(metaplugin.node)
    time.sleep(SETTLE_S)
    return Figures(
        started=started,
        gone=gone,
        cpu=spent,
        host_cpu=on_host,
        daemon_cpu=daemon_cpu(metaplugin) - daemon,
    )


def remove_sandboxes(node: Node) -> None:
    """Remove what is left of ended pods: kubelets do once a minute, at the cost of who is next."""
    with node.runtime() as runtime:
        for sandbox in runtime.call("ListPodSandbox").items:
            runtime.call("RemovePodSandbox", pod_sandbox_id=sandbox.id)


def daemon_cpu(metaplugin: Metaplugin) -> float:
    if metaplugin.daemon is None:
        return 0
    fields = Path(f"/proc/{metaplugin.daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def memory_mb(metaplugin: Metaplugin, what: str) -> float:
    """Return a line of the daemon's memory: VmRSS, or VmHWM, its peak."""
    assert metaplugin.daemon is not None
    status = Path(f"/proc/{metaplugin.daemon.pid}/status").read_text()
    [kilobytes] = re.findall(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)
    return int(kilobytes) / 1000


def all_figures(site: Site, pods: int) -> tuple[dict[str, Figures], str]:
    """Return each case's figures by its name, and a line on the daemon's memory."""
    [node] = site.nodes
    metaplugin = Metaplugin(site, node, logLevel="info")
    install_plugins(node)
    install_default_network(node)
    site.wait_for_nodes()
    start_pods(site, min(WARM_UP, pods))
    delete_pods(site)
    remove_sandboxes(node)
    figures = {}

    def note(name: str, networks: str = "") -> None:
        click.echo(f"{name} …")
        figures[name] = measure(site, metaplugin, pods, networks)

    note("default network, no metaplugin")
    site.control.apply(*CRDS, RBAC)
    metaplugin.install()
    site.apply(*extra_networks())
    time.sleep(SETTLE_S)
    idle = memory_mb(metaplugin, "VmRSS")
    note("default network, metaplugin")
    note("default network, macvlan, bridge", NETWORKS)
    peak = memory_mb(metaplugin, "VmHWM")
    return figures, f"The daemon's RSS is {idle:.1f} MB before, {peak:.1f} MB at its peak."


def report(figures: dict[str, Figures], memory: str, pods: int, load: float) -> str:
    base = next(iter(figures.values()))
    rows = [
        f"| {' | '.join(COLUMNS)} |",
        "| --- " * len(COLUMNS) + "|",
        *(each.row(name, base) for name, each in figures.items()),
    ]
    text = f"""
{pods} pods created at once on one node, once each, after {WARM_UP} to warm up. All of the cluster,
etcd and API server too, is on one machine, whose processors are the limit: {machine()}.
Load average before: {load:.2f}. {memory}
"""
    return "\n".join([*rows, text])


@click.command()
@click.option("--pods", default=PODS, show_default=True, help="Pods at once.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"))
def main(pods: int, out: Path) -> None:
    """Measure, and write cluster.md."""
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory() as folder,
        running_site(Path(folder), nodes=1) as site,
    ):
        figures, memory = all_figures(site, pods)
    text = report(figures, memory, pods, load)
    out.mkdir(parents=True, exist_ok=True)
    (out / "cluster.md").write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()
