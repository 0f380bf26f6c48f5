"""The network-status annotation: one PATCH where it isn't what a record says, none elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metaplugin.attachments.record import HOT_PLUG_NETWORK
from metaplugin.npwg.status import STATUS_ANNOTATION
from tests.apiserver.faults import Answer, Cut, Fault, Garbage, Reset, Silence, Slow, on
from tests.apiserver.server import ApiServer
from tests.k8s.conftest import Sides
from tests.k8s.side import Side, pod, record, status_of

PATCHES = on(verb="patch", resource="pods/status")
MIRROR = "kubernetes.io/config.mirror"


def there(server: ApiServer, side: Side, name: str = "a", uid: str = "u") -> None:
    """Make a pod that the side knows."""
    server.put(pod(name, uid=uid))
    side.memory.wait_for(lambda: side.memory.knows_pod(name, uid))


def patches(server: ApiServer) -> int:
    return server.count("patch", "pods/status")


def flush(server: ApiServer, side: Side, name: str = "flush") -> None:
    """Wait until the side has seen all that has happened: what it would write, it has begun to."""
    there(server, side, name, f"uid-{server.version}")


# --- all well ---------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [True, False], ids=["with a network", "default only"])
def test_a_status_is_one_patch_of_the_annotation_alone(
    server: ApiServer, side: Side, extra: bool
) -> None:
    """MULTUS-23, MULTUS-35: by way of the status subresource; other annotations are kept."""
    server.put(pod("a", uid="u", other="kept"))
    side.memory.wait_for(lambda: side.memory.knows_pod("a", "u"))
    wanted = record("a", "u", extra=extra)
    side.publish(wanted)
    server.wait_for(lambda: status_of(server, "a") == wanted.status)
    flush(server, side)
    (patch,) = [r for r in server.requests if r.method == "PATCH"]
    assert patch.path == "/api/v1/namespaces/default/pods/a/status"
    assert patch.body == {
        "metadata": {"uid": "u", "annotations": {STATUS_ANNOTATION: wanted.status}}
    }
    assert server.get("Pod", "default", "a")["metadata"]["annotations"]["other"] == "kept"


def test_publish_returns_when_the_status_of_a_pod_with_networks_is_written(
    server: ApiServer, side: Side
) -> None:
    """Who waits for the pod to be ready finds it."""
    there(server, side)
    server.inject(Slow(0.3), PATCHES)
    side.publish(record("a", "u"))
    assert status_of(server, "a") == record("a", "u").status


def test_a_status_that_is_there_is_not_written(server: ApiServer, side: Side) -> None:
    wanted = record("a", "u")
    server.put(pod("a", uid="u", **{STATUS_ANNOTATION: wanted.status}))
    side.memory.wait_for(lambda: side.memory.knows_pod("a", "u"))
    side.publish(wanted)
    flush(server, side)
    assert patches(server) == 0


def test_nothing_is_written_when_a_record_ends(server: ApiServer, side: Side) -> None:
    """MULTUS-35: the annotation goes with the pod."""
    there(server, side)
    side.publish(record("a", "u"))
    side.run(side.connection.status.withdraw(record("a", "u")))
    server.put(pod("a", uid="u"))  # somebody takes the annotation off
    flush(server, side)
    assert patches(server) == 1
    assert status_of(server, "a") is None


def test_a_pod_without_kubernetes_names_has_no_status(server: ApiServer, side: Side) -> None:
    side.publish(record("a", "u", pod=None))
    side.run(side.connection.status.withdraw(record("a", "u", pod=None)))
    assert patches(server) == 0


# --- level-triggered ---------------------------------------------------------------------------


def test_an_overwritten_status_is_written_again(server: ApiServer, side: Side) -> None:
    """Also when the watch tells of it before our own write's answer is here."""
    there(server, side)
    side.publish(record("a", "u"))
    for number in range(30):
        server.put(pod("a", uid="u", **{STATUS_ANNOTATION: f"someone else's {number}"}))
        server.wait_for(lambda: status_of(server, "a") == record("a", "u").status)
    assert patches(server) == 31


def test_a_status_is_somebody_elses_from_a_record_without_one_on(
    server: ApiServer, side: Side
) -> None:
    """MULTUS-36: the dynamic networks controller writes the annotation of a pod that it plugs."""
    there(server, side)
    side.publish(record("a", "u"))
    server.wait_for(lambda: status_of(server, "a") == record("a", "u").status)
    side.publish(replace(record("a", "u"), status=""))
    server.put(pod("a", uid="u", **{STATUS_ANNOTATION: "the controller's"}))
    flush(server, side)
    assert patches(server) == 1
    assert status_of(server, "a") == "the controller's"


def test_a_plugged_interface_and_an_imported_pod_have_no_status_of_ours(
    server: ApiServer, connect: Sides
) -> None:
    """MULTUS-19, MULTUS-36: after a restart neither."""
    server.put(pod("a", uid="u", **{STATUS_ANNOTATION: "Multus's"}))
    imported = replace(record("a", "u"), status="")
    plugged = replace(record("a", "u"), network=HOT_PLUG_NETWORK, created=imported.created + 1)
    side = connect(records=[imported, plugged]).synced()
    flush(server, side)
    side.publish(plugged)
    side.run(side.connection.status.withdraw(plugged))
    flush(server, side)
    assert patches(server) == 0


def test_other_changes_of_the_pod_cost_nothing(server: ApiServer, side: Side) -> None:
    there(server, side)
    side.publish(record("a", "u"))
    for number in range(20):
        changed = server.get("Pod", "default", "a")
        changed["status"] = {"phase": f"phase {number}"}
        server.put(changed)
    flush(server, side)
    assert patches(server) == 1


def test_a_restarted_daemon_writes_what_is_missing_and_nothing_else(
    server: ApiServer, connect: Sides
) -> None:
    names = [f"p{number}" for number in range(10)]
    records = [record(name, f"u-{name}") for name in names]
    for position, name in enumerate(names):
        have = {STATUS_ANNOTATION: records[position].status} if position % 2 else {}
        server.put(pod(name, uid=f"u-{name}", **have))
    unfinished = record("p0", "u-p0", complete=False, status="", created=2.0)
    gone = record("gone", "u-gone")
    side = connect(records=[*records, unfinished, gone]).synced()
    wanted = [one.status for one in records]
    server.wait_for(lambda: [status_of(server, name) for name in names] == wanted)
    server.wait_for(lambda: patches(server) == 6)
    flush(server, side)
    assert patches(server) == 5 + 1  # that pod may have come after the list: it is tried, once


def test_the_newer_sandbox_of_a_pod_wins(server: ApiServer, side: Side) -> None:
    there(server, side)
    old = record("a", "u", status="old", generation="1")
    new = record("a", "u", status="new", generation="2")
    side.publish(old)
    side.publish(new)
    assert status_of(server, "a") == "new"
    side.run(side.connection.status.withdraw(old))
    server.put(pod("a", uid="u", **{STATUS_ANNOTATION: "old"}))
    server.wait_for(lambda: status_of(server, "a") == "new")
    assert patches(server) == 3


def test_the_newer_sandbox_wins_after_a_restart_too(server: ApiServer, connect: Sides) -> None:
    server.put(pod("a", uid="u"))
    old = record("a", "u", status="old", generation="1", created=1.0)
    new = record("a", "u", status="new", generation="2", created=2.0)
    side = connect(records=[new, old]).synced()
    server.wait_for(lambda: status_of(server, "a") == "new")
    flush(server, side)
    assert patches(server) == 1


def test_a_status_that_changes_while_it_is_written_is_written_again(
    server: ApiServer, side: Side
) -> None:
    there(server, side)
    server.inject(Slow(0.5), PATCHES, times=1)
    first = side.begin(
        side.connection.status.publish(record("a", "u", status="old", generation="1"))
    )
    server.wait_for(lambda: patches(server) == 1)
    side.publish(record("a", "u", status="new", generation="2"))
    first()
    server.wait_for(lambda: status_of(server, "a") == "new")
    assert patches(server) == 2


# --- another pod of that name ------------------------------------------------------------------


@pytest.mark.parametrize("code", [422, 409])
def test_a_status_is_never_written_to_another_pod_of_that_name(
    server: ApiServer, side: Side, code: int
) -> None:
    """The UID is a precondition: the watch may lag behind a pod that was made again."""
    server.api.uid_mismatch = code  # type: ignore[assignment] # one of the two
    there(server, side, uid="old")
    server.wait_for(lambda: len(server.open_watches()) == 2)
    server.disturb_watches(Silence(), resource="pods")
    server.put(pod("a", uid="new"))
    side.publish(record("a", "old"))
    assert patches(server) == 1
    server.cut_watches(resource="pods")
    side.memory.wait_for(lambda: side.memory.knows_pod("a", "new"))
    flush(server, side)
    assert patches(server) == 1
    assert status_of(server, "a") is None


def test_what_the_watch_tells_while_a_write_is_refused_is_not_missed(
    server: ApiServer, side: Side
) -> None:
    """A static pod's mirror is made again while we write to the one before."""
    mirror = {MIRROR: "hash"}
    server.put(pod("a", uid="m1", **mirror))
    side.memory.wait_for(lambda: side.memory.knows_pod("a", "m1"))
    server.inject(Slow(0.5), PATCHES, times=1)
    writing = side.begin(side.connection.status.publish(record("a", "hash")))
    server.wait_for(lambda: patches(server) == 1)
    server.put(pod("a", uid="m2", **mirror))
    side.memory.wait_for(lambda: side.memory.knows_pod("a", "m2"))
    writing()
    server.wait_for(lambda: status_of(server, "a") == record("a", "hash").status)


def test_a_static_pods_status_is_on_its_mirror_once_there_is_one(
    server: ApiServer, side: Side
) -> None:
    """DESIGN 5: the runtime knows the configuration's hash, the API server the mirror's UID."""
    wanted = record("a", "hash")
    side.publish(wanted)
    server.put(pod("a", uid="mirror-uid", **{MIRROR: "hash"}))
    server.wait_for(lambda: status_of(server, "a") == wanted.status)
    assert patches(server) == 2


def test_a_pod_that_is_gone_is_not_written_to(server: ApiServer, side: Side) -> None:
    side.publish(record("a", "u"))
    assert patches(server) == 1
    flush(server, side)
    assert patches(server) == 1


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [Answer(429), Answer(500), Answer(503), Answer(403), Reset(), Garbage()],
    ids=repr,
)
def test_a_write_that_fails_is_tried_until_it_succeeds(
    server: ApiServer, side: Side, fault: Fault
) -> None:
    """MULTUS-23, MULTUS-32."""
    there(server, side)
    server.inject(fault, PATCHES, times=2)
    side.publish(record("a", "u"))
    server.wait_for(lambda: status_of(server, "a") == record("a", "u").status)


def test_a_lost_answer_costs_no_second_write_once_the_watch_has_told(
    server: ApiServer, side: Side
) -> None:
    there(server, side)
    server.inject(Cut(after=3), PATCHES, times=1)
    side.publish(record("a", "u"))
    server.wait_for(lambda: status_of(server, "a") == record("a", "u").status)
    flush(server, side)
    assert patches(server) <= 2


def test_retry_after_is_honoured(server: ApiServer, side: Side) -> None:
    there(server, side)
    server.inject(Answer(429, retry_after=1), PATCHES, times=1)
    side.publish(record("a", "u"))
    server.wait_for(lambda: status_of(server, "a") is not None)
    first, second = [request.at for request in server.requests if PATCHES(request)]
    assert second - first >= 1


def test_an_add_waits_for_no_server_that_is_away(
    server: ApiServer, side: Side, impatient: None
) -> None:
    """MULTUS-30: and the status is written on its return."""
    there(server, side)
    server.stop()
    side.run(side.connection._calls.gone.wait())
    wanted = [record(f"p{number}", f"u{number}") for number in range(20)]
    for one in wanted:
        side.publish(one)
    for number in range(20):
        server.put(pod(f"p{number}", uid=f"u{number}"))
    server.start()
    names = [f"p{number}" for number in range(20)]
    statuses = [one.status for one in wanted]
    server.wait_for(lambda: [status_of(server, name) for name in names] == statuses)


def test_an_add_waits_a_bounded_time_for_a_slow_server(
    server: ApiServer, side: Side, impatient: None
) -> None:
    """MULTUS-31: the write goes on."""
    there(server, side)
    held = server.inject(Silence(), PATCHES)
    side.publish(record("a", "u"))
    assert status_of(server, "a") is None
    held.clear()
    server.stop()
    server.start()
    server.wait_for(lambda: status_of(server, "a") == record("a", "u").status)


def test_hanging_writes_keep_nobody_from_asking(
    server: ApiServer, side: Side, impatient: None
) -> None:
    """A watch that lags, writes that hang: a pod that only a live look-up finds still attaches."""
    server.inject(Silence(), PATCHES)
    for number in range(20):
        there(server, side, f"p{number}")
        side.publish(record(f"p{number}", "u"))
    server.disturb_watches(Silence())
    server.put(pod("new", uid="u"))
    found = side.pod("new", "u")
    assert found is not None
    assert found.uid == "u"


def test_a_status_is_brought_to_the_pod_by_a_process_that_does_not_watch(
    server: ApiServer, connect: Sides
) -> None:
    """What runs for one request alone, as `metaplugin standalone` does."""
    server.put(pod("a", uid="u"))
    side = connect(following=False)
    side.publish(record("a", "u"))
    assert status_of(server, "a") == record("a", "u").status
    assert server.tally() == {"patch pods/status": 1}


def test_an_unknown_record_is_withdrawn_without_a_word(server: ApiServer, side: Side) -> None:
    there(server, side)
    kept = record("a", "u")
    side.publish(kept)
    side.run(side.connection.status.withdraw(replace(kept, generation="another")))
    server.put(pod("a", uid="u"))
    server.wait_for(lambda: status_of(server, "a") == kept.status)
