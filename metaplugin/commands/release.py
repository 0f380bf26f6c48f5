"""Releasing what a record names: what counts as done, and when one that fails may outlive its pod.

The record goes only when nothing is left for it to say. While a DEL fails it keeps since when, and
goes on without what has been released.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from metaplugin.attachments.calls import PluginCall
from metaplugin.attachments.record import (
    Failing,
    MadeAttachment,
    Record,
    Refusal,
    StoredRecord,
    encode_stored,
)
from metaplugin.attachments.runtime_conf import Sandbox
from metaplugin.cni.environment import CmdArgs, Command
from metaplugin.cni.errors import CNIError, ReportedError, TryAgainLater, join_errors
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.libcni import run_all
from metaplugin.commands.ports import Caller, Node, Request
from metaplugin.wire.frames import NetnsState

log = logging.getLogger(__name__)


class NotReleased(CNIError):
    """A record could not be released, and is kept; `given_up` says that its pod may go all the
    same."""

    def __init__(self, error: CNIError, *, given_up: bool) -> None:
        super().__init__(error.msg, details=error.details)
        self.code = error.code
        self.given_up = given_up


def is_given_up(error: CNIError) -> bool:
    """Say whether the error is of a record that is the clean-up's alone by now."""
    return isinstance(error, NotReleased) and error.given_up


async def finish_record(
    stored: StoredRecord,
    request: Request,
    caller: Caller,
    node: Node,
    deadline: Deadline,
    *,
    following: int = 0,
) -> None:
    """Run a record's DEL calls and put a tombstone in its place, time left for the `following`
    calls of other records; raise NotReleased, the record kept, or IOFailure."""
    record = stored.record
    netns = await present_netns(record.sandbox, request.sandbox, caller)
    calls = [call.in_netns(netns) for call in stored.calls]
    failures = await run_all(caller, calls, deadline, following=following)
    if failures:
        inside = await interfaces_inside(record, netns, request.sandbox, caller)
        failures = without_refused(record, failures, inside, gone=not netns)
    if not failures:
        await caller.records.forget(record.file_name)
        return
    left = stored.without(released_positions(record, failures))
    error = join_errors(list(failures.values()))
    failing = _failing(left.record, error, inside, deadline)
    raise await _kept(stored, left, failing, error, caller, node)


def released_positions(record: Record, failures: Collection[int]) -> list[int]:
    """Return the positions of the attachments of which no DEL call is among the `failures`."""
    failed = {position for at, (position, _) in enumerate(record.del_places()) if at in failures}
    return [position for position in range(len(record.attachments)) if position not in failed]


def without_refused(
    record: Record,
    failures: Mapping[int, CNIError],
    inside: Collection[str] | None,
    *,
    gone: bool = False,
) -> dict[int, CNIError]:
    """Return the failures that count; `gone` says that the sandbox's namespace is no more.

    A plugin that in DEL says the very words with which it refused ADD has stopped at the same place
    twice: unless its interface is in the sandbox, it has made nothing. One that moves a device into
    the sandbox may refuse the DEL of one that isn't there, as host-device does: after an ADD that
    was interrupted before it, or in a DEL that is repeated because another network's failed.
    """
    counting = {}
    for at, error in failures.items():
        position, place = record.del_places()[at]
        made = record.attachments[position]
        alike = made.refusal == Refusal(place=place, code=error.code, msg=error.msg)
        moves = place == 0 and made.planned.device is not None and made.in_kernel
        is_refusal = isinstance(error, ReportedError) and error.code != TryAgainLater.CODE
        if is_refusal and _is_out(made, inside) and (alike or (moves and not gone)):
            why = "as its ADD was" if alike else "of a device that is not in the sandbox"
            log.warning("DEL refused, and done", extra={"refused": why, "error": error.msg})
        else:
            counting[at] = error
    return counting


async def interfaces_inside(
    record: Record, netns: str, given: Sandbox, caller: Caller
) -> Collection[str] | None:
    """Return the names of the interfaces in the record's namespace, whose path `netns` is, "" when
    it is gone; None where they can't be seen: the caller's socket leads to the `given` one."""
    if not netns:
        return ()
    if caller.network is None or not record.sandbox.is_at(given.device, given.inode):
        return None
    try:
        return await caller.network.interface_names()
    except CNIError as exc:
        log.warning("the sandbox's interfaces can't be seen", extra={"error": exc.msg})
        return None


def _is_out(made: MadeAttachment, inside: Collection[str] | None) -> bool:
    return inside is not None and made.interfaces.isdisjoint(inside)


def _failing(
    record: Record, error: CNIError, inside: Collection[str] | None, deadline: Deadline
) -> Failing:
    """Return how a record that can't be released goes on: it is given up after a while of failing,
    unless something of it is, or may be, in the sandbox still."""
    before = record.failing or Failing(since=time.time(), error=error.msg)
    limit = deadline.limits.give_up
    failed_s = time.time() - before.since
    overdue = limit > 0 and not 0 <= failed_s < limit  # clocks are set back, too
    if before.given_up or not (overdue and all(_is_out(m, inside) for m in record.attachments)):
        return before
    return Failing(since=before.since, error=error.msg, given_up=True)


async def _kept(
    stored: StoredRecord,
    left: StoredRecord,
    failing: Failing,
    error: CNIError,
    caller: Caller,
    node: Node,
) -> NotReleased:
    """Write how a record that failed goes on, and return what to raise. One that can't be written
    isn't given up."""
    status = "" if failing.given_up else left.record.status  # the next pod of that name has its own
    record = replace(left.record, failing=failing, status=status)
    if record != stored.record:
        limit = node.settings.deadlines.delegate
        content = encode_stored(replace(left, record=record), deadline_s=limit)
        try:
            await caller.records.save(record.file_name, content)
        except CNIError as exc:
            log.error("failure not remembered", extra={"error": exc.msg})
            return NotReleased(error, given_up=stored.record.given_up)
    if failing.given_up and not stored.record.given_up:
        extra = {"record": record.file_name, "error": error.msg}
        log.error("given up: the pod may go, the clean-up goes on", extra=extra)
        node.events.given_up(record)
    return NotReleased(error, given_up=failing.given_up)


async def release_attachments(
    record: Record,
    released: Sequence[MadeAttachment],
    request: Request,
    caller: Caller,
    deadline: Deadline,
) -> Record:
    """Run the DEL calls of some of a record's attachments, and return the record without them,
    which is still to be written; raise CNIError."""
    positions = [record.attachments.index(made) for made in released]
    going = record.without(set(range(len(record.attachments))) - set(positions))
    netns = await present_netns(record.sandbox, request.sandbox, caller)
    calls = [call.in_netns(netns) for call in going.del_calls()]
    failures = await run_all(caller, calls, deadline)
    if failures:
        inside = await interfaces_inside(record, netns, request.sandbox, caller)
        failures = without_refused(going, failures, inside, gone=not netns)
    if failures:
        raise join_errors(list(failures.values()))
    return record.without(positions)


def deletion(record: Record) -> Request:
    """Return the DEL that the runtime would have sent, without a namespace's path."""
    args = CmdArgs(
        command=Command.DEL, container_id=record.sandbox.container_id, ifname=record.ifname
    )
    sandbox = Sandbox(container_id=record.sandbox.container_id, netns="")
    return Request(args=args, stdin=b"", sandbox=sandbox, runtime=record.runtime)


async def present_netns(recorded: Sandbox, given: Sandbox, caller: Caller) -> str:
    """Return the path of the record's namespace, "" when it is gone: the runtime may give an empty
    path, and at the old path there may be another container's namespace by now."""
    if given.netns and recorded.is_at(given.device, given.inode):
        return given.netns
    stated = await caller.locks.stat_netns(recorded.netns)
    alive = stated.state == NetnsState.VALID and recorded.is_at(stated.device, stated.inode)
    return recorded.netns if alive else ""


async def run_calls(calls: Sequence[PluginCall], caller: Caller, deadline: Deadline) -> None:
    """Run DEL calls, all of them; raise CNIError that tells every failure."""
    if errors := await run_all(caller, calls, deadline):
        raise join_errors(list(errors.values()))
