"""A record's file: sections, each whole and checked by itself, of which the last one counts.

The first section is durable before the first delegate runs; a later one, appended, adds the
results. A torn or damaged tail falls back on the section before it, which still holds every DEL
that is due.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from metaplugin.wire.frames import (
    HEADER,
    Exec,
    Frame,
    Netns,
    Note,
    ProtocolError,
    decode_header,
)

_SECTION = struct.Struct(">4sII")
_MAGIC = b"MPR1"
_MAX_NAME = 200  # with `@` and an interface name it stays below a file name's 255 bytes
_FNV_OFFSET = 0x6C62272E07BB014262B821756295C58D
_FNV_PRIME = 0x0000000001000000000000000000013B


class DamagedRecord(Exception):
    """No section of a record's file is whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What a section holds: the daemon's note, the sandbox's namespace, the DEL calls in order."""

    note: bytes
    netns: Netns
    calls: tuple[Exec, ...]


def encode_section(section: Section) -> bytes:
    frames: tuple[Frame, ...] = (Note(section.note), section.netns, *section.calls)
    payload = b"".join(frame.encode() for frame in frames)
    return _SECTION.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload


def decode_record(content: bytes) -> Section:
    """Return the last whole section; raise DamagedRecord when there is none."""
    found, at = None, 0
    while payload := _payload_at(content, at):
        at += _SECTION.size + len(payload)
        try:
            found = _decode_payload(payload)
        except ProtocolError as exc:
            raise DamagedRecord(f"a section with a right checksum can't be read: {exc}") from exc
    if found is None:
        raise DamagedRecord(f"no whole section in {len(content)} bytes")
    return found


def _payload_at(content: bytes, at: int) -> bytes | None:
    header = content[at : at + _SECTION.size]
    if len(header) < _SECTION.size:
        return None
    magic, length, checksum = _SECTION.unpack(header)
    payload = content[at + _SECTION.size : at + _SECTION.size + length]
    whole = magic == _MAGIC and len(payload) == length and zlib.crc32(payload) == checksum
    return payload if whole else None


def _decode_payload(payload: bytes) -> Section:
    frames, at = [], 0
    while at < len(payload):
        header = payload[at : at + HEADER.size]
        if len(header) < HEADER.size:
            raise ProtocolError("a frame's header is cut short")
        kind, length = decode_header(header)
        at += HEADER.size
        if at + length > len(payload):
            raise ProtocolError("a frame is cut short")
        frames.append(kind.decode(payload[at : at + length]))
        at += length
    return _section(frames)


def _section(frames: list[Frame]) -> Section:
    match frames:
        case [Note() as note, Netns() as netns, *rest]:
            calls = tuple(frame for frame in rest if isinstance(frame, Exec))
            if len(calls) == len(rest):
                return Section(note=note.json, netns=netns, calls=calls)
    raise ProtocolError("a section holds other frames than note, netns and exec")


def sandbox_file_name(container_id: str) -> str:
    """Return the name of the sandbox's lock file: the id, or `_` and a hash of one over 200 bytes.

    No container id begins with `_` (CNI section 2), so the two forms can't meet.
    """
    if len(container_id) <= _MAX_NAME:
        return container_id
    value = _FNV_OFFSET
    for byte in container_id.encode():
        value = ((value ^ byte) * _FNV_PRIME) % (1 << 128)
    return f"_{value:032x}"


def record_file_name(container_id: str, ifname: str) -> str:
    """Return the name of an attachment's record: CNI identifies it by container id and
    interface."""
    return f"{sandbox_file_name(container_id)}@{ifname}"
