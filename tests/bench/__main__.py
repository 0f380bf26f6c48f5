"""The benchmark's story: single pods against the floor, bursts, CPU, memory; a table and a plot."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from tests.bench.endurance import endurance
from tests.bench.plot import bars
from tests.bench.shim_alone import shim_alone
from tests.bench.sides import Floor, Metaplugin, Side, network
from tests.system.node import Node, bridge_network, new_root

BURST_PODS, BURST_AT_ONCE, BURST_NETWORKS = 50, 16, 2
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figure:
    """Milliseconds over the floor: the median of the pairs' differences and its 95 % interval."""

    command: str
    networks: int
    floor: float
    ours: float
    over: float
    low: float
    high: float
    cpu: float

    def row(self) -> str:
        return (
            f"| {self.command} | {self.networks} | {self.floor:.1f} | {self.ours:.1f} | "
            f"{self.over:.1f} ({self.low:.1f} to {self.high:.1f}) | {self.ours / self.floor:.2f} | "
            f"{self.cpu:.1f} |"
        )


def main_pairs(node: Node, networks: int, pairs: int) -> list[Figure]:
    """Measure ADD and DEL of one pod after another, the two sides taking turns."""
    floor, ours = Floor(node, networks), Metaplugin(node, networks)
    took: dict[tuple[str, str], list[float]] = {}
    cpu: dict[tuple[str, str], float] = {}
    for _ in range(pairs + 5):
        for name, side in (("floor", floor), ("ours", ours)):
            for command in ("ADD", "DEL"):
                spent = cpu_seconds(node)
                took.setdefault((name, command), []).append(timed(side, command, f"bench-{name}"))
                cpu[name, command] = cpu.get((name, command), 0) + cpu_seconds(node) - spent
    floor.close()
    return [figure(command, networks, took, cpu, pairs) for command in ("ADD", "DEL")]


def timed(side: Side, command: str, pod: str) -> float:
    side.prepare(command, pod)
    started = time.perf_counter()
    side.run(command, pod)
    return (time.perf_counter() - started) * 1000


def cpu_seconds(node: Node) -> float:
    """Return the CPU time so far of the daemon, and of all shims and delegates that ended."""
    assert node.daemon is not None
    fields = Path(f"/proc/{node.daemon.pid}/stat").read_text().rpartition(")")[2].split()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (int(fields[11]) + int(fields[12])) * _TICK_S + children.ru_utime + children.ru_stime


def figure(
    command: str,
    networks: int,
    took: dict[tuple[str, str], list[float]],
    cpu: dict[tuple[str, str], float],
    pairs: int,
) -> Figure:
    floor, ours = (took[side, command][-pairs:] for side in ("floor", "ours"))
    differences = sorted(b - a for a, b in zip(floor, ours, strict=True))
    margin = round(0.98 * pairs**0.5)  # order statistics: 1.96 * sqrt(n) / 2 either side
    middle = pairs // 2
    return Figure(
        command,
        networks,
        statistics.median(floor),
        statistics.median(ours),
        statistics.median(differences),
        differences[max(0, middle - margin)],
        differences[min(pairs - 1, middle + margin)],
        (cpu["ours", command] - cpu["floor", command]) * 1000 / (pairs + 5),
    )


def burst(node: Node) -> tuple[float, float]:
    """Return the seconds that floor and metaplugin take to attach many pods, several at once."""
    pods = [f"burst-{i}" for i in range(BURST_PODS)]
    make_namespaces(pods)
    floor = Floor(node, BURST_NETWORKS)
    found: dict[str, list[float]] = {"floor": [], "ours": []}
    for _ in range(3):
        for name, side in (("floor", floor), ("ours", Metaplugin(node, BURST_NETWORKS))):
            found[name].append(together(side, "ADD", pods))
            together(side, "DEL", pods)
    floor.close()
    return statistics.median(found["floor"]), statistics.median(found["ours"])


def together(side: Side, command: str, pods: list[str]) -> float:
    for pod in pods:
        side.prepare(command, pod)
    with ThreadPoolExecutor(BURST_AT_ONCE) as pool:
        started = time.perf_counter()
        list(pool.map(lambda pod: side.run(command, pod), pods))
        return time.perf_counter() - started


def make_namespaces(names: list[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)


def started_node(networks: int) -> Node:
    root = new_root()
    node = Node(root, bridge_network(root, subnet="10.90.0.0/16"))
    for number in range(networks):
        node.define(f"macvlan{number}", network(root, number))
    node.daemon_keys["logLevel"] = "info"
    node.start()
    return node


def machine() -> str:
    model = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    processor = model[0] if model else platform.machine()
    return f"{os.cpu_count()} CPUs ({processor}), Linux {platform.release()}"


@click.command()
@click.option("--pairs", default=200, show_default=True, help="Pairs for each number of networks.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"))
def main(pairs: int, out: Path) -> None:
    """Measure, and write table.md and plot.svg."""
    link = ["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "wire1"]
    subprocess.run(link, check=True)
    for name in ("eth1", "wire1"):
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    make_namespaces(["bench-floor", "bench-ours"])
    node = started_node(8)
    figures: list[Figure] = []
    for networks in (0, 1, 2, 4, 8):
        click.echo(f"{networks} networks …")
        figures += main_pairs(node, networks, pairs)
        click.echo("\n".join(each.row() for each in figures[-2:]))
    click.echo("bursts …")
    floor_burst, our_burst = burst(node)
    click.echo("the shim alone, endurance …")
    lines = [burst_line(floor_burst, our_burst), shim_line(shim_alone())]
    lines.append(f"{endurance(node, 'bench-ours')}.")
    node.close()
    text = report(figures, lines, pairs)
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    (out / "plot.svg").write_text(
        bars([(f"{f.command} {f.networks}", f.floor, f.over) for f in figures])
    )
    click.echo(text)


def burst_line(floor: float, ours: float) -> str:
    return (
        f"{BURST_PODS} pods with {BURST_NETWORKS} networks, {BURST_AT_ONCE} at once: {ours:.2f} s, "
        f"the floor's own {floor:.2f} s, ratio {ours / floor:.2f}."
    )


def shim_line(milliseconds: float) -> str:
    return f"The shim alone against a trivial server: {milliseconds:.2f} ms."


def report(figures: list[Figure], lines: list[str], pairs: int) -> str:
    head = (
        "| command | extra networks | floor, ms | metaplugin, ms | over the floor, ms (95 %) "
        "| ratio | CPU beside the delegates, ms |\n| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    rows = "\n".join(each.row() for each in figures)
    items = "\n".join(f"- {line}" for line in lines)
    return (
        f"{head}{rows}\n\nMedians of {pairs} pairs, taking turns.\n{items}\n\n"
        f"Machine: {machine()}.\n"
    )


if __name__ == "__main__":
    main()
