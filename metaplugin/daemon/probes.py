"""The kubelet's probes. `/healthz` fails for what a restart would cure, and for nothing else: the
API server's absence is no reason to end a daemon that serves. `/readyz` says whether pods that
start now get their networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from metaplugin.daemon.http import HttpRequest, HttpResponse

Check = Callable[[], str]  # "" when all is well, else what is wrong, for an operator

STUCK_S = 60  # a disk under load takes seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Named checks, none of which waits: what answers them is the event loop itself."""

    live: Mapping[str, Check]
    ready: Mapping[str, Check]

    def is_ready(self) -> bool:
        return not any(check() for check in self.ready.values())

    def respond(self, request: HttpRequest) -> HttpResponse | None:
        """Return the answer to a probe, None for another path."""
        checks = {"/healthz": self.live, "/readyz": self.ready}.get(request.path)
        return None if checks is None else _answer(checks, verbose="verbose" in request.query)


@dataclass(slots=True)
class PoolCheck:
    """Whether a pool's threads still take work, by what the last probe gave them."""

    pool: Executor
    _given: Future[None] | None = None
    _since: float = field(default=0)

    def __call__(self) -> str:
        now = time.monotonic()
        if self._given is None or self._given.done():
            self._given, self._since = self.pool.submit(_do_nothing), now
        waited = now - self._since
        return f"no thread has been free for {waited:.0f} s" if waited > STUCK_S else ""


def _do_nothing() -> None:
    """Be done."""


def _answer(checks: Mapping[str, Check], *, verbose: bool) -> HttpResponse:
    """Return 200, or 503 with what is wrong; with `verbose` also what is well."""
    found = {name: check() for name, check in checks.items()}
    failed = any(found.values())
    lines = [
        f"[-] {name}: {problem}" if problem else f"[+] {name}: ok"
        for name, problem in found.items()
        if problem or verbose
    ]
    lines += ["failed" if failed else "ok"]
    return HttpResponse(status=503 if failed else 200, body=("\n".join(lines) + "\n").encode())
