"""The sanitized shim replaying a record whose file is cut or changed: every DEL, or code 11 and
nothing run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shim.peer import Surroundings
from tests.shim.test_shim import SANITIZED, error
from tests.unit.attachments.test_damage import CONTENT, FIRST, flipped

STRIDE = 41  # prime, so that every field of the small frames is met


@pytest.fixture
def at() -> Iterator[Surroundings]:
    root = Path(tempfile.mkdtemp(prefix="mp", dir="/run"))
    surroundings = Surroundings(root, SANITIZED)
    surroundings.configure(del_wait_ms=0)
    for plugin in ("a", "b", "c"):
        surroundings.script(plugin, f"echo {plugin} >> {root}/calls")
    (root / "state" / "attachments").mkdir(parents=True, mode=0o700)
    yield surroundings
    shutil.rmtree(root)


def replay(at: Surroundings, content: bytes, *, whole: bool) -> None:
    record, calls = at.root / "state" / "attachments" / "c1@eth0", at.root / "calls"
    record.write_bytes(content)
    calls.write_text("")
    reply = at.call("DEL")
    if whole:
        assert (reply.returncode, reply.stdout) == (0, b"")
        assert calls.read_text().split() == ["b", "a", "c"]
        assert not record.exists()
        return
    code, message = error(reply)
    assert (code, "is damaged" in message) == (11, True)
    assert calls.read_text() == ""
    assert record.read_bytes() == content


def test_a_record_cut_anywhere_is_replayed_whole_or_not_at_all(at: Surroundings) -> None:
    """ROB-7."""
    cuts = {0, 1, 11, 12, 13, len(FIRST) - 1, len(FIRST), len(FIRST) + 1, len(FIRST) + 12}
    for cut in sorted(cuts | {*range(0, len(CONTENT), STRIDE), len(CONTENT) - 1, len(CONTENT)}):
        replay(at, CONTENT[:cut], whole=cut >= len(FIRST))


def test_a_record_with_any_byte_changed_is_replayed_whole_or_not_at_all(at: Surroundings) -> None:
    """ROB-7."""
    headers = {*range(12), *range(len(FIRST), len(FIRST) + 12)}
    for position in sorted(headers | {*range(12, len(CONTENT), STRIDE)}):
        content = flipped(CONTENT, position, position % 8)
        replay(at, content, whole=position >= len(FIRST))


def test_sections_without_calls_to_the_end_are_damaged(at: Surroundings) -> None:
    """ROB-7: found by fuzzing; an empty section, and zeros in its place, were a DEL that
    succeeded."""
    replay(at, b"MPR1" + bytes(8), whole=False)
    replay(at, FIRST[:4] + bytes(len(FIRST)), whole=False)
    replay(at, FIRST + b"MPR1" + bytes(8), whole=True)
