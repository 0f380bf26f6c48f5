"""What an outage costs an ADD: `make outages`. A table of medians, all well and in each outage.

The two take turns on nodes of their own, as in the tests; a number, never a verdict.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from pathlib import Path

import click

from tests.controlplane.cluster import running_cluster
from tests.outage.outages import OUTAGES
from tests.outage.scene import Scene
from tests.outage.sick import Sick, running_scene, sick_scene
from tests.system.node import Pod, uplink


def seconds(scene: Scene, pod: Pod) -> float:
    sandbox = scene.another_sandbox(pod)
    reply = scene.node.add(sandbox)
    assert reply.exit_code == 0, reply.stdout
    assert scene.node.delete(sandbox).exit_code == 0
    return reply.took


def measured(sick: Sick, well: Scene, rounds: int) -> str:
    """Return a row: the median in the outage, without, and their ratio."""
    pods = (sick.scene.known(), well.known())
    pairs = [(seconds(sick.scene, pods[0]), seconds(well, pods[1])) for _ in range(rounds)]
    ill, normal = (statistics.median(column) for column in zip(*pairs, strict=True))
    name, first = sick.outage.name, sick.first.took * 1000
    return f"| {name} | {normal * 1000:.1f} | {ill * 1000:.1f} | {ill / normal:.2f} | {first:.0f} |"


@click.command()
@click.option("--rounds", default=30, show_default=True)
def main(rounds: int) -> None:
    """Measure every outage."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(uplink())
        clusters = [stack.enter_context(running_cluster(root / name)) for name in ("well", "sick")]
        well = stack.enter_context(
            running_scene(clusters[0], clusters[0].url, "well", 30, spare=len(OUTAGES))
        )
        click.echo("| outage | all well, ms | in it, ms | ratio | first pod, ms |")
        click.echo("| --- | --- | --- | --- | --- |")
        for outage in OUTAGES:
            with sick_scene(outage, clusters[1]) as sick:
                sick.begin()
                click.echo(measured(sick, well, rounds))


if __name__ == "__main__":
    main()
