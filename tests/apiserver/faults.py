"""The faults that the server has on demand, and which requests they are for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.apiserver.wire import Request


@dataclass(frozen=True)
class Answer:
    """An error in place of the work; `text` in place of the Status, as proxies answer.

    On an open watch: an ERROR event, and the end of the stream.
    """

    code: int
    reason: str = ""
    message: str = "fault on demand"
    retry_after: int | None = None  # seconds
    text: str = ""


@dataclass(frozen=True)
class Slow:
    """The work and its answer come late; not at all when the client has left before."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """The connection is reset; nothing is done."""


@dataclass(frozen=True)
class Cut:
    """The work is done, but of the answer's body only so many bytes come before the end."""

    after: int = 0


@dataclass(frozen=True)
class Silence:
    """Nothing comes any more, while the connection stays; a watch gets its headers."""


@dataclass(frozen=True)
class Garbage:
    """Bytes that aren't JSON: a response's body; on a watch a line before those that follow."""

    data: bytes = b"\x00\xff{]garbage\n"


@dataclass(frozen=True)
class HalfLine:
    """On a watch: the next event breaks off in its middle, then the stream ends, cleanly or cut."""

    cleanly: bool = False


StreamFault = Answer | Reset | Cut | Silence | Garbage | HalfLine
Fault = StreamFault | Slow
Predicate = Callable[[Request], bool]


def on(*, method: str = "", path: str = "", verb: str = "", resource: str = "") -> Predicate:
    """Of requests that fit all that is given; `path` is searched for as a regular expression."""

    def fits(request: Request) -> bool:
        return (
            method in {"", request.method}
            and verb in {"", request.verb}
            and resource in {"", request.resource}
            and re.search(path, request.path) is not None
        )

    return fits


def later_pages(request: Request) -> bool:
    """A predicate: of lists, all but the first page."""
    return bool(request.query.get("continue"))


@dataclass
class Rule:
    """A fault and who gets it: the next `times` requests that fit, or all until cleared."""

    fault: Fault
    fits: Predicate
    times: int | None = None

    def take(self, request: Request) -> bool:
        if self.times == 0 or not self.fits(request):
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def clear(self) -> None:
        self.times = 0
