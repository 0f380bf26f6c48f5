"""The control plane that the tests stand on does what they take for granted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane import objects
from tests.controlplane.client import ApiError, Client
from tests.controlplane.cluster import Cluster, running_cluster

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster to break."""
    with running_cluster(tmp_path_factory.mktemp("own-cluster")) as started:
        yield started


@pytest.fixture
def pod(cluster: Cluster) -> Iterator[str]:
    """The path of a pod on node-1."""
    cluster.admin.create(objects.pod("bound", "storage"))
    yield f"{objects.pods()}/bound"
    cluster.admin.delete(f"{objects.pods()}/bound")


def test_a_pod_is_bound_without_a_scheduler_and_a_watch_sees_it(cluster: Cluster, pod: str) -> None:
    selected = "spec.nodeName=node-1"
    listed = cluster.admin.get(f"/api/v1/pods?fieldSelector={selected}")
    [bound] = listed["items"]
    assert bound["metadata"]["annotations"][objects.NETWORKS] == "storage"
    version = listed["metadata"]["resourceVersion"]
    events = cluster.admin.watch("/api/v1/pods", fieldSelector=selected, resourceVersion=version)
    cluster.admin.patch(pod, {"metadata": {"labels": {"seen": "yes"}}})
    event = next(events)
    assert (event["type"], event["object"]["metadata"]["labels"]["seen"]) == ("MODIFIED", "yes")
    events.close()


def test_many_objects_are_made_at_once_and_deleted_as_a_collection(cluster: Cluster) -> None:
    cluster.admin.apply(objects.namespace("crowd"))
    wanted = [
        objects.net_attach_def(f"net-{number}", {"type": "bridge"}, in_namespace="crowd")
        for number in range(200)
    ]
    cluster.admin.create_all(wanted)
    path = objects.net_attach_defs("crowd")
    assert len(cluster.admin.get(path)["items"]) == 200
    cluster.admin.delete(path)
    assert cluster.admin.get(path)["items"] == []


def test_a_deleted_pod_is_gone_at_once(cluster: Cluster) -> None:
    cluster.admin.create(objects.pod("short-lived"))
    cluster.admin.delete(f"{objects.pods()}/short-lived")
    with pytest.raises(ApiError) as caught:
        cluster.admin.get(f"{objects.pods()}/short-lived")
    assert caught.value.status == 404


def test_a_namespace_is_usable_as_soon_as_it_is_made(cluster: Cluster) -> None:
    cluster.admin.apply(objects.namespace("tenant"))
    created = cluster.admin.create(objects.pod("first", in_namespace="tenant"))
    assert created["metadata"]["namespace"] == "tenant"
    cluster.admin.delete(f"{objects.pods('tenant')}/first")


def test_who_has_no_token_of_the_cluster_is_refused(cluster: Cluster) -> None:
    assert cluster.client("somebody's").raw("GET", "/api/v1/pods")[0] == 401


def test_objects_survive_a_kill_and_a_stop_of_the_server(own_cluster: Cluster) -> None:
    own_cluster.admin.create(objects.pod("survivor"))
    for end in (own_cluster.kill, own_cluster.stop):
        end()
        with pytest.raises(ConnectionRefusedError):
            own_cluster.admin.get("/readyz")
        own_cluster.start()
        assert own_cluster.admin.get(f"{objects.pods()}/survivor")["metadata"]["name"] == "survivor"


def test_a_token_outlives_a_restart_of_the_server(own_cluster: Cluster) -> None:
    client = own_cluster.client(own_cluster.token())
    own_cluster.kill()
    own_cluster.start()
    assert "List" in client.get("/api/v1/pods")["kind"]


def test_a_paused_server_accepts_and_does_not_answer(own_cluster: Cluster) -> None:
    patience = Client(
        own_cluster.url, own_cluster.authority.client_context(), own_cluster.token(), timeout=0.3
    )
    own_cluster.pause()
    try:
        with pytest.raises(TimeoutError):
            patience.get("/api/v1/pods")
    finally:
        own_cluster.resume()
    own_cluster.wait_until_ready()


def test_the_clusters_programs_are_gone_at_its_end(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        pids = (cluster.api.pid, cluster.etcd.pid)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_a_program_that_ends_by_itself_is_told_with_its_log(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    (tmp_path / "etcd").write_text("a file where etcd wants a folder")
    try:
        with pytest.raises(RuntimeError, match="etcd ended"):
            cluster.start()
    finally:
        cluster.close()
