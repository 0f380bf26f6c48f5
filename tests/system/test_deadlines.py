"""Each deadline of the daemon's file is the one that it names, and the error of who runs into it
names it too (issue 5, item 8)."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.apiserver.faults import Silence, on
from tests.apiserver.server import ApiServer
from tests.system.node import Node, Reply, new_root, noop_network
from tests.system.test_daemon import begin, end

pytestmark = pytest.mark.system

Started = Callable[..., Node]
SLACK_S = 6  # a machine that is busy; far below what the defaults would take


@pytest.fixture
def limited() -> Iterator[Started]:
    """Return what starts a recording node with these deadlines."""
    nodes = []

    def started(network: dict[str, Any] | None = None, **deadlines: float) -> Node:
        root = new_root()
        default = noop_network(root, "default-net", **(network or {}))
        node = Node(root, default, daemon_keys={"deadlines": deadlines})
        node.plugin("noop")
        nodes.append(node)
        node.start()
        return node

    yield started
    for node in nodes:
        sys.stdout.write(node.log.read_text())
        node.close()


def ran_out(reply: Reply, code: int, *, named: str, after_s: float) -> None:
    assert (reply.exit_code, reply.code) == (1, code), reply.stdout
    assert named in reply.stdout.decode()
    assert reply.took < after_s + SLACK_S


def test_a_request_that_is_longer_than_its_time_says_so(limited: Started) -> None:
    node = limited({"onADD": {"sleep": 60}}, requestSeconds=3, rollbackSeconds=1)
    reply = node.add(node.pod(""))
    ran_out(reply, 11, named="deadlines.requestSeconds", after_s=3)
    assert node.records() == []


def test_a_plugin_whose_status_never_ends_says_so(limited: Started) -> None:
    node = limited({"onSTATUS": {"sleep": 60}}, statusSeconds=1)
    (node.root / "default.conflist").write_text(json.dumps(node.default | {"cniVersion": "1.1.0"}))
    reply = node.call("STATUS", None, stdin=node.stdin(None, "1.1.0"))
    ran_out(reply, 50, named="deadlines.statusSeconds", after_s=1)


@pytest.mark.parametrize(
    ("deadlines", "named"),
    [
        ({"factsSeconds": 1}, "deadlines.factsSeconds"),
        ({"liveSeconds": 1}, "deadlines.liveSeconds"),
    ],
    ids=["facts", "live"],
)
def test_facts_that_nobody_tells_say_so(
    limited: Started, deadlines: dict[str, float], named: str
) -> None:
    """The API server is there, and silent where the pod is asked for."""
    with ApiServer() as server:
        node = limited(**deadlines)
        (node.root / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
        kubernetes = {"kubeconfig": str(node.root / "kubeconfig"), "nodeName": "here"}
        node.daemon_keys |= {"manifests": None, "kubernetes": kubernetes}
        node.restart()
        server.wait_for(lambda: len(server.open_watches()) == 2)
        server.inject(Silence(), on(verb="get", resource="pods"))
        reply = node.add(node.pod(None, uid="u"))
        ran_out(reply, 11, named=named, after_s=2)
        assert node.noop_calls() == []


def test_a_daemon_that_is_told_to_stop_waits_no_longer_than_it_may(limited: Started) -> None:
    """The shim notices, kills the plugin, and the runtime tries again."""
    node = limited({"onADD": {"sleep": 60}}, drainSeconds=1)
    adding = begin(node, node.pod(""))
    node.wait_for_noop_calls(1)
    began = time.monotonic()
    node.signal_daemon(signal.SIGTERM)
    reply = end(adding)
    assert (reply.exit_code, reply.code) == (1, 11)
    assert node.daemon is not None
    assert node.daemon.wait(30) == 0
    assert time.monotonic() - began < 1 + SLACK_S
