"""What a request's observer sees, and the one that looks away: serving shims needs no metrics."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from metaplugin.commands.ports import Caller


class Observer(Protocol):
    """Watches requests from beside the flows."""

    def caller(self, caller: Caller) -> Caller:
        """Return the caller with its ports watched."""

    def request(self, command: str, caller: Caller) -> AbstractContextManager[None]:
        """Watch one request of a watched caller: the block is its flow, and its exception its
        error."""

    def undelivered(self) -> None:
        """Note an ADD that is undone because its result reached nobody."""

    def reaped(self, records: int) -> None:
        """Note left-over records that were released."""


class Unobserved:
    """The port Observer where nobody asks for metrics."""

    def caller(self, caller: Caller) -> Caller:
        return caller

    def request(self, command: str, caller: Caller) -> AbstractContextManager[None]:
        del command, caller
        return nullcontext()

    def undelivered(self) -> None:
        """Do nothing."""

    def reaped(self, records: int) -> None:
        """Do nothing."""
