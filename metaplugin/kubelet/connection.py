"""The kubelet as the flows' port: questions from the event loop, asked in a thread.

One question is out at a time, and whoever comes meanwhile is in the next one: a burst of pods is
one List for the kubelet, which limits calls. Answers to earlier questions serve nobody: a kubelet
lists a pod before it has given it its devices, and gives them container by container.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence

from metaplugin.attachments.devices import Allocation
from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.kubelet.answers import Answers, KubeletAnswers, KubeletPlaces

Waiting = dict[PodReference, "asyncio.Future[Allocation | Exception]"]


class KubeletConnection:
    """This node's kubelet, asked at most `timeout_s` a question: a caller waits for two at most."""

    def __init__(self, places: KubeletPlaces) -> None:
        """Make nothing, and import nothing, until a pod's devices are asked for."""
        self._answers = KubeletAnswers(places)
        self._waiting: Waiting = {}
        self._asking: asyncio.Task[None] | None = None

    async def allocation(self, pod: PodReference) -> Allocation:
        """Return the pod's devices, none for a pod without any; raise TryAgainLater when they can't
        be known."""
        answer = self._waiting.get(pod)
        if answer is None:
            answer = self._waiting[pod] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        found = await asyncio.shield(answer)
        if isinstance(found, Exception):
            raise found
        return found

    async def _ask(self) -> None:
        """Ask for those who wait until nobody does."""
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            answers = await self._in_thread(tuple(asked))
            for pod, answer in asked.items():
                answer.set_result(answers[pod])
        self._asking = None

    async def _in_thread(self, pods: Sequence[PodReference]) -> Answers:
        """Return the answers; the thread doesn't keep the process from ending."""
        answered: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        arguments = (answered, pods)
        threading.Thread(target=self._run, args=arguments, name="kubelet", daemon=True).start()
        return await answered

    def _run(self, answered: asyncio.Future[Answers], pods: Sequence[PodReference]) -> None:
        answers: Answers
        try:
            answers = self._answers.about(pods)
        except Exception as exc:  # noqa: BLE001 - raised again by who waits for it
            answers = dict.fromkeys(pods, exc)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            answered.get_loop().call_soon_threadsafe(_settle, answered, answers)


def _settle(answered: asyncio.Future[Answers], answers: Answers) -> None:
    if not answered.done():  # cancelled with the loop's last tasks
        answered.set_result(answers)
