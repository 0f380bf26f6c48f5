"""Frames over a connected socket, one reply awaited at a time.

A protocol rather than asyncio's streams: a frame is one wait whatever its size, sending none.
"""

from __future__ import annotations

import asyncio

from metaplugin.wire.frames import HEADER, Frame, ProtocolError, decode_header


class FrameConnection(asyncio.Protocol):
    """The protocol of a transport; `first` is what has been read of the connection already."""

    def __init__(self, first: bytes = b"") -> None:
        self._received = bytearray(first)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Frame] | None = None
        self._end: Exception | None = None

    def send(self, frame: Frame) -> None:
        """Send a frame without waiting: no more than one is under way in either direction, and its
        size has a limit. Raise OSError once the connection is lost."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(frame.encode())

    async def receive(self, timeout_s: float) -> Frame:
        """Return the next frame; raise ProtocolError, EOFError, OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self._fail, TimeoutError(f"no frame in {timeout_s:g} s"))
        try:
            self._offer()
            return await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        """Close once what was sent has gone."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._offer()

    def eof_received(self) -> bool:
        """Keep the transport: the peer may still read, and what runs is told by `receive`."""
        self._end = EOFError("the other side closed")
        self._offer()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._end = exc or self._end or EOFError("the connection is closed")
        self._offer()

    def _offer(self) -> None:
        """Give the waiter the next frame, if it is whole, or the end."""
        if self._waiter is None or self._waiter.done():
            return
        try:
            frame = self._take()
        except ProtocolError as exc:
            self._fail(exc)
            return
        if frame is not None:
            self._waiter.set_result(frame)
        elif self._end is not None:
            self._fail(self._end)

    def _take(self) -> Frame | None:
        if len(self._received) < HEADER.size:
            return None
        kind, length = decode_header(self._received[: HEADER.size])
        end = HEADER.size + length
        if len(self._received) < end:
            return None
        payload = bytes(memoryview(self._received)[HEADER.size : end])
        del self._received[:end]
        return kind.decode(payload)

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
