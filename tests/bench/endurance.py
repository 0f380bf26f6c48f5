"""What a daemon keeps of many pods that came and went: memory and descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.bench.sides import Metaplugin
from tests.system.node import Node

WARM_UP, ROUNDS = 200, 2000


@dataclass(frozen=True)
class Kept:
    """Before and after the rounds; memory in KiB."""

    rounds: int
    memory: tuple[int, int]
    descriptors: tuple[int, int]

    def __str__(self) -> str:
        before, after = (kib / 1024 for kib in self.memory)
        return (
            f"{self.rounds} ADD and DEL with one network: daemon {before:.1f} MB RSS before, "
            f"{after:.1f} MB after; descriptors {self.descriptors[0]} and {self.descriptors[1]}"
        )


def endurance(node: Node, pod: str, rounds: int = ROUNDS) -> Kept:
    """Attach and detach a pod again and again, after a warm-up."""
    side = Metaplugin(node, 1)
    come_and_go(side, pod, min(WARM_UP, rounds))
    memory, descriptors = memory_kib(node), open_descriptors(node)
    come_and_go(side, pod, rounds)
    return Kept(rounds, (memory, memory_kib(node)), (descriptors, open_descriptors(node)))


def come_and_go(side: Metaplugin, pod: str, rounds: int) -> None:
    for _ in range(rounds):
        side.run("ADD", pod)
        side.run("DEL", pod)


def memory_kib(node: Node) -> int:
    return int(_proc(node, "status").read_text().split("VmRSS:")[1].split()[0])


def open_descriptors(node: Node) -> int:
    return len(list(_proc(node, "fd").iterdir()))


def _proc(node: Node, name: str) -> Path:
    assert node.daemon is not None
    return Path(f"/proc/{node.daemon.pid}/{name}")
