"""An open watch: what it has still to be told, and the stream that tells it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.apiserver.faults import Answer, Garbage, HalfLine, Silence, StreamFault
from tests.apiserver.resources import ApiError, JSONObject
from tests.apiserver.store import Change, Scope, encode
from tests.apiserver.wire import Connection, Request


@dataclass(frozen=True)
class End:
    """The end of a stream; not `cleanly`: without its last chunk."""

    cleanly: bool


Item = bytes | StreamFault | End


def line(type_: str, raw: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (type_.encode(), raw)


@dataclass(eq=False)
class Watch:
    """Filled by `tell` from any thread under the server's lock; streamed in the server's loop."""

    request: Request
    scope: Scope
    loop: asyncio.AbstractEventLoop
    pending: list[Item] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _deaf: bool = False
    _half: HalfLine | None = None

    def tell(self, *items: Item) -> None:
        self.pending += items
        self.loop.call_soon_threadsafe(self._wake.set)

    def tell_changes(self, changes: list[Change]) -> None:
        """All in one, so that they can be written at once."""
        seen = [event for change in changes if (event := self.scope.seen(change))]
        if seen:
            self.tell(*(line(*event) for event in seen))

    def tell_event(self, type_: str, raw: bytes) -> None:
        self.tell(line(type_, raw))

    def tell_bookmark(self, version: int, *, initial_end: bool = False) -> None:
        """Nothing to a client that hasn't asked for bookmarks."""
        if self.request.query.get("allowWatchBookmarks") not in {"1", "true"}:
            return
        metadata: JSONObject = {"resourceVersion": str(version)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        resource = self.scope.resource
        bookmark = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        self.tell(line("BOOKMARK", encode(bookmark)))

    async def stream(
        self,
        connection: Connection,
        *,
        take: Callable[[Watch], list[Item]],
        bookmark: Callable[[Watch], None],
        bookmark_s: float,
    ) -> bool:
        """Until time is over, the end or the client's; true if the connection can go on."""
        gone = asyncio.ensure_future(connection.closed())
        gone.add_done_callback(lambda _: self._wake.set())
        deadline = time.monotonic() + float(self.request.query.get("timeoutSeconds", 3600))
        end: End | None = None
        try:
            while not gone.done() and not end:
                if not await self._woken(min(bookmark_s, deadline - time.monotonic())):
                    bookmark(self)
                data, end = self._digest(take(self))
                if data:
                    await connection.chunks(*data)
                if time.monotonic() >= deadline and not self._deaf:
                    end = end or End(cleanly=True)
        finally:
            gone.cancel()
            await asyncio.wait({gone})  # the connection's next request has to be able to read
        if end and end.cleanly:
            await connection.chunks(b"")
        return end is not None and end.cleanly

    async def _woken(self, within: float) -> bool:
        try:
            async with asyncio.timeout(max(within, 0)):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    def _digest(self, items: list[Item]) -> tuple[list[bytes], End | None]:
        """What to write, and whether that was the last."""
        data: list[bytes] = []
        for item in items:
            if isinstance(item, End):
                return data, item
            if self._deaf:
                continue
            if isinstance(item, bytes) and self._half:
                return [*data, item[: len(item) // 2]], End(self._half.cleanly)
            if isinstance(item, bytes):
                data.append(item)
            elif isinstance(item, Garbage):
                data.append(item.data)
            elif isinstance(item, Silence):
                self._deaf = True
            elif isinstance(item, HalfLine):
                self._half = item
            elif isinstance(item, Answer):
                error = line("ERROR", encode(error_of(item).status()))
                return [*data, error], End(cleanly=True)
            else:
                return data, End(cleanly=False)
        return data, None


def error_of(answer: Answer) -> ApiError:
    return ApiError(
        answer.code, answer.message, reason=answer.reason, retry_after=answer.retry_after
    )
