"""How a request's time is shared."""

from __future__ import annotations

import asyncio

import pytest

from metaplugin.cni.errors import TryAgainLater
from metaplugin.commands.deadline import Deadline
from metaplugin.commands.ports import Deadlines


@pytest.mark.parametrize("count", [1, 3, 9, 40])
def test_every_delegate_of_a_del_is_tried_though_each_hangs(count: int) -> None:
    """CNI-DEL-4: the default network's DEL, the last, is not starved by the others."""

    async def shares() -> list[float]:
        limits = Deadlines()
        now = asyncio.get_running_loop().time()
        left, given = limits.request, []
        for following in reversed(range(count)):
            share = Deadline(now + left, limits).for_rollback("x", following=following).seconds
            left -= share
            given.append(share)
        return given

    given = asyncio.run(shares())
    assert len(given) == count
    assert sum(given) <= 200.01
    assert min(given) > 4
    assert max(given) <= 90


def test_a_delegate_of_an_add_leaves_the_time_for_undoing_it() -> None:
    async def share(left: float) -> float:
        now = asyncio.get_running_loop().time()
        return Deadline(now + left, Deadlines()).for_delegate("x").seconds

    assert asyncio.run(share(200)) == 90
    assert 9 < asyncio.run(share(70)) <= 10
    with pytest.raises(TryAgainLater, match=r"x was not started: .*requestSeconds.* 60 s kept"):
        asyncio.run(share(60))


@pytest.mark.parametrize(
    ("left", "named"),
    [(200, "deadlines.delegateSeconds"), (70, "the request's 200 s (deadlines.requestSeconds)")],
)
def test_an_allowance_says_which_limit_it_is(left: float, named: str) -> None:
    """Issue 5, item 8: each error says which deadline ran out."""

    async def why() -> str:
        now = asyncio.get_running_loop().time()
        return Deadline(now + left, Deadlines()).for_delegate("x").why

    assert named in asyncio.run(why())


def test_a_status_has_its_own_limit_and_keeps_nothing_for_undoing() -> None:
    """CNI-STA-6."""

    async def allowed() -> tuple[float, str]:
        allowance = Deadline.start_status(Deadlines(status=3)).for_delegate("x")
        return allowance.seconds, allowance.why

    seconds, why = asyncio.run(allowed())
    assert 2 < seconds <= 3
    assert "deadlines.statusSeconds" in why
