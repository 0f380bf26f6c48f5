"""Frames of the protocol between shim and daemon.

A frame is two big-endian 32-bit numbers, kind and payload length, and the payload: fields one after
another, each a u32, a u64 or a blob (u32 length, bytes). Every length has a limit, an unknown kind
is an error, and a payload must be used up exactly: neither side trusts the other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Self

PROTOCOL_VERSION = 1
HEADER = struct.Struct(">II")
MAX_PAYLOAD = 48 << 20  # stdin and stdout of 16 MiB each fit, with room for a record
MAX_STREAM = 16 << 20  # a request's stdin, a delegate's stdout

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


class ProtocolError(Exception):
    """The other side sent bytes that are no frame, or a frame where it doesn't belong."""


class Outcome(IntEnum):
    """How the execution of a delegate ended; `Executed.status` is the number in brackets."""

    EXITED = 0  # (exit code)
    SIGNALLED = 1  # (signal)
    NOT_FOUND = 2
    NOT_STARTED = 3  # (errno)
    DEADLINE = 4
    TOO_MUCH_OUTPUT = 5
    REFUSED = 6


class NetnsState(IntEnum):
    """What the shim found at CNI_NETNS, or at a path it was asked about."""

    NONE = 0
    VALID = 1
    MISSING = 2
    NOT_A_NETNS = 3
    HOST = 4
    UNREADABLE = 5


class _Reader:
    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def _take(self, size: int) -> bytes:
        piece = self._payload[self._at : self._at + size]
        if len(piece) != size:
            raise ProtocolError("a field reaches beyond its frame")
        self._at += size
        return piece

    def u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self._take(8))[0])

    def blob(self) -> bytes:
        return self._take(self.u32())

    def finish(self) -> None:
        if self._at != len(self._payload):
            raise ProtocolError("a frame holds more than its fields")


def _blob(value: bytes) -> bytes:
    return _U32.pack(len(value)) + value


_WRITERS: Mapping[str, Callable[[Any], bytes]] = {
    "u32": _U32.pack,
    "u64": _U64.pack,
    "blob": _blob,
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame's fields in their order on the wire; subclasses name them."""

    KIND: ClassVar[int] = 0
    FIELDS: ClassVar[tuple[tuple[str, str], ...]] = ()

    def encode(self) -> bytes:
        payload = b"".join(_WRITERS[form](getattr(self, name)) for name, form in self.FIELDS)
        return HEADER.pack(self.KIND, len(payload)) + payload

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        reader = _Reader(payload)
        values = [getattr(reader, form)() for _, form in cls.FIELDS]
        reader.finish()
        return cls(*values)


@dataclass(frozen=True, slots=True)
class Hello(Frame):
    KIND = 1
    FIELDS = (("minimum", "u32"), ("maximum", "u32"))
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Request(Frame):
    """`environment` holds the caller's CNI_* alone; `runtime` is the path of the caller's
    program."""

    KIND = 2
    FIELDS = (
        ("version", "u32"),
        ("environment", "blob"),
        ("stdin", "blob"),
        ("netns_state", "u32"),
        ("netns_device", "u64"),
        ("netns_inode", "u64"),
        ("runtime", "blob"),
        ("notes", "blob"),
    )
    version: int
    environment: bytes
    stdin: bytes
    netns_state: int
    netns_device: int
    netns_inode: int
    runtime: bytes
    notes: bytes


@dataclass(frozen=True, slots=True)
class Exec(Frame):
    KIND = 3
    FIELDS = (("deadline_ms", "u32"), ("type", "blob"), ("environment", "blob"), ("stdin", "blob"))
    deadline_ms: int
    type: bytes
    environment: bytes
    stdin: bytes


@dataclass(frozen=True, slots=True)
class Executed(Frame):
    KIND = 4
    FIELDS = (("outcome", "u32"), ("status", "u32"), ("stdout", "blob"), ("stderr", "blob"))
    outcome: int
    status: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Find(Frame):
    KIND = 5
    FIELDS = (("type", "blob"),)
    type: bytes


@dataclass(frozen=True, slots=True)
class Found(Frame):
    KIND = 6
    FIELDS = (("errno", "u32"), ("path", "blob"))
    errno: int
    path: bytes


@dataclass(frozen=True, slots=True)
class Stat(Frame):
    KIND = 7
    FIELDS = (("path", "blob"),)
    path: bytes


@dataclass(frozen=True, slots=True)
class Stated(Frame):
    KIND = 8
    FIELDS = (("errno", "u32"), ("state", "u32"), ("device", "u64"), ("inode", "u64"))
    errno: int
    state: int
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Save(Frame):
    KIND = 9
    FIELDS = (("name", "blob"), ("content", "blob"))
    name: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class Saved(Frame):
    KIND = 10
    FIELDS = (("errno", "u32"),)
    errno: int


@dataclass(frozen=True, slots=True)
class Append(Frame):
    KIND = 11
    FIELDS = (("name", "blob"), ("content", "blob"))
    name: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class Forget(Frame):
    KIND = 12
    FIELDS = (("name", "blob"),)
    name: bytes


@dataclass(frozen=True, slots=True)
class Lock(Frame):
    """An empty container id releases."""

    KIND = 13
    FIELDS = (("container_id", "blob"),)
    container_id: bytes


@dataclass(frozen=True, slots=True)
class Locked(Frame):
    KIND = 14
    FIELDS = (("errno", "u32"),)
    errno: int


@dataclass(frozen=True, slots=True)
class Alive(Frame):
    KIND = 15


@dataclass(frozen=True, slots=True)
class Lend(Frame):
    KIND = 16
    FIELDS = (("seconds", "u32"),)
    seconds: int


@dataclass(frozen=True, slots=True)
class Answer(Frame):
    KIND = 17
    FIELDS = (("exit_code", "u32"), ("stdout", "blob"))
    exit_code: int
    stdout: bytes


@dataclass(frozen=True, slots=True)
class Answered(Frame):
    """`errno` is 0 when all of the answer reached the runtime."""

    KIND = 18
    FIELDS = (("errno", "u32"),)
    errno: int


@dataclass(frozen=True, slots=True)
class Note(Frame):
    """Records only: what the daemon keeps about an attachment, a JSON object."""

    KIND = 32
    FIELDS = (("json", "blob"),)
    json: bytes


@dataclass(frozen=True, slots=True)
class Netns(Frame):
    """Records only: the sandbox's network namespace; its inode tells it from a later one at that
    path."""

    KIND = 33
    FIELDS = (("path", "blob"), ("device", "u64"), ("inode", "u64"))
    path: bytes
    device: int
    inode: int


FRAMES: Mapping[int, type[Frame]] = {
    frame.KIND: frame
    for frame in (
        *(Hello, Request, Exec, Executed, Find, Found, Stat, Stated, Save, Saved, Append, Forget),
        *(Lock, Locked, Alive, Lend, Answer, Answered, Note, Netns),
    )
}


def decode_header(header: bytes | bytearray) -> tuple[type[Frame], int]:
    """Return the frame's class and its payload's length, both checked; raise ProtocolError."""
    kind, length = HEADER.unpack(header)
    if kind not in FRAMES:
        raise ProtocolError(f"unknown frame kind {kind}")
    if length > MAX_PAYLOAD:
        raise ProtocolError(f"a frame of {length} bytes is over the limit of {MAX_PAYLOAD}")
    return FRAMES[kind], length


def encode_environment(values: Mapping[str, str]) -> bytes:
    """Return `KEY=VALUE` pairs, each ended by a NUL byte."""
    return b"".join(
        f"{key}={value}\0".encode(errors="surrogateescape") for key, value in values.items()
    )


def decode_environment(block: bytes) -> dict[str, str]:
    """Return the block's pairs; bytes that aren't UTF-8 come as surrogates. Raise ProtocolError."""
    if block and not block.endswith(b"\0"):
        raise ProtocolError("an environment block doesn't end with NUL")
    pairs = [item.partition(b"=") for item in block.split(b"\0")[:-1]]
    return {
        key.decode(errors="surrogateescape"): value.decode(errors="surrogateescape")
        for key, _, value in pairs
    }
