"""The sandbox's lock when it is not to be had, and a plugin that is just being installed."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from metaplugin.wire.frames import Outcome
from tests.shim.peer import Conversation, Surroundings
from tests.shim.test_shim import at, ends, error, record, sandbox, section

__all__ = ["at"]


@contextmanager
def locked(at: Surroundings, container_id: str = "c1") -> Iterator[None]:
    """Hold a sandbox's lock, as a delegate's child does that outlived its shim."""
    folder = at.root / "run" / "locks"
    folder.mkdir(mode=0o700)
    with (folder / container_id).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_without_the_lock_only_a_del_goes_on(at: Surroundings) -> None:
    """DESIGN section 2: bounded waits; CNI-DLG-20."""
    at.script("p", "touch $0.ran")
    with sandbox(at) as netns, locked(at):
        record(at, section(at, netns, "p"))
        for command in ("ADD", "CHECK"):
            code, message = error(at.call(command, CNI_NETNS=netns))
            assert code == 11
            assert "c1: the sandbox's lock was not to be had in 300 ms (lock_wait_ms)" in message
        assert not (at.root / "plugins" / "p.ran").exists()
        assert at.call("DEL", CNI_NETNS=netns).returncode == 0
    assert (at.root / "plugins" / "p.ran").exists()


def test_a_del_without_the_lock_says_so_to_the_daemon(at: Surroundings) -> None:
    def serve(shim: Conversation) -> None:
        assert b"no lock for the sandbox" in shim.open().notes
        shim.answer()

    with locked(at), at.daemon(serve):
        assert at.call("DEL").returncode == 0


def test_a_lock_of_another_sandbox_stops_nobody(at: Surroundings) -> None:
    """CNI-CON-1."""
    with locked(at, "c2"):
        assert at.call("DEL").returncode == 0


def test_a_plugin_that_is_just_being_written_is_tried_again(at: Surroundings) -> None:
    """containernetworking/cni#763: ETXTBSY."""
    path = at.script("p", "echo here")
    busy = path.open("ab")
    closing = threading.Timer(0.2, busy.close)
    closing.start()
    executed = ends(at, "p")
    closing.join()
    assert (executed.outcome, executed.stdout) == (Outcome.EXITED, b"here\n")
