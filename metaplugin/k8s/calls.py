"""Single requests to the API server from the event loop, each in a thread of its own, a few at a
time.

The threads are daemons: a request that hangs doesn't keep the process from ending, as a pool's
would.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import threading
import time
from typing import Any

from metaplugin.cni.raw import JSONObject
from metaplugin.k8s.api import Api, ApiAway, ApiRefused
from metaplugin.k8s.health import PATIENCE_S, Health

log = logging.getLogger(__name__)

READS_AT_ONCE, WRITES_AT_ONCE = 8, 8  # apart: writes that hang keep no ADD from asking
FIRST_PROBE_S, LONGEST_PROBE_S = 0.2, 3.0  # the longest bounds how late a return is noticed
PROBE_TIMEOUT_S = 8  # a slow server is not away


class Calls:
    """Requests whose outcome the breaker learns of. Of `gone` and `here` one is set, by whether the
    server is away."""

    def __init__(self, api: Api, health: Health) -> None:
        self._api = api
        self._health = health
        self._reading = asyncio.Semaphore(READS_AT_ONCE)
        self._writing = asyncio.Semaphore(WRITES_AT_ONCE)
        self._probing = asyncio.Semaphore(1)
        self._probe: asyncio.Task[None] | None = None
        self.gone, self.here = asyncio.Event(), asyncio.Event()
        self.here.set()
        self.returned_at = -math.inf

    async def call(
        self, method: str, path: str, *, timeout_s: float, body: Any = None
    ) -> JSONObject:
        """Return the object that the server answers with; raise ApiAway or ApiRefused."""
        places = self._reading if method == "GET" else self._writing
        return await self._in_thread(places, method, path, timeout_s, body)

    async def answers(self, task: asyncio.Future[Any], patience_s: float) -> bool:
        """Wait until a task of calls is done, the server found to be away, or the time is up; say
        whether it is done. One that takes long makes us look whether the server is there at all."""
        await asyncio.wait({task}, timeout=min(patience_s, PATIENCE_S))
        if not task.done():
            self._health.waited_in_vain()
            self.suspect()
        if not task.done() and patience_s > PATIENCE_S:
            gone = asyncio.create_task(self.gone.wait())
            await asyncio.wait(
                {task, gone},
                timeout=patience_s - PATIENCE_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            gone.cancel()
        return task.done()

    async def back_within(self, seconds: float) -> bool:
        """Wait until the server is found to answer, or the time is up; say whether it does."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.here.wait(), seconds)
        return self.here.is_set()

    def suspect(self) -> None:
        """Have the server tried until it answers, unless that is being done."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._try())

    def note_health(self) -> None:
        """Follow the breaker: called on the loop after it has changed."""
        if self._health.away:
            self.here.clear()
            self.gone.set()
            self.suspect()
        else:
            self.returned_at = time.monotonic()
            self.gone.clear()
            self.here.set()

    async def _try(self) -> None:
        """Ask for the server's version over new connections until there is an answer, be it an
        error."""
        delay = FIRST_PROBE_S
        while True:
            try:
                self._api.reconnect()
                await self._in_thread(self._probing, "GET", "/version", PROBE_TIMEOUT_S, None)
            except (ApiAway, ApiRefused):
                pass  # the breaker knows
            except Exception:  # a task's root: without it nothing would be asked any more
                log.exception("defect")
            if not self._health.away:
                return
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - apart from others
            delay = min(delay * 2, LONGEST_PROBE_S)

    async def _in_thread(
        self, places: asyncio.Semaphore, method: str, path: str, timeout_s: float, body: Any
    ) -> JSONObject:
        async with places:
            outcome: asyncio.Future[JSONObject] = asyncio.get_running_loop().create_future()
            arguments = (outcome, method, path, timeout_s, body)
            threading.Thread(target=self._run, args=arguments, daemon=True).start()
            return await outcome

    def _run(
        self,
        outcome: asyncio.Future[JSONObject],
        method: str,
        path: str,
        timeout_s: float,
        body: Any,
    ) -> None:
        result: JSONObject | Exception
        try:
            result = self._noted(method, path, timeout_s, body)
        except Exception as exc:  # noqa: BLE001 - raised again by who awaits it
            result = exc
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            outcome.get_loop().call_soon_threadsafe(_settle, outcome, result)

    def _noted(self, method: str, path: str, timeout_s: float, body: Any) -> JSONObject:
        asked = time.monotonic()
        try:
            result = self._api.call(method, path, timeout_s=timeout_s, body=body)
        except ApiAway:
            self._health.failed()
            raise
        except ApiRefused as exc:
            self._health.answered(time.monotonic() - asked, overloaded=exc.is_overload)
            raise
        self._health.answered(time.monotonic() - asked)
        return result


def _settle(outcome: asyncio.Future[JSONObject], result: JSONObject | Exception) -> None:
    if outcome.done():
        return
    if isinstance(result, Exception):
        outcome.set_exception(result)
    else:
        outcome.set_result(result)
