"""Releasing what a vanished sandbox left, when its runtime never sent the DEL."""

from __future__ import annotations

import logging
import time

from metaplugin.attachments.record import Record, StoredRecord
from metaplugin.cni.errors import CNIError
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.ports import Caller, Node
from metaplugin.commands.release import deletion, finish_record
from metaplugin.wire.container import DamagedRecord
from metaplugin.wire.frames import NetnsState

log = logging.getLogger(__name__)

# An ADD is answered within 200 s and its runtime deletes at once: after this nobody will.
ABANDONED_AFTER_S = 600


async def reap(caller: Caller, node: Node) -> int:
    """Release every record whose sandbox is gone or whose ADD was abandoned; return how many.

    What fails is logged and stays for the next time. Raise CallerGone.
    """
    released = 0
    stored_records = await node.records.read_all()
    # What has failed for long, and may hang, keeps nothing else from being released.
    for stored in sorted(stored_records, key=lambda stored: stored.record.given_up):
        if await _is_left_over(stored.record, caller):
            deadline = Deadline.start(node.settings.deadlines)
            errors = await finish_unless_busy(stored, caller, node, deadline)
            released += errors == []
            for error in errors or ():
                log.error(
                    "left-over record could not be released",
                    extra={"record": stored.record.file_name, "error": error.msg},
                )
    return released


async def finish_unless_busy(
    stored: StoredRecord, caller: Caller, node: Node, deadline: Deadline
) -> list[CNIError] | None:
    """Run a record's DEL under its sandbox's lock; return what failed. A sandbox for which
    something runs now, or whose record has changed or gone meanwhile, is left alone: None."""
    record = stored.record
    if not await caller.locks.try_lock(record.sandbox.container_id):
        return None
    try:
        present = await node.records.read(record.file_name)
        if present is None or present.record.generation != record.generation:
            return None
        await finish_record(present, deletion(record), caller, node, deadline)
        await node.status.withdraw(record)
    except CNIError as exc:
        return [exc]
    except DamagedRecord as exc:
        log.error("damaged record", extra={"record": record.file_name, "error": str(exc)})
    finally:
        await caller.locks.unlock()
    return []


async def _is_left_over(record: Record, caller: Caller) -> bool:
    if record.given_up:
        return True
    stated = await caller.locks.stat_netns(record.sandbox.netns)
    if stated.state == NetnsState.UNREADABLE:
        return False
    present = stated.state == NetnsState.VALID
    if not present or not record.sandbox.is_at(stated.device, stated.inode):
        return True
    return not record.complete and time.time() - record.created > ABANDONED_AFTER_S
