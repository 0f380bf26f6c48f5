"""Pods come and go while the daemon and the API server are killed at random; then all is compared.

Workers play the runtime: they attach, check and detach, and after a failure detach and try again.
Only code 11 (try again) may be the answer to an ADD or a CHECK, and nothing to a DEL.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.controlplane import objects
from tests.controlplane.client import ApiError, Client
from tests.controlplane.cluster import Cluster, running_cluster
from tests.outage.scene import NETWORK, Scene, new_node, wait_until
from tests.system.node import Pod, Reply, ip_json, uplink

WORKERS, PODS_EACH = 3, 5
SELECTIONS = (NETWORK, f"{NETWORK},{NETWORK}", "")
TRY_AGAIN = 11
LAST_LIFE = 0.6  # of the time: later no daemon is killed, so that what it leaks adds up
FDS = 60  # a daemon that idles has some 25; pooled connections, 16 at most


@dataclass
class Slot:
    """A pod's name: whether it is on the server, and its sandbox while it is attached."""

    name: str
    selection: str
    exists: bool = False
    uid: str = ""
    sandbox: Pod | None = None


@dataclass
class Soak:
    """The run: what it is about, what was done, and what went wrong."""

    scene: Scene
    choice: random.Random
    until: float
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ended(self) -> bool:
        return time.monotonic() > self.until

    def count(self, what: str) -> None:
        with self.lock:
            self.done[what] += 1

    def expect(self, reply: Reply, what: str, *codes: int) -> bool:
        """Note an answer; say whether it was a success."""
        self.count(what if reply.code == 0 else f"{what}: code {reply.code}")
        if reply.code not in (0, *codes):
            self.wrong.append(f"{what}: {reply.stdout.decode()} {reply.stderr}")
        return reply.exit_code == 0


@dataclass
class Worker:
    """A runtime with some pods."""

    soak: Soak
    slots: list[Slot]
    client: Client
    choice: random.Random

    def run(self) -> None:
        try:
            while not self.soak.ended:
                self._step(self.choice.choice(self.slots))
        except Exception as exc:  # noqa: BLE001 - told at the end; the others go on
            self.soak.wrong.append(f"worker: {exc!r}")

    def _step(self, slot: Slot) -> None:
        if slot.sandbox is not None:
            if self.choice.random() < 0.5:
                reply = self.soak.scene.node.call("CHECK", slot.sandbox)
                self.soak.expect(reply, "CHECK", TRY_AGAIN)
            else:
                self.detach(slot)
        elif not slot.exists or self.choice.random() < 0.2:
            self.make(slot)
        else:
            self._attach(slot)

    def make(self, slot: Slot) -> None:
        """Make the pod anew on the server, if that is there."""
        scene = self.soak.scene
        path = f"{objects.pods(scene.name)}/{slot.name}"
        pod = objects.pod(slot.name, slot.selection, node=scene.name, in_namespace=scene.name)
        try:
            slot.exists = False
            with contextlib.suppress(ApiError):
                self.client.delete(path)
            slot.uid = self.client.create(pod)["metadata"]["uid"]
            slot.exists = True
            self.soak.count("pod made")
        except (OSError, ApiError):  # away: later, perhaps
            time.sleep(0.1)

    def _attach(self, slot: Slot) -> None:
        scene = self.soak.scene
        said = self.choice.random() < 0.5
        with self.soak.lock:
            sandbox = scene.node.pod(
                slot.selection if said else None,
                name=slot.name,
                uid=slot.uid,
                namespace=scene.name,
            )
        slot.sandbox = sandbox
        if not self.soak.expect(scene.node.add(sandbox), "ADD", TRY_AGAIN):
            self.detach(slot)

    def detach(self, slot: Slot) -> None:
        """Detach as runtimes do, now and then once more without the namespace, which is gone."""
        sandbox, node = slot.sandbox, self.soak.scene.node
        assert sandbox is not None
        self.soak.expect(node.delete(sandbox), "DEL")
        subprocess.run(["ip", "netns", "del", sandbox.netns.name], check=True)
        if self.choice.random() < 0.3:
            self.soak.expect(node.delete(sandbox, CNI_NETNS=""), "DEL again")
        slot.sandbox = None


def disturb(soak: Soak) -> None:
    """Kill, stop and pause daemon and server at random until the time is up; leave both running."""
    started = time.monotonic()
    last_life = started + (soak.until - started) * LAST_LIFE
    while not soak.ended:
        time.sleep(soak.choice.uniform(0.2, 2))
        faults = [_kill_server, _pause_server]
        if time.monotonic() < last_life:
            faults += [_kill_daemon, _stop_daemon, _kill_both]
        fault = soak.choice.choice(faults)
        soak.count(fault.__name__.strip("_"))
        fault(soak)


def _kill_daemon(soak: Soak) -> None:
    soak.scene.node.kill()
    time.sleep(soak.choice.uniform(0, 2))
    soak.scene.node.start()


def _stop_daemon(soak: Soak) -> None:
    soak.scene.node.stop()
    soak.scene.node.start()


def _kill_server(soak: Soak) -> None:
    soak.scene.cluster.kill()
    time.sleep(soak.choice.uniform(0, 4))
    soak.scene.cluster.start()


def _kill_both(soak: Soak) -> None:
    soak.scene.cluster.kill()
    _kill_daemon(soak)
    soak.scene.cluster.start()


def _pause_server(soak: Soak) -> None:
    soak.scene.cluster.pause()
    time.sleep(soak.choice.uniform(0, 6))
    soak.scene.cluster.resume()
    soak.scene.cluster.wait_until_ready()


def run_soak(root: Path, seconds: float, seed: int) -> Soak:
    """Run it all; what is in `wrong` of the outcome was."""
    with uplink(), running_cluster(root / "cluster") as cluster:
        scene = Scene(cluster, new_node(cluster, cluster.url, "soaked", 20), "soaked")
        scene.node.start()
        try:
            soak = Soak(scene, random.Random(seed), time.monotonic() + seconds)
            _run(soak, cluster, seed)
            if soak.wrong:
                soak.wrong.append(scene.node.log.read_text()[-20_000:])
        finally:
            scene.close()
            subprocess.run(["ip", "link", "del", "br-soaked"], check=False, capture_output=True)
    return soak


def _run(soak: Soak, cluster: Cluster, seed: int) -> None:
    links = soak.scene.node.host_links()
    tls = cluster.authority.client_context()
    workers = [
        Worker(
            soak,
            [
                Slot(f"pod-{number}-{each}", SELECTIONS[each % len(SELECTIONS)])
                for each in range(PODS_EACH)
            ],
            Client(cluster.url, tls, "admin", timeout=1),
            random.Random(seed + number),
        )
        for number in range(1, WORKERS + 1)
    ]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    disturb(soak)
    for thread in threads:
        thread.join()
    attached = [slot for worker in workers for slot in worker.slots if slot.sandbox]
    _compare(soak, attached)
    for worker in workers:
        for slot in worker.slots:
            if slot.sandbox:
                worker.detach(slot)
    _look_for_leaks(soak, links)


def _compare(soak: Soak, attached: list[Slot]) -> None:
    """Each annotation, once it has come, equals what is in its namespace."""
    for slot in attached:
        assert slot.sandbox is not None
        inside = in_namespace(slot.sandbox)
        try:
            wait_until(lambda slot=slot, inside=inside: _told(soak, slot) == inside, 10)  # type: ignore[misc]
            soak.count("annotation equals namespace")
        except AssertionError:
            soak.wrong.append(f"{slot}: {_told(soak, slot)} is told, {inside} is there")


def in_namespace(pod: Pod) -> dict[str, Any]:
    """Return MAC and addresses by interface, as `ip` has them."""
    return {
        link["ifname"]: (
            link["address"],
            {a["local"] for a in link["addr_info"] if a["scope"] == "global"},
        )
        for link in ip_json("addr", namespace=pod.netns.name)
        if link["ifname"] != "lo"
    }


def _told(soak: Soak, slot: Slot) -> dict[str, Any]:
    """Return the same of the pod's network-status."""
    return {
        entry["interface"]: (entry["mac"], set(entry["ips"]))
        for entry in soak.scene.status(slot.name)
    }


def _look_for_leaks(soak: Soak, links: set[str]) -> None:
    node = soak.scene.node
    left = {
        "links": node.host_links() - links,
        "leases": node.leases(),
        "records": node.records(),
        "locks": node.locks(),
    }
    soak.wrong += [f"{what} left: {those}" for what, those in left.items() if those]
    assert node.daemon is not None
    fds = len(os.listdir(f"/proc/{node.daemon.pid}/fd"))
    threads = len(os.listdir(f"/proc/{node.daemon.pid}/task"))
    soak.done["descriptors of the daemon"], soak.done["threads of the daemon"] = fds, threads
    if fds > FDS:
        soak.wrong.append(f"{fds} descriptors are open in the daemon")
