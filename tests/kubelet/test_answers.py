"""What is learnt from a kubelet that answers."""

from __future__ import annotations

import asyncio

import pytest

from metaplugin.attachments.devices import Allocation, ClaimedDevice
from metaplugin.attachments.runtime_conf import PodReference
from tests.kubelet.asking import NIC, Asking, device, pod
from tests.kubelet.podresources import Claimed, Device, FakeKubelet, GetMode, Pod, Resources


def test_devices_are_learnt_with_resource_container_and_numa_nodes(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    given: dict[str, Resources] = {
        "side": {NIC: ["0000:01:00.2"]},
        "app": {NIC: [Device(id="0000:01:00.1", numa=(1, 0))], "vendor.example/gpu": ["g"]},
    }
    kubelet.admit("default", "p", Pod(uid="u", containers=given))
    expected = (
        device("0000:01:00.2", container="side"),
        device("g", resource="vendor.example/gpu"),
        device("0000:01:00.1", 0, 1),
    )
    assert asking.allocation(pod()) == Allocation(
        devices=expected, source=f"Get at {kubelet.socket}"
    )


def test_an_allocation_reads_the_same_each_time(kubelet: FakeKubelet, asking: Asking) -> None:
    """Kubelets list a container's devices in a random order."""
    devices = [Device(id=f"vf{n}", numa=(0, 1)) for n in (12, 1, 9, 10)]
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: devices, "a/a": ["x"]}}))
    kubelet.limited = False
    expected = ["x", "vf1", "vf9", "vf10", "vf12"]
    for _ in range(20):
        assert [found.id for found in asking.allocation(pod()).devices] == expected


def test_a_pod_without_devices_has_none(kubelet: FakeKubelet, asking: Asking) -> None:
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {}}))
    assert asking.allocation(pod()) == Allocation(source=f"Get at {kubelet.socket}")


@pytest.mark.parametrize("get", ["disabled", "unimplemented"])
def test_a_kubelet_without_get_is_asked_for_a_list_until_it_restarts(
    kubelet: FakeKubelet, asking: Asking, get: GetMode
) -> None:
    kubelet.get = get
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
    for _ in range(3):
        found = asking.allocation(pod())
        assert found == Allocation(devices=(device("a"),), source=f"List at {kubelet.socket}")
    assert [method for method in kubelet.asked if method == "List"] == ["List"] * 3
    assert kubelet.asked.count("Get") == (1 if get == "disabled" else 0)  # refused without a count
    kubelet.stop()
    kubelet.get = "served"
    kubelet.start()
    assert asking.allocation(pod()).source == f"Get at {kubelet.socket}"


def test_a_pod_that_get_does_not_know_switches_get_off_for_nobody(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
    asking.refusal(pod("unknown", "other"))
    assert asking.allocation(pod()).source == f"Get at {kubelet.socket}"


@pytest.mark.parametrize("get", ["served", "disabled"])
def test_thirty_pods_at_once_get_their_own_devices_in_spite_of_the_rate_limit(
    kubelet: FakeKubelet, asking: Asking, get: GetMode
) -> None:
    kubelet.get = get
    pods = [pod(f"p{n}", f"u{n}") for n in range(30)]
    for n, each in enumerate(pods):
        given = {"app": {NIC: [f"vf{2 * n}", f"vf{2 * n + 1}"]}}
        kubelet.admit("default", each.name, Pod(uid=each.uid, containers=given))
    found = asking.allocations(*pods)
    expected = [(device(f"vf{2 * n}"), device(f"vf{2 * n + 1}")) for n in range(30)]
    assert [each.devices for each in found if isinstance(each, Allocation)] == expected
    assert kubelet.asked == ["List"]


def test_a_kubelet_that_limits_calls_is_asked_again(kubelet: FakeKubelet, asking: Asking) -> None:
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
    kubelet.exhaust()
    assert asking.allocation(pod()).source == f"Get at {kubelet.socket}"
    assert len(kubelet.asked) > 1


def test_an_answer_to_an_earlier_question_serves_nobody(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    """A kubelet lists pods that have not been given their devices yet."""
    kubelet.get, kubelet.delay_s = "unimplemented", 0.3
    kubelet.admit("default", "first", Pod(uid="u1"))
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {}}))

    async def scenario() -> Allocation:
        first = asyncio.create_task(asking.connection.allocation(pod("first", "u1")))
        await asyncio.to_thread(kubelet.wait_for_calls, 1)
        kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
        second = await asking.connection.allocation(pod())
        await first
        return second

    assert asking.run(scenario()).devices == (device("a"),)


def test_who_gives_up_takes_the_answer_from_nobody(kubelet: FakeKubelet, asking: Asking) -> None:
    kubelet.delay_s = 0.3
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))

    async def scenario() -> Allocation:
        first, second = (asyncio.create_task(asking.connection.allocation(pod())) for _ in "ab")
        await asyncio.to_thread(kubelet.wait_for_calls, 1)
        first.cancel()
        return await second

    assert asking.run(scenario()).devices == (device("a"),)
    assert kubelet.asked == ["Get"]


def test_the_event_loop_goes_on_while_the_kubelet_is_asked(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    kubelet.delay_s = 0.3
    kubelet.admit("default", "p", Pod(uid="u"))

    async def scenario() -> float:
        """Return the longest time that the loop was held up."""
        question = asyncio.create_task(asking.connection.allocation(pod()))
        loop, longest = asyncio.get_running_loop(), 0.0
        while not question.done():
            before = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - before)
        return longest

    assert asking.run(scenario()) < 0.2


def test_an_answer_of_ten_megabytes_is_read(kubelet: FakeKubelet, asking: Asking) -> None:
    kubelet.get, kubelet.padding = "unimplemented", 40_000
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
    assert asking.allocation(pod()).devices == (device("a"),)
    assert kubelet.longest_answer > 10 << 20


def claimed(name: str, *cdi: str, claim: str = "c", driver: str = "d.example") -> ClaimedDevice:
    return ClaimedDevice(
        claim=claim, container="app", driver=driver, pool="node", device=name, cdi=cdi
    )


def as_given(each: ClaimedDevice) -> Claimed:
    return Claimed(
        claim=each.claim, driver=each.driver, pool=each.pool, device=each.device, cdi=each.cdi
    )


def test_claimed_devices_are_learnt_each_with_its_own_cdi_names(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    expected = (
        claimed("d0", "v/c=0", "v/c=0-extra"),
        claimed("d1", "v/c=1"),
        claimed("d2"),
        claimed("x", "w/c=x", claim="other", driver="e.example"),
    )
    given = {"app": [as_given(each) for each in expected]}
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}, claims=given))
    found = asking.allocation(pod())
    assert (expected, (device("a"),)) == (found.claimed, found.devices)


def test_each_cdi_device_is_one_where_the_kubelet_names_no_devices(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    """Kubernetes before 1.31."""
    given = Claimed(claim="c", driver="", pool="", device="", cdi=("v/c=0", "v/c=1"))
    kubelet.admit("default", "p", Pod(uid="u", claims={"app": [given]}))
    expected = tuple(claimed("", f"v/c={n}", driver="").cdi for n in range(2))
    assert tuple(each.cdi for each in asking.allocation(pod()).claimed) == expected


def test_a_static_pod_is_known_by_its_configurations_hash(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    """The kubelet's own UID for it, which it passes to the runtime and writes to the checkpoint."""
    digest = "5f2c1b7a9d3e4f60718293a4b5c6d7e8"
    kubelet.admit("default", "p-node", Pod(uid=digest, containers={"app": {NIC: ["a"]}}))
    assert asking.allocation(pod("p-node", digest)).devices == (device("a"),)
    kubelet.stop()
    assert asking.allocation(pod("p-node", digest)).devices == (device("a"),)


def test_another_pod_of_that_name_does_not_give_its_devices(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    """A StatefulSet's pod is made again while the runtime still attaches the one before: the
    kubelet knows the new one by the name."""
    kubelet.admit("default", "p", Pod(uid="old", containers={"app": {NIC: ["a"]}}))
    kubelet.admit("default", "p", Pod(uid="new", containers={"app": {NIC: ["b"]}}))
    refusal = asking.refusal(pod(uid="old"))
    assert f"{NIC} b" in refusal
    assert "UID old" in refusal
    assert asking.allocation(pod(uid="new")).devices == (device("b"),)


def test_a_kubelet_that_has_not_read_its_checkpoint_yet_is_not_believed(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    """Seen with 1.36.3: for seconds after its start it lists pods without their devices."""
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
    kubelet.forgetful = True
    assert f"has no {NIC} a for container app, which is in" in asking.refusal(pod())
    kubelet.forgetful = False
    assert asking.allocation(pod()).devices == (device("a"),)


def test_devices_of_ordinary_init_containers_are_the_checkpoints_alone(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    given: dict[str, Resources] = {"app": {NIC: ["a"]}}
    init: dict[str, Resources] = {"setup": {NIC: ["a", "b"]}}
    kubelet.admit("default", "p", Pod(uid="u", containers=given, init=init))
    assert asking.allocation(pod()).devices == (device("a"),)
    kubelet.stop()
    found = asking.allocation(pod()).devices
    assert found == (device("a"), device("a", container="setup"), device("b", container="setup"))


def test_without_uid_or_checkpoint_the_kubelets_word_is_enough(
    kubelet: FakeKubelet, asking: Asking
) -> None:
    kubelet.admit("default", "p", Pod(uid="u", containers={"app": {NIC: ["a"]}}))
    anonymous = PodReference(namespace="default", name="p")
    assert asking.allocation(anonymous).devices == (device("a"),)
    kubelet.checkpoint.unlink()
    assert asking.allocation(pod(uid="other")).devices == (device("a"),)
