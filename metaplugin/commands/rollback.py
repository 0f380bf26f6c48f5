"""Undoing an ADD that failed: the DEL of everything tried, last first (CNI section 4, NPWG 7.2)."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from metaplugin.attachments.record import Failing, Record, Refusal, StoredRecord, encode_stored
from metaplugin.cni.errors import CNIError, join_errors
from metaplugin.cni.result import Result
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.libcni import NeverRan, Refused, run_all
from metaplugin.commands.ports import Caller, CallerGone
from metaplugin.commands.release import (
    interfaces_inside,
    released_positions,
    without_refused,
)

log = logging.getLogger(__name__)

_DONE = "a plugin refused its DEL as well, which counts as done: nothing of it is there"


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
    A plugin that refuses its DEL and has made nothing counts as undone, and the failure's details
    say so. With the caller gone nothing can be undone now: the record stays as it is.
    """
    attempt = Attempt(record)
    try:
        yield attempt
    except CallerGone:
        raise
    except NeverRan as exc:
        await _undo(attempt, caller, deadline, never_ran=exc.place)
        raise
    except Refused as exc:
        refusal = Refusal(place=exc.place, code=exc.code, msg=exc.msg)
        attempt.record = attempt.record.with_refusal(attempt.tried - 1, refusal)
        if await _undo(attempt, caller, deadline):
            exc.details = "; ".join(filter(None, (exc.details, _DONE)))
        raise
    except BaseException:
        await _undo(attempt, caller, deadline)
        raise


async def _undo(
    attempt: Attempt, caller: Caller, deadline: Deadline, *, never_ran: int | None = None
) -> bool:
    """Run the DELs, but not of the last attachment's plugin that never ran; never raises, so that
    the ADD's own error is the answer. Return whether one was refused, and is done."""
    record = attempt.reached()
    stored = StoredRecord(record=record, calls=record.del_calls())
    places = list(range(len(stored.calls)))
    if never_ran is not None:
        last = record.attachments[-1].planned.config.plugins
        places = [place for place in places if place != len(last) - 1 - never_ran]
    try:
        found = await run_all(caller, [stored.calls[place] for place in places], deadline)
        failures = {places[at]: error for at, error in found.items()}
        counting = await _counting(record, failures, caller)
        await _keep_or_forget(stored, counting, caller, deadline)
    except (CNIError, CallerGone) as exc:
        log.error("rollback interrupted", extra={"error": str(exc)})
        return False
    return len(counting) < len(failures)


async def _counting(
    record: Record, failures: dict[int, CNIError], caller: Caller
) -> dict[int, CNIError]:
    if not failures:
        return {}
    sandbox = record.sandbox
    inside = await interfaces_inside(record, sandbox.netns, sandbox, caller)
    return without_refused(record, failures, inside)


async def _keep_or_forget(
    stored: StoredRecord, failures: dict[int, CNIError], caller: Caller, deadline: Deadline
) -> None:
    """Keep what could not be undone in the record, for the runtime's own DEL."""
    record = stored.record
    if not failures:
        await caller.records.forget(record.file_name)
        return
    for error in failures.values():
        log.error("rollback incomplete", extra={"error": error.msg, "code": error.code})
    left = stored.without(released_positions(record, failures))
    failing = Failing(since=time.time(), error=join_errors(list(failures.values())).msg)
    left = replace(left, record=replace(left.record, failing=failing))
    content = encode_stored(left, deadline_s=deadline.limits.delegate)
    await caller.records.append(record.file_name, content)
