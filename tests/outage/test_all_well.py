"""What the API server is asked while all is well, and how a silent loss of it is noticed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.controlplane import objects
from tests.controlplane.cluster import Cluster
from tests.controlplane.proxy import FaultProxy
from tests.outage.scene import AWAY, BACK, NETWORK, RETURN_S, Scene, recording_node, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture
def scene(cluster: Cluster, proxy: FaultProxy) -> Iterator[Scene]:
    """A node of recording plugins, its server behind the proxy."""
    scene = Scene(cluster, recording_node(cluster, proxy.url, "counted"), "counted")
    scene.start(spare=6)
    yield scene
    sys.stdout.write(scene.node.log.read_text())
    scene.close()
    cluster.admin.delete(objects.pods("counted"))


def test_an_add_asks_nothing_before_its_first_delegate_and_writes_once(
    scene: Scene, proxy: FaultProxy
) -> None:
    """And a DEL asks nothing at all; the account of deploy/base/rbac.yaml may do all of it."""
    for pod in (scene.annotated(), scene.known(), scene.annotated("")):
        proxy.forget()
        started, offset = time.monotonic(), time.time() - time.monotonic()
        calls = len(scene.node.noop_calls())
        assert scene.node.add(pod).exit_code == 0
        first = scene.node.noop_calls()[calls]["time"] - offset
        assert [r for r in proxy.requests if started <= r.at <= first] == []
        wait_until(lambda: proxy.count("patch"))  # the ADD doesn't wait for the default alone
        events = 1 if pod.annotation == "" else 2
        wait_until(partial(_have_come, proxy, events))
        assert scene.node.delete(pod).exit_code == 0
    another = scene.known()
    assert scene.node.add(another).exit_code == 0
    wait_until(partial(_have_come, proxy, 3))
    verbs = [(r.verb, r.resource, r.name) for r in proxy.requests if r.verb != "create"]
    assert verbs == [
        ("patch", "pods/status", pod.name),
        ("patch", "pods/status", another.name),
    ]
    assert not scene.logged("403: ")  # container ids have digits, too


def _have_come(proxy: FaultProxy, events: int) -> bool:
    return proxy.count("create", "events") == events


def test_a_silent_loss_is_noticed_without_any_request(scene: Scene, proxy: FaultProxy) -> None:
    """The kernel asks an idle watch's peer; after the return both watches go on."""
    proxy.drop()
    wait_until(lambda: scene.logged(AWAY))
    proxy.heal()
    assert wait_until(lambda: scene.logged(BACK), RETURN_S) < RETURN_S
    changed = {"spec": {"config": json.dumps({"type": "noop", "cniVersion": "1.0.0"})}}
    path = f"{objects.net_attach_defs('counted')}/{NETWORK}"
    pod = scene.create()
    wait_until(lambda: scene.remembers(pod))
    before = scene.admin.patch(path, changed)["metadata"]["resourceVersion"]
    wait_until(lambda: scene.remembers(pod, version=before))
