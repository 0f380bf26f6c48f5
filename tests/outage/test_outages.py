"""No outage of the API server keeps a pod from starting whose facts are known, or from stopping.

Every test is in the middle of an outage, of each kind; the last one ends it.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.outage.scene import NETWORK, RETURN_S, Scene, interfaces, wait_until
from tests.outage.sick import Sick
from tests.system.node import Pod, Reply

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

FACTOR, ALLOWANCE_S = 1.1, 0.05  # an ADD takes some 0.1 s
LEAST, MOST = 2, 20  # rounds: a busy machine disturbs some, a wait that we cause is in each
BREAKER_S = 3  # an unknown pod is told so within it


def assert_as_fast(
    sick: Scene, well: Scene, pods: tuple[Pod, Pod], prepare: Callable[[], object] = lambda: None
) -> None:
    """Attach a pod on either node in turn; `prepare` comes before each time in the outage. The best
    time in the outage is that of a well server."""
    in_outage, normally = [], []
    for round_number in range(1, MOST + 1):
        prepare()
        in_outage.append(time_of_add(sick, pods[0]))
        normally.append(time_of_add(well, pods[1]))
        limit = min(normally) * FACTOR + ALLOWANCE_S
        if round_number >= LEAST and min(in_outage) <= limit:
            return
    raise AssertionError(f"{in_outage} in the outage, {normally} without")


def time_of_add(scene: Scene, pod: Pod) -> float:
    sandbox = scene.another_sandbox(pod)
    took = added(scene, sandbox).took
    assert scene.node.delete(sandbox).exit_code == 0
    return took


def added(scene: Scene, pod: Pod, links: Sequence[str] = ("eth0", "net1")) -> Reply:
    reply = scene.node.add(pod)
    assert reply.exit_code == 0, reply.stdout
    assert set(links) == scene.node.pod_links(pod)
    return reply


def test_the_first_pod_of_an_outage_waits_for_one_answer_at_most(sick: Sick) -> None:
    """Nobody knows yet: the network-status is waited for, 2 s."""
    assert sick.first.exit_code == 0
    assert sick.first.took < 2 + 1


@pytest.mark.parametrize("pod_of", [Scene.annotated, Scene.known])
def test_a_pod_whose_facts_are_known_attaches_as_fast_as_ever(
    sick: Sick, well: Scene, pod_of: Callable[[Scene], Pod]
) -> None:
    """New, its annotations from the runtime; or seen by the watch before the outage."""
    assert_as_fast(sick.scene, well, (pod_of(sick.scene), pod_of(well)))


@pytest.mark.parametrize("pod_of", [Scene.annotated, Scene.known])
def test_the_first_pod_after_a_restart_in_the_middle_waits_for_nothing(
    sick: Sick, well: Scene, pod_of: Callable[[Scene], Pod]
) -> None:
    """A daemon that was killed knows from its disk what it knew."""
    pods = (pod_of(sick.scene), pod_of(well))
    assert_as_fast(sick.scene, well, pods, sick.scene.node.restart)


def test_a_node_that_starts_cold_has_what_its_disk_has(sick: Sick, well: Scene) -> None:
    node = sick.scene.node

    def boot() -> None:
        assert node.stop() == 0
        shutil.rmtree(node.root / "run")
        node.start()

    assert_as_fast(sick.scene, well, (sick.scene.known(), well.known()), boot)
    assert node.call("STATUS", None, stdin=node.stdin(None, "1.1.0")).exit_code == 0
    assert node.call("CHECK", sick.before[0]).exit_code == 0


def test_a_pod_without_annotation_gets_the_default_network_alone(sick: Sick) -> None:
    added(sick.scene, sick.scene.annotated(""), ["eth0"])


def test_an_unknown_pod_is_told_to_try_again_within_3_seconds(sick: Sick) -> None:
    """And nothing is made up for it, nor left of it. A slow server is asked instead."""
    if sick.outage.name == "slow":
        elsewhere = sick.scene.create(node="another-node")
        replies = [sick.scene.node.add(elsewhere)]
        if replies[0].exit_code:
            assert replies[0].code == 11
            replies.append(sick.scene.node.add(elsewhere))
        assert replies[-1].exit_code == 0, replies[-1].stdout
        assert sick.scene.node.pod_links(elsewhere) == {"eth0", "net1"}
        return
    records = sick.scene.node.records()
    reply = sick.scene.node.add(sick.scene.unknown())
    assert (reply.exit_code, reply.code) == (1, 11)
    assert "never-heard-of" in reply.msg
    assert reply.took < BREAKER_S
    assert sick.scene.node.records() == records


def test_a_del_succeeds(sick: Sick) -> None:
    """Of what was attached before, in the outage, twice, and of what never was."""
    node, since = sick.scene.node, sick.scene.known()
    leases = node.leases()
    added(sick.scene, since)
    for pod in (sick.before.pop(), since):
        for _ in range(2):
            reply = node.delete(pod)
            assert reply.exit_code == 0, reply.stdout
            assert reply.took < BREAKER_S
        assert node.pod_links(pod) == set()
        assert f"{pod.container_id}@eth0" not in node.records()
    assert node.delete(sick.scene.unknown()).exit_code == 0
    assert len(node.leases()) == len(leases) - 2


def test_check_and_status_succeed(sick: Sick) -> None:
    node, pod = sick.scene.node, sick.scene.known()
    added(sick.scene, pod)
    for reply in (
        node.call("CHECK", pod),
        node.call("STATUS", None, stdin=node.stdin(None, "1.1.0")),
    ):
        assert reply.exit_code == 0, reply.stdout
        assert reply.took < BREAKER_S


@pytest.fixture
def thin(sick: Sick) -> Iterator[Sick]:
    """The node without any daemon: the shim has a fallback."""
    node = sick.scene.node
    assert node.stop() == 0
    node.configure_shim(
        fallback=Path(sys.executable).with_name("metaplugin"),
        fallback_config=node.root / "daemon.yaml",
        add_wait_ms=0,
        status_wait_ms=0,
    )
    yield sick
    node.configure_shim()
    node.start()


def test_without_any_daemon_the_fallback_has_what_the_disk_has(thin: Sick) -> None:
    scene, node = thin.scene, thin.scene.node
    pods = [scene.known(), scene.annotated()]
    with ThreadPoolExecutor() as threads:
        status = threads.submit(node.call, "STATUS", None, stdin=node.stdin(None, "1.1.0"))
        adding = [threads.submit(added, scene, pod) for pod in pods]
        assert status.result().exit_code == 0
        assert [add.result().exit_code for add in adding] == [0, 0]
    assert node.call("CHECK", pods[0]).exit_code == 0
    assert node.delete(pods[0]).exit_code == 0
    assert node.pod_links(pods[0]) == set()


def test_every_status_is_on_its_pod_soon_after_the_return(sick: Sick) -> None:
    """Within 5 s: of pods attached before and after a restart in the middle of the outage."""
    scene = sick.scene
    pods = [scene.known(), scene.annotated()]
    for pod in pods:
        added(scene, pod)
    scene.node.restart()
    later = [scene.known(), scene.annotated(), scene.annotated("")]
    for pod in later:
        assert scene.node.add(pod).exit_code == 0
    time.sleep(2)  # so long that pauses between tries have grown
    sick.end()
    returned = time.monotonic()
    wanted = {pod.name: ["eth0", "net1"] for pod in (*pods, *later)}
    wanted[later[-1].name] = ["eth0"]
    while (found := {name: interfaces(scene.status(name)) for name in wanted}) != wanted:
        assert time.monotonic() - returned < RETURN_S, found
        time.sleep(0.05)
    sys.stdout.write(f"all statuses after {time.monotonic() - returned:.2f} s\n")
    assert {entry["name"] for entry in scene.status(pods[0].name)} == {
        f"kube-system/{scene.name}-default",
        f"{scene.name}/{NETWORK}",
    }
    wait_until(lambda: len(scene.events(later[0].name)) == 2)
