"""A record's file cut at every byte and with a bit of every byte turned: the section before, whole,
or DamagedRecord."""

from __future__ import annotations

import pytest

from metaplugin.attachments.record import decode_stored_record, encode_record
from metaplugin.wire.container import DamagedRecord
from tests.unit.attachments.test_record import some_record, some_result

BEFORE, AFTER = some_record(), some_record(some_result())
FIRST = encode_record(BEFORE, deadline_s=90)
CONTENT = FIRST + encode_record(AFTER, deadline_s=90)


def flipped(content: bytes, position: int, bit: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :]


def check(content: bytes, *, first_is_whole: bool) -> None:
    if first_is_whole:
        stored = decode_stored_record(content)
        assert stored.record == BEFORE
        assert stored.calls == BEFORE.del_calls()
        return
    with pytest.raises(DamagedRecord):
        decode_stored_record(content)


def test_an_undamaged_record_is_the_last_section() -> None:
    assert decode_stored_record(CONTENT).record == AFTER


def test_a_record_cut_anywhere_is_its_whole_section_or_damaged() -> None:
    """ROB-7."""
    for cut in range(len(CONTENT)):
        check(CONTENT[:cut], first_is_whole=cut >= len(FIRST))


def test_a_record_with_any_byte_changed_is_its_whole_section_or_damaged() -> None:
    """ROB-7."""
    for position in range(len(CONTENT)):
        for bit in (position % 8, (position + 5) % 8):
            check(flipped(CONTENT, position, bit), first_is_whole=position >= len(FIRST))


def test_zeros_after_a_section_are_no_section() -> None:
    """A crash may leave blocks of zeros where a write had been promised."""
    check(FIRST + bytes(4096), first_is_whole=True)
    check(b"MPR1" + bytes(4096), first_is_whole=False)
