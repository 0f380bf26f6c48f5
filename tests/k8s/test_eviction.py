"""Evictions, and what their refusals say of the server: nothing, where a disruption budget does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.apiserver.faults import Answer, Reset, on
from tests.apiserver.server import ApiServer
from tests.k8s.side import Side, pod, reference

EVICTION = on(method="POST", path="/pods/a/eviction$")
BUDGET = json.dumps(
    {
        "kind": "Status",
        "message": "Cannot evict pod as it would violate the pod's disruption budget.",
        "details": {"causes": [{"reason": "DisruptionBudget", "message": "needs 1"}]},
    }
)


@pytest.mark.parametrize(
    ("answer", "slow", "going"),
    [
        (Answer(429, text=BUDGET), False, False),
        (Answer(429), True, False),
        (Answer(429, text="[]"), True, False),
        (Answer(500), True, False),
        (Answer(403), False, False),
        (Answer(404), False, True),
        (Answer(409), False, True),
    ],
    ids=["budget", "too many", "no Status", "failing", "no right", "gone", "another pod"],
)
def test_what_a_refused_eviction_says(
    server: ApiServer, kubeconfig: Path, answer: Answer, *, slow: bool, going: bool
) -> None:
    server.put(pod("a", uid="u"))
    server.inject(answer, EVICTION)
    with Side(kubeconfig, following=False) as side:
        assert side.run(side.connection.evictor.evict(reference("a", "u"))) is going
        assert side.call(side.connection.state).slow is slow


def test_a_pod_whose_eviction_nobody_answered_is_not_gone(
    server: ApiServer, kubeconfig: Path
) -> None:
    server.inject(Reset(), EVICTION)
    with Side(kubeconfig, following=False) as side:
        assert side.run(side.connection.evictor.evict(reference("a", "u"))) is False
