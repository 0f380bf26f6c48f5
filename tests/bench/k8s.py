"""`make bench-k8s`: what following a large cluster costs a node, with the real API server and the
double; a table."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import tempfile
import time
import timeit
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tests.apiserver.server import ApiServer
from tests.bench.__main__ import machine, make_namespaces, started_node, timed
from tests.bench.sides import Metaplugin, network
from tests.controlplane import objects
from tests.controlplane.cluster import running_cluster
from tests.controlplane.proxy import FaultProxy
from tests.k8s_scale import fleet
from tests.k8s_scale.fleet import DEFINITIONS, PODS
from tests.k8s_scale.follower import Follower
from tests.k8s_scale.upstream import Double, Real, Upstream

RESTARTS = 3
SETTLE_S = 1.0  # for what is in flight
API_POD, FOLDER_POD = "bench-api", "bench-folder"

Figures = dict[str, str]


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    events: int
    cuts: int
    pairs: int


def measure(upstream: Upstream, extent: Extent) -> Figures:
    """Return every figure of one API server, by name."""
    follower = Follower(upstream)
    try:
        idle = idle_memory(follower)
        fill(upstream, follower)
        return {
            **starting(follower, upstream),
            **keeping(follower, idle),
            **adding(follower, extent.pairs),
            **changing(follower, upstream, extent.events),
            **cutting(follower, upstream, extent.cuts),
        }
    finally:
        follower.close()


def idle_memory(follower: Follower) -> float:
    """Return the memory of a daemon whose cluster is empty."""
    follower.start()
    follower.wait_for(lambda: follower.synced)
    time.sleep(SETTLE_S)
    memory = follower.memory_mb()
    follower.stop()
    return memory


def fill(upstream: Upstream, follower: Follower) -> None:
    click.echo("  filling …")
    upstream.create(fleet.definitions(DEFINITIONS - 1))
    upstream.create([objects.net_attach_def("macvlan0", network(follower.node.root, 0))])
    upstream.create([*fleet.pods(PODS - 1), objects.pod(API_POD, node=fleet.NODE_NAME)])


def starting(follower: Follower, upstream: Upstream) -> Figures:
    """Start it some times, with ADDs while it lists; leave it running, all remembered."""
    click.echo("  starting …")
    side = Metaplugin(follower.node, 1)
    serving, synced, adds = [], [], []
    for start in range(RESTARTS):
        if start:
            follower.stop()
        upstream.tally()
        began = time.monotonic()
        follower.start()
        serving.append(time.monotonic() - began)
        while not follower.synced:
            adds.append(timed(side, "ADD", API_POD))
            side.run("DEL", API_POD)
        synced.append(time.monotonic() - began)
    follower.wait_for(lambda: follower.remembered("definition") == DEFINITIONS)
    time.sleep(SETTLE_S)
    asked = upstream.tally()
    return {
        "from exec to serving, s": f"{statistics.median(serving):.2f}",
        "from exec to all known, with ADDs meanwhile, s": f"{statistics.median(synced):.2f}",
        "requests of a start: lists' pages; watches": (
            f"{asked['list network-attachment-definitions']} + {asked['list pods']}; "
            f"{asked['watch network-attachment-definitions']} + {asked['watch pods']}"
        ),
        "ADD with 1 network while it lists, ms: median; longest": (
            f"{statistics.median(adds):.1f}; {max(adds):.1f} (of {len(adds)})"
        ),
    }


def keeping(follower: Follower, idle: float) -> Figures:
    """Tell what the daemon holds, now that it has all."""
    memory, peak = follower.memory_mb(), follower.memory_mb("VmHWM")
    state = sum(path.stat().st_size for path in (follower.node.root / "state").glob("state.db*"))
    return {
        "RSS with an empty cluster, MB": f"{idle:.1f}",
        "RSS with all, MB (at most 105); its peak": f"{memory:.1f}; {peak:.1f}",
        "above empty, MB (at most 25)": f"{memory - idle:.1f}",
        "state.db and its log, MB": f"{state / 1e6:.1f}",
    }


def adding(follower: Follower, pairs: int) -> Figures:
    """Take turns between this node and one whose cluster is a folder of manifests."""
    click.echo("  ADD, DEL …")
    follower.restart(observed=False)
    folder = started_node(1)
    figures: Figures = {}
    for networks in (0, 1):
        took: dict[str, list[float]] = {API_POD: [], FOLDER_POD: []}
        for _ in range(pairs):
            for node, pod in ((follower.node, API_POD), (folder, FOLDER_POD)):
                side = Metaplugin(node, networks)
                took[pod].append(timed(side, "ADD", pod))
                side.run("DEL", pod)
        api, manifests = (statistics.median(took[pod]) for pod in (API_POD, FOLDER_POD))
        over = statistics.median(
            a - b for a, b in zip(took[API_POD], took[FOLDER_POD], strict=True)
        )
        figures[f"ADD with {networks} networks, ms: API; folder; difference"] = (
            f"{api:.1f}; {manifests:.1f}; {over:+.1f}"
        )
    folder.close()
    return figures


def changing(follower: Follower, upstream: Upstream, events: int) -> Figures:
    """Change definitions, one after the other and, where that can be done, all at once."""
    click.echo("  changing …")
    figures = {}
    with spending(follower) as spent:
        upstream.change([fleet.definition(number, 1) for number in range(events)])
        wait_for_change(follower, upstream, 11_111)
    figures["CPU of an event, one by one, µs; events/s"] = (
        f"{spent.cpu * 1e6 / events:.0f}; {events / spent.wall:.0f}"
    )
    if isinstance(upstream, Double):
        with spending(follower) as spent:
            upstream.create([fleet.definition(number, 2) for number in range(DEFINITIONS - 1)])
            wait_for_change(follower, upstream, 22_222)
        burst = f"{spent.cpu * 1e6 / DEFINITIONS:.0f}"
        figures[f"CPU of an event, {DEFINITIONS:,} at once, µs (at most 60)"] = burst
    figures["RSS after that, MB"] = f"{follower.memory_mb():.1f}"
    return figures


@dataclass
class Spent:
    cpu: float = 0
    wall: float = 0


@contextlib.contextmanager
def spending(follower: Follower) -> Iterator[Spent]:
    spent = Spent()
    cpu, wall = follower.cpu_s(), time.monotonic()
    yield spent
    spent.wall = time.monotonic() - wall
    time.sleep(SETTLE_S)
    spent.cpu = follower.cpu_s() - cpu


def wait_for_change(follower: Follower, upstream: Upstream, revision: int) -> None:
    """Make a last change, and wait until it is remembered."""
    last = fleet.definition(1, revision)
    upstream.change([last])
    follower.wait_for(lambda: follower.remembers(f": {fleet.MTU + revision}"))


def cutting(follower: Follower, upstream: Upstream, cuts: int) -> Figures:
    click.echo("  cutting watches …")
    follower.restart(observed=True)
    follower.wait_for(lambda: upstream.watches() == 2)
    upstream.tally()
    began = time.monotonic()
    for _ in range(cuts):
        follower.wait_for(lambda: upstream.watches() == 2)
        upstream.cut_watches()
        follower.wait_for(lambda: upstream.watches() < 2)
    follower.wait_for(lambda: upstream.watches() == 2)
    asked = upstream.tally()
    lists = asked["list network-attachment-definitions"] + asked["list pods"]
    watches = asked["watch network-attachment-definitions"] + asked["watch pods"]
    return {
        f"requests for {cuts} cuts of both watches: lists; watches; in s": (
            f"{lists}; {watches}; {time.monotonic() - began:.0f}"
        )
    }


def parsing_us() -> float:
    """Return what the standard library takes to parse an event: how fast the machine is now."""
    event = json.dumps({"type": "MODIFIED", "object": fleet.as_stored(fleet.definition(1))})
    return min(timeit.repeat(lambda: json.loads(event), number=2000, repeat=5)) / 2000 * 1e6


def report(double: Figures, real: Figures) -> str:
    rows = [f"| {name} | {real.get(name, '')} | {figure} |" for name, figure in double.items()]
    return "\n".join(
        [
            f"{DEFINITIONS:,} net-attach-defs and {PODS} pods:\n",
            "| what | real API server | double |",
            "| --- | --- | --- |",
            *rows,
            f"\nAll on one machine: {machine()}.",
            f"It takes {parsing_us():.1f} µs to parse an event as JSON. Starts reach the",
            "real server by a proxy in Python.\n",
        ]
    )


def make_links() -> None:
    link = ["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "wire1"]
    subprocess.run(link, check=True)
    for name in ("eth1", "wire1"):
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    make_namespaces([API_POD, FOLDER_POD])


@click.command()
@click.option("--events", default=3000, show_default=True, help="Changes one after the other.")
@click.option("--cuts", default=50, show_default=True, help="Cuts of the watches.")
@click.option("--pairs", default=50, show_default=True, help="Pairs of ADDs.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"))
def main(events: int, cuts: int, pairs: int, out: Path) -> None:
    """Measure, and write k8s.md."""
    make_links()
    extent = Extent(events, cuts, pairs)
    click.echo("the double")
    with ApiServer() as server:
        double = measure(Double(server), extent)
    click.echo("the real API server")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_cluster(Path(folder)) as cluster,
        FaultProxy(cluster) as proxy,
    ):
        real = measure(Real(cluster, proxy), extent)
    text = report(double, real)
    out.mkdir(parents=True, exist_ok=True)
    (out / "k8s.md").write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()
