"""Undoing an ADD that failed: the DEL of everything tried, last first (CNI section 4, NPWG 7.2)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from metaplugin.attachments.record import Record, encode_record
from metaplugin.cni.errors import CNIError
from metaplugin.cni.result import Result
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.libcni import NeverRan
from metaplugin.commands.ports import Caller, CallerGone
from metaplugin.commands.release import release

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Attempt:
    """How far an ADD got: an attachment counts as tried from before its first plugin runs."""

    record: Record
    tried: int = 0
    results: dict[int, Result] = field(default_factory=dict)

    def reached(self) -> Record:
        """Return the record of what was tried, with the results that there are."""
        record = self.record.with_results(self.results)
        return replace(record, attachments=record.attachments[: self.tried])


@asynccontextmanager
async def undone_on_failure(
    record: Record, caller: Caller, deadline: Deadline
) -> AsyncIterator[Attempt]:
    """Undo the attempt when the block fails, then let the failure go on.

    Where a DEL fails too, the record stays, with the results so far, for the runtime's own DEL.
    With the caller gone nothing can be undone now: the record stays as it is.
    """
    attempt = Attempt(record)
    try:
        yield attempt
    except CallerGone:
        raise
    except NeverRan as exc:
        await _undo(attempt, caller, deadline, never_ran=exc.position)
        raise
    except BaseException:
        await _undo(attempt, caller, deadline)
        raise


async def _undo(
    attempt: Attempt, caller: Caller, deadline: Deadline, *, never_ran: int | None = None
) -> None:
    """Run the DELs, but not of the last attachment's plugin that never ran; never raises, so that
    the ADD's own error is the answer."""
    record = attempt.reached()
    calls = list(record.del_calls())
    if never_ran is not None:
        last = record.attachments[-1].planned.config.plugins
        del calls[len(last) - 1 - never_ran]
    try:
        errors = await release(record.attachments, calls, caller, caller.network, deadline)
        for error in errors:
            log.error("rollback incomplete", extra={"error": error.msg, "code": error.code})
        if errors:
            content = encode_record(record, deadline_s=deadline.limits.delegate)
            await caller.records.append(record.file_name, content)
        else:
            await caller.records.forget(record.file_name)
    except (CNIError, CallerGone) as exc:
        log.error("rollback interrupted", extra={"error": str(exc)})
