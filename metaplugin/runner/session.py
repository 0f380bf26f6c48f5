"""One shim's connection: the request it brought, and what it does for us until it has its answer.

The session offers the ports PluginRunner, RecordWriter and SandboxLocks. One frame is under way at
a time; `alive` goes out beside it, so that the shim can tell a slow delegate from a daemon that
hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from metaplugin.attachments.calls import PluginCall
from metaplugin.cni.errors import IOFailure
from metaplugin.commands.ports import CallerGone
from metaplugin.runner.connection import FrameConnection
from metaplugin.wire.frames import (
    HEADER,
    MAX_STREAM,
    PROTOCOL_VERSION,
    Alive,
    Answer,
    Answered,
    Append,
    Exec,
    Executed,
    Find,
    Forget,
    Found,
    Frame,
    Hello,
    Lend,
    Lock,
    Locked,
    ProtocolError,
    Request,
    Save,
    Saved,
    Stat,
    Stated,
)

ALIVE_INTERVAL_S = 5  # the shim gives up after 15 s without a sign
REQUEST_TIMEOUT_S = 30  # a shim sends its request at once; this ends connections that never do
_GRACE_S = 10  # beyond a delegate's own deadline, which the shim enforces
_DISK_S = 60  # a busy disk's fsync takes many seconds
_RUNTIME_S = 20  # the shim gives a runtime that reads nothing 10 s, and says so then

_F = TypeVar("_F", bound=Frame)


class ShimSession:
    """A connection whose request has been read. Every method raises CallerGone once it is lost."""

    def __init__(self, connection: FrameConnection, request: Request) -> None:
        self.request = request
        self._connection = connection
        self._answering = False

    async def exec_plugin(self, call: PluginCall, deadline_s: float) -> Executed:
        frame: Exec = call.to_exec(deadline_s)
        if len(frame.stdin) > MAX_STREAM:
            raise IOFailure(
                f"the configuration for plugin {call.type} is over {MAX_STREAM >> 20} MiB"
            )
        return await self._ask(frame, Executed, deadline_s + _GRACE_S)

    async def find_in_path(self, plugin_type: str) -> str:
        found = await self._ask(Find(plugin_type.encode()), Found)
        return "" if found.errno else found.path.decode(errors="surrogateescape")

    async def save(self, name: str, content: bytes) -> None:
        await self._keep(Save(name.encode(), content), "written")

    async def append(self, name: str, content: bytes) -> None:
        await self._keep(Append(name.encode(), content), "extended")

    async def forget(self, name: str) -> None:
        await self._keep(Forget(name.encode()), "removed")

    async def try_lock(self, container_id: str) -> bool:
        locked = await self._ask(Lock(container_id.encode()), Locked)
        if locked.errno in (0, errno.EWOULDBLOCK):
            return locked.errno == 0
        raise IOFailure(f"the sandbox's lock can't be taken: {os.strerror(locked.errno)}")

    async def unlock(self) -> None:
        await self._ask(Lock(b""), Locked)

    async def stat_netns(self, path: str) -> Stated:
        return await self._ask(Stat(path.encode(errors="surrogateescape")), Stated)

    async def lend(self, seconds: int) -> None:
        """Ask the shim to serve us for so long after its answer."""
        self._send(Lend(seconds))

    async def answer(self, exit_code: int, stdout: bytes) -> bool:
        """Give the runtime its answer; return whether all of it got there."""
        self._answering = True
        try:
            answered = await self._ask(Answer(exit_code, stdout), Answered, _RUNTIME_S)
        finally:
            self._answering = False
        return answered.errno == 0

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Send `alive` while the block runs, but none after an answer: its shim ends when it has
        given it on, and a sign that comes too late would break the connection before what the shim
        said last is read."""
        task = asyncio.create_task(self._send_signs())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _send_signs(self) -> None:
        with contextlib.suppress(CallerGone):
            while True:
                await asyncio.sleep(ALIVE_INTERVAL_S)
                if not self._answering:
                    self._send(Alive())

    async def _keep(self, frame: Save | Append | Forget, done: str) -> None:
        saved = await self._ask(frame, Saved, _DISK_S)
        if saved.errno:
            raise IOFailure(
                f"the sandbox's record could not be {done}: {os.strerror(saved.errno)}",
                details="records are in the state folder (default /var/lib/cni/metaplugin)",
            )

    async def _ask(self, frame: Frame, reply: type[_F], timeout_s: float = _GRACE_S) -> _F:
        try:
            self._connection.send(frame)
            received = await self._connection.receive(timeout_s)
        except (OSError, EOFError, TimeoutError, ProtocolError) as exc:
            self._connection.close()
            raise CallerGone(f"the shim is gone: {exc!r}") from exc
        if not isinstance(received, reply):
            self._connection.close()
            raise CallerGone(f"the shim sent {type(received).__name__}, not {reply.__name__}")
        return received

    def _send(self, frame: Frame) -> None:
        try:
            self._connection.send(frame)
        except OSError as exc:
            raise CallerGone(f"the shim is gone: {exc!r}") from exc

    def close(self) -> None:
        """Close the connection once what was sent has gone."""
        self._connection.close()


async def open_session(connection: socket.socket) -> tuple[ShimSession, int | None]:
    """Greet a shim and read its request; return the session and the netlink socket's descriptor,
    which the caller has to close. Raise ProtocolError, EOFError, OSError or TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(REQUEST_TIMEOUT_S):
        hello = Hello(PROTOCOL_VERSION, PROTOCOL_VERSION)
        await loop.sock_sendall(connection, hello.encode())
        first, descriptor = await _receive_with_descriptor(connection)
        try:
            frames = FrameConnection(first)
            await loop.create_unix_connection(lambda: frames, sock=connection)
            request = _checked_request(await frames.receive(REQUEST_TIMEOUT_S))
        except BaseException:
            frames.close()  # or the transport would claim the descriptor's number for ever
            if descriptor is not None:
                os.close(descriptor)
            raise
    return ShimSession(frames, request), descriptor


def _checked_request(frame: Frame) -> Request:
    if not isinstance(frame, Request):
        raise ProtocolError(f"the shim began with {type(frame).__name__}")
    if frame.version != PROTOCOL_VERSION:
        raise ProtocolError(f"the shim picked version {frame.version}, which was not offered")
    return frame


async def _receive_with_descriptor(connection: socket.socket) -> tuple[bytes, int | None]:
    """Return the first bytes of the request, no more than its header, and the descriptor beside
    them."""
    loop = asyncio.get_running_loop()
    while True:
        await _readable(loop, connection)
        try:
            data, descriptors, _, _ = socket.recv_fds(connection, HEADER.size, 1)
        except BlockingIOError:
            continue
        if not data:
            raise EOFError("the shim closed before its request")
        return data, descriptors[0] if descriptors else None


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def mark() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, mark)
    try:
        await ready
    finally:
        loop.remove_reader(connection)
