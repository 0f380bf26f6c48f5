"""state.db cut and with bits turned: anew, or with what can be read of it, and never an error."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.commands.ports import KnownPod
from metaplugin.npwg.definition import NetworkAttachmentDefinition
from metaplugin.state.database import StateDatabase

REFERENCE = PodReference(namespace="default", name="p", uid="u")
POD = KnownPod(uid="u", annotations={"a": "b" * 100})
NETWORK = NetworkAttachmentDefinition(namespace="default", name="n", config='{"type": "bridge"}')
STRIDE = 509


async def use(path: Path) -> tuple[KnownPod | None, NetworkAttachmentDefinition | None]:
    """Open the database, return what it remembers, and have it remember both again."""
    database = StateDatabase(path)
    await database.open()
    found = await database.pod(REFERENCE), await database.definition("default", "n")
    database.learn_pods({("default", "p"): POD})
    database.learn_definitions({("default", "n"): NETWORK})
    await database.close()
    return found


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    path = tmp_path / "whole.db"
    assert asyncio.run(use(path)) == (None, None)
    assert asyncio.run(use(path)) == (POD, NETWORK)
    return path.read_bytes()


def check(path: Path, content: bytes) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    path.write_bytes(content)
    pod, network = asyncio.run(use(path))
    assert pod is None or isinstance(pod.annotations, dict)
    assert network is None or network.name


def test_a_database_cut_anywhere_is_usable(tmp_path: Path, content: bytes) -> None:
    """ROB-7, DESIGN section 4."""
    for cut in (*range(0, 101, 9), *range(101, len(content), STRIDE)):
        check(tmp_path / "state.db", content[:cut])


def test_a_database_with_any_byte_changed_is_usable(tmp_path: Path, content: bytes) -> None:
    """ROB-7, DESIGN section 4."""
    written = [at for at in range(len(content)) if content[at]]
    for position in written[::7]:
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        check(tmp_path / "state.db", bytes(changed))
