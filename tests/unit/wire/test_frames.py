"""Frames and record sections: bytes that come back as they went, and bytes that are refused."""

from __future__ import annotations

import dataclasses
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaplugin.wire.container import (
    DamagedRecord,
    Section,
    decode_record,
    encode_section,
    record_file_name,
    sandbox_file_name,
)
from metaplugin.wire.frames import (
    FRAMES,
    HEADER,
    MAX_PAYLOAD,
    Answer,
    Exec,
    Frame,
    Netns,
    ProtocolError,
    Request,
    decode_environment,
    decode_header,
    encode_environment,
)

FORMS = {
    "u32": st.integers(0, 2**32 - 1),
    "u64": st.integers(0, 2**64 - 1),
    "blob": st.binary(max_size=200),
}


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(sorted(FRAMES)))
    values = [draw(FORMS[form]) for _, form in FRAMES[kind].FIELDS]
    return FRAMES[kind](*values)


@given(frames())
def test_every_frame_comes_back_as_it_went(frame: Frame) -> None:
    encoded = frame.encode()
    kind, length = decode_header(encoded[: HEADER.size])
    assert length == len(encoded) - HEADER.size
    assert frame == kind.decode(encoded[HEADER.size :])


@given(st.sampled_from(sorted(FRAMES)), st.binary(max_size=100))
def test_any_payload_is_a_frame_or_a_protocol_error(kind: int, payload: bytes) -> None:
    try:
        frame = FRAMES[kind].decode(payload)
    except ProtocolError:
        return
    assert frame.encode()[HEADER.size :] == payload


def test_fields_are_named_as_they_are_on_the_wire() -> None:
    for frame in FRAMES.values():
        assert [name for name, _ in frame.FIELDS] == [f.name for f in dataclasses.fields(frame)]


@pytest.mark.parametrize("header", [HEADER.pack(99, 0), HEADER.pack(1, MAX_PAYLOAD + 1)])
def test_unknown_kinds_and_giant_lengths_are_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_header(header)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="=\0", codec="utf-8"), min_size=1),
        st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    )
)
def test_environments_come_back_as_they_went(values: dict[str, str]) -> None:
    assert values == decode_environment(encode_environment(values))


def test_an_environment_keeps_bytes_that_are_no_utf8() -> None:
    block = b"CNI_NETNS=/run/\xff\0"
    assert encode_environment(decode_environment(block)) == block


def test_an_unended_environment_is_refused() -> None:
    with pytest.raises(ProtocolError):
        decode_environment(b"CNI_COMMAND=ADD")


def test_the_wire_format_is_what_neighbouring_releases_know() -> None:
    """A frame's bytes, spelt out: a change here is a new protocol version."""
    assert Answer(1, b"{}").encode() == b"\0\0\0\x11\0\0\0\x0a\0\0\0\x01\0\0\0\x02{}"
    request = Request(1, b"E\0", b"S", 1, 2, 3, b"R", b"")
    assert request.encode().hex() == (
        "00000002"
        "0000002c"
        "00000001"
        "00000002"
        "4500"
        "00000001"
        "53"
        "00000001"
        "0000000000000002"
        "0000000000000003"
        "00000001"
        "52"
        "00000000"
    )


def section(note: bytes = b"{}") -> Section:
    call = Exec(1000, b"bridge", b"CNI_COMMAND=DEL\0", b"{}")
    return Section(note=note, netns=Netns(b"/run/netns/a", 4, 5), calls=(call,))


def test_the_last_whole_section_counts() -> None:
    first, second = encode_section(section(b'{"a": 1}')), encode_section(section(b'{"a": 2}'))
    content = first + second
    assert decode_record(content) == section(b'{"a": 2}')
    for cut in range(len(first), len(content)):
        assert decode_record(content[:cut]).note == b'{"a": 1}'


def test_every_truncation_and_flip_of_a_single_section_is_noticed() -> None:
    """ROB-7."""
    content = encode_section(section())
    for cut in range(len(content)):
        with pytest.raises(DamagedRecord):
            decode_record(content[:cut])
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 0x40
        with pytest.raises(DamagedRecord):
            decode_record(bytes(flipped))


def test_other_frames_in_a_section_are_refused() -> None:
    payload = Answer(0, b"").encode()
    header = b"MPR1" + len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big")
    with pytest.raises(DamagedRecord, match="can't be read"):
        decode_record(header + payload)


def test_names_fit_a_file_system_whatever_the_container_id() -> None:
    """CNI-ENV-11."""
    assert record_file_name("abc", "eth0") == "abc@eth0"
    assert sandbox_file_name("a" * 200) == "a" * 200
    long = {sandbox_file_name("a" * n) for n in range(201, 300)}
    assert len(long) == 99
    assert all(name.startswith("_") and len(name) == 33 for name in long)
