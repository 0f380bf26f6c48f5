"""A node in an outage, and what it takes to have one: for the tests, and for `make outages`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.controlplane.cluster import Cluster
from tests.controlplane.proxy import FaultProxy
from tests.outage.outages import Outage
from tests.outage.scene import AWAY, Scene, new_node, wait_until
from tests.system.node import Pod, Reply


@contextmanager
def running_scene(
    cluster: Cluster, url: str, name: str, subnet: int, *, spare: int
) -> Iterator[Scene]:
    """A node of real plugins whose daemon has seen its pods."""
    scene = Scene(cluster, new_node(cluster, url, name, subnet), name)
    try:
        scene.start(spare=spare)
        yield scene
    finally:
        scene.close()
        subprocess.run(["ip", "link", "del", f"br-{name}"], check=False, capture_output=True)


@dataclass
class Sick:
    """A scene in an outage. `before` were attached before it, `first` is what an ADD at once after
    its begin was answered."""

    outage: Outage
    scene: Scene
    proxy: FaultProxy
    before: list[Pod] = field(default_factory=list)
    first: Reply = field(init=False, repr=False)
    _ongoing: bool = False

    def begin(self) -> None:
        """Begin the outage, unless it is there; return when the daemon has noticed."""
        if self._ongoing:
            return
        scene = self.scene
        self.before = [scene.known(), scene.known()]
        for pod in self.before:
            assert scene.node.add(pod).exit_code == 0
        seen = len(scene.node.log.read_text())
        self.outage.begin(scene.cluster, self.proxy)
        self._ongoing = True
        self.first = scene.node.add(scene.known())
        if self.outage.away:
            wait_until(lambda: scene.logged(AWAY, seen))

    def end(self) -> None:
        if self._ongoing:
            self.outage.end(self.scene.cluster, self.proxy)
            self._ongoing = False


@contextmanager
def sick_scene(outage: Outage, cluster: Cluster) -> Iterator[Sick]:
    """A node that can be in this outage; it has ended when this does."""
    with FaultProxy(cluster) as proxy:
        url = cluster.url if outage.direct else proxy.url
        with running_scene(cluster, url, f"node-{outage.name}", 20, spare=25) as scene:
            sick = Sick(outage, scene, proxy)
            yield sick
            sick.end()
