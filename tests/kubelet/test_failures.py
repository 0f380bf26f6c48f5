"""A kubelet that doesn't answer, or answers nonsense: its checkpoint serves, else the error tells
what was tried."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from metaplugin.attachments.devices import Allocation
from metaplugin.attachments.runtime_conf import PodReference
from tests.kubelet.asking import NIC, Asking, asking_of, device, pod
from tests.kubelet.podresources import Device, FakeKubelet, Pod, Resources

ANONYMOUS = PodReference(namespace="default", name="p")


def refuse(code: grpc.StatusCode) -> Callable[[FakeKubelet], None]:
    def failing(kubelet: FakeKubelet) -> None:
        kubelet.failure = code

    return failing


def answer(garbage: bytes) -> Callable[[FakeKubelet], None]:
    def garbled(kubelet: FakeKubelet) -> None:
        kubelet.garbage = garbage

    return garbled


def be_late(kubelet: FakeKubelet) -> None:
    kubelet.delay_s = 30


def answer_without_end(kubelet: FakeKubelet) -> None:
    kubelet.get, kubelet.padding = "unimplemented", 60_000


SICK = {
    "absent": (FakeKubelet.stop, "no socket: No such file"),
    "killed": (lambda kubelet: kubelet.stop(stale=True), "Connection refused"),
    "unavailable": (refuse(grpc.StatusCode.UNAVAILABLE), "Get: UNAVAILABLE: as the test wants"),
    "internal": (refuse(grpc.StatusCode.INTERNAL), "List: INTERNAL: as the test wants"),
    "exhausted": (refuse(grpc.StatusCode.RESOURCE_EXHAUSTED), "RESOURCE_EXHAUSTED"),
    "late": (be_late, "Get: DEADLINE_EXCEEDED"),
    "endless": (answer_without_end, "List: RESOURCE_EXHAUSTED"),
    "garbage": (answer(b"\xff\xfe" * 40), "Get: the answer can't be read (80 bytes)"),
    "half a message": (answer(b"\x0a\x7f"), "Get: the answer can't be read"),
    "no text": (answer(b"\x0a\x03\x0a\x01\xff"), "Get: the answer can't be read"),
    "another pod": (answer(b"\x0a\x03\x0a\x01x"), "Get: the answer doesn't have the pod"),
    "nothing": (answer(b""), "Get: the answer doesn't have the pod"),
}


@pytest.mark.parametrize(("sicken", "reason"), SICK.values(), ids=SICK)
def test_the_checkpoint_serves_by_uid_or_the_error_tells_what_was_tried(
    kubelet: FakeKubelet, sicken: Callable[[FakeKubelet], None], reason: str
) -> None:
    given: Resources = {NIC: ["b", Device(id="a", numa=(1, 0))]}
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": given}))
    sicken(kubelet)
    with asking_of(kubelet, timeout_s=0.5) as asking:
        began = time.monotonic()
        refusal = asking.refusal(ANONYMOUS)
        unknown = asking.refusal(pod(uid="unknown"))
        found = asking.allocation(pod())
        assert time.monotonic() - began < 3 * 0.5 + 2
    for part in (reason, str(kubelet.socket), str(kubelet.checkpoint)):
        assert part in refusal
    assert "the runtime gave none" in refusal
    assert "has no devices for UID unknown" in unknown
    assert found == Allocation(
        devices=(device("a", 0, 1), device("b")), source=f"checkpoint {kubelet.checkpoint}"
    )


def test_a_kubelet_that_comes_back_is_asked_again_at_once(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
    for stale in (False, True) * 3:
        kubelet.stop(stale=stale)
        assert asking.allocation(pod()).source == f"checkpoint {kubelet.checkpoint}"
        kubelet.start()
        assert asking.allocation(pod()).source == f"Get at {kubelet.socket}"


def test_a_pod_that_the_kubelet_does_not_list_is_not_taken_for_one_without_devices(
    asking: Asking,
) -> None:
    refusal = asking.refusal(pod())
    assert "Get: UNKNOWN: pod p in namespace default not found" in refusal
    assert "List: the answer doesn't have the pod" in refusal


def test_one_that_hangs_holds_up_others_for_one_question(kubelet: FakeKubelet) -> None:
    for name in "ab":
        kubelet.admit("default", name, Pod(uid=name, containers={"app": {NIC: [name]}}))
    kubelet.delay_s = 30

    async def scenario(asking: Asking) -> list[Allocation]:
        first = asyncio.create_task(asking.connection.allocation(pod("a", "a")))
        await asyncio.to_thread(kubelet.wait_for_calls, 1)
        kubelet.delay_s = 0
        second = asking.connection.allocation(pod("b", "b"))
        return list(await asyncio.gather(first, second))

    with asking_of(kubelet, timeout_s=0.5) as asking:
        sources = [found.source for found in asking.run(scenario(asking))]
    assert sources == [f"checkpoint {kubelet.checkpoint}", f"Get at {kubelet.socket}"]


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 4096])
def test_what_is_no_kubelet_does_no_harm(kubelet: FakeKubelet, words: bytes) -> None:
    """Also one that takes connections and says nothing."""
    kubelet.stop()
    with socket.socket(socket.AF_UNIX) as listening, asking_of(kubelet, timeout_s=0.5) as asking:
        listening.bind(str(kubelet.socket))
        listening.listen()

        async def scenario() -> BaseException | Allocation:
            question = asyncio.create_task(asking.connection.allocation(pod()))
            connection, _ = await asyncio.to_thread(listening.accept)
            with connection:
                connection.sendall(words)
                return (await asyncio.gather(question, return_exceptions=True))[0]

        began = time.monotonic()
        assert "devices of pod default/p are not known" in str(asking.run(scenario()))
        assert time.monotonic() - began < 5


def test_a_defect_is_told_to_all_who_wait(kubelet: FakeKubelet, asking: Asking) -> None:
    object.__setattr__(asking.connection._answers._places, "checkpoint", None)
    found = asking.allocations(pod("a"), pod("b"))
    assert [type(each) for each in found] == [AttributeError, AttributeError]
    assert asking.connection._asking is None


def test_random_answers_never_break_the_asking(kubelet: FakeKubelet, asking: Asking) -> None:
    kubelet.limited = False
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
    dice = random.Random(0)
    for _ in range(100):
        kubelet.garbage = dice.randbytes(dice.randrange(64))
        assert asking.allocation(pod()).devices == (device("a"),)
    kubelet.garbage = None
    assert asking.allocation(pod()).source == f"Get at {kubelet.socket}"


def test_a_checkpoint_that_a_mount_does_not_follow_is_not_believed(
    kubelet: FakeKubelet, tmp_path: Path
) -> None:
    """The kubelet renames a new file into place: the old one's link is gone."""
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
    kubelet.stop()
    with kubelet.checkpoint.open("rb") as old:
        kubelet.checkpoint.unlink()
        kubelet.checkpoint.symlink_to(f"/proc/self/fd/{old.fileno()}")
        with asking_of(kubelet) as asking:
            assert "mount its folder instead of the file" in asking.refusal(pod())
