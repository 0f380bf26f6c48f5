"""A session's end of the talk with a shim."""

from __future__ import annotations

import asyncio
import socket

import pytest

from metaplugin.runner import session as sessions
from metaplugin.runner.connection import FrameConnection
from metaplugin.runner.session import ShimSession
from metaplugin.wire.frames import PROTOCOL_VERSION, Alive, Answer, Answered, Request

INTERVAL_S = 0.02
REQUEST = Request(PROTOCOL_VERSION, b"", b"", 0, 0, 0, b"", b"")


def test_no_sign_of_life_follows_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shim ends after it: a sign sent to nobody would take what it said last with it."""
    monkeypatch.setattr(sessions, "ALIVE_INTERVAL_S", INTERVAL_S)
    delivered, before, after = asyncio.run(answered_late())
    assert delivered
    assert before.startswith(Alive().encode())
    assert after == b""


async def answered_late() -> tuple[bool, bytes, bytes]:
    """Return whether the answer was delivered, and what the shim got before and after it."""
    ours, shims = socket.socketpair()
    loop, frames = asyncio.get_running_loop(), FrameConnection()
    await loop.create_unix_connection(lambda: frames, sock=ours)
    session = ShimSession(frames, REQUEST)
    with shims:
        async with session.kept_alive():
            await asyncio.sleep(5 * INTERVAL_S)
            answering = asyncio.create_task(session.answer(0, b"{}"))
            await asyncio.sleep(5 * INTERVAL_S)
            got, answer = shims.recv(1 << 16), Answer(0, b"{}").encode()
            shims.sendall(Answered(0).encode())
            delivered = await answering
    session.close()
    before, found, after = got.partition(answer)
    assert found
    return delivered, before, after
