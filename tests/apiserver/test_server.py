"""The API server of the tests keeps to the API where it is well."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from tests.apiserver.client import (
    NETWORKS,
    PODS,
    STATUS_OF_A,
    Client,
    Watch,
    annotate,
    network,
    pod,
)
from tests.apiserver.resources import JSONObject
from tests.apiserver.server import ApiServer


def names(answer: JSONObject) -> list[str]:
    return [item["metadata"]["name"] for item in answer["items"]]


# --- get and list ---------------------------------------------------------------------------------


def test_an_object_is_got_as_it_was_put(server: ApiServer, client: Client) -> None:
    stored = server.put(pod("a", annotations={"k": "v"}))
    assert stored == client.get("/api/v1/namespaces/default/pods/a")
    assert stored["metadata"]["annotations"] == {"k": "v"}
    assert {"uid", "resourceVersion", "creationTimestamp"} <= set(stored["metadata"])


def test_what_is_not_there_is_a_status_not_found(client: Client) -> None:
    code, status = client.call("/api/v1/namespaces/default/pods/a")
    assert (code, status["kind"], status["reason"]) == (404, "Status", "NotFound")
    assert client.call("/api/v1/nodes")[0] == 404


def test_versions_increase_over_all_kinds(server: ApiServer) -> None:
    versions = [
        int(server.put(obj)["metadata"]["resourceVersion"])
        for obj in (pod("a"), network("n"), pod("a", labels={"l": "1"}))
    ]
    assert versions == sorted(set(versions))
    assert server.version == versions[-1]


def test_lists_are_of_a_namespace_or_a_node_or_all(server: ApiServer, client: Client) -> None:
    server.put_all([pod("a"), pod("b", node="there"), pod("c", namespace="other")])
    assert names(client.get(PODS)) == ["a", "b", "c"]
    assert names(client.get("/api/v1/namespaces/other/pods")) == ["c"]
    assert names(client.get(PODS, fieldSelector="spec.nodeName=here")) == ["a", "c"]
    assert names(client.get(PODS, fieldSelector="spec.nodeName!=here")) == ["b"]
    assert client.call(PODS, fieldSelector="spec.priority=1")[0] == 400


def test_items_of_core_lists_have_no_kind_and_those_of_custom_ones_have(
    server: ApiServer, client: Client
) -> None:
    server.put_all([pod("a"), network("n")])
    pods = client.get(PODS)
    networks = client.get(NETWORKS)
    assert (pods["kind"], "kind" in pods["items"][0]) == ("PodList", False)
    assert networks["items"][0]["kind"] == "NetworkAttachmentDefinition"
    assert networks["kind"] == "NetworkAttachmentDefinitionList"


def test_pages_are_of_the_state_at_the_first(server: ApiServer, client: Client) -> None:
    server.put_all([network(f"n{i}") for i in range(5)])
    first = client.get(NETWORKS, limit=2)
    assert first["metadata"]["remainingItemCount"] == 3
    server.delete("NetworkAttachmentDefinition", "default", "n4")
    server.put(network("n5"))
    second = client.get(NETWORKS, limit=2, **{"continue": first["metadata"]["continue"]})
    third = client.get(NETWORKS, limit=2, **{"continue": second["metadata"]["continue"]})
    pages = (first, second, third)
    assert [names(page) for page in pages] == [["n0", "n1"], ["n2", "n3"], ["n4"]]
    assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
    assert third["metadata"]["continue"] == ""
    assert "remainingItemCount" not in third["metadata"]


def test_a_list_from_the_watch_cache_comes_whole(server: ApiServer, client: Client) -> None:
    server.put_all([network(f"n{i}") for i in range(5)])
    assert len(client.get(NETWORKS, limit=2, resourceVersion=0)["items"]) == 5


def test_pages_expire_with_a_compaction(server: ApiServer, client: Client) -> None:
    server.put_all([network(f"n{i}") for i in range(5)])
    token = client.get(NETWORKS, limit=2)["metadata"]["continue"]
    server.compact()
    code, status = client.call(NETWORKS, limit=2, **{"continue": token})
    assert (code, status["reason"]) == (410, "Expired")


def test_a_version_from_the_future_is_a_timeout(server: ApiServer, client: Client) -> None:
    code, status = client.call(PODS, resourceVersion=server.version + 1)
    assert (code, status["details"]["retryAfterSeconds"]) == (504, 1)


# --- watch ----------------------------------------------------------------------------------------


def test_a_watch_replays_and_follows(server: ApiServer, watches: Any) -> None:
    since = server.version
    server.put(pod("a"))
    watch = watches(resourceVersion=since)
    server.put(pod("a", labels={"l": "1"}))
    server.delete("Pod", "default", "a")
    assert [watch.told() for _ in range(2)] == ["ADDED a", "MODIFIED a"]
    deleted = watch.event()
    assert deleted["type"] == "DELETED"
    assert deleted["object"]["metadata"]["resourceVersion"] == str(server.version)


@pytest.mark.parametrize("query", [{}, {"resourceVersion": 0}], ids=["unset", "zero"])
def test_a_watch_from_no_version_begins_with_what_is_there(
    server: ApiServer, watches: Any, query: dict[str, object]
) -> None:
    server.put(pod("a"))
    watch = watches(**query)
    server.put(pod("b"))
    assert [watch.told(), watch.told()] == ["ADDED a", "ADDED b"]


def test_a_watch_by_node_sees_pods_come_and_go_by_their_node(
    server: ApiServer, watches: Any
) -> None:
    server.put(pod("a", node=""))
    since = server.version
    watch = watches(fieldSelector="spec.nodeName=here", resourceVersion=since)
    server.put(pod("a", node="here"))
    server.put(pod("b", node="there"))
    server.put(pod("a", node="there"))
    assert [watch.told(), watch.told()] == ["ADDED a", "DELETED a"]


def test_a_pod_made_anew_under_its_name_is_deleted_and_added(
    server: ApiServer, watches: Any
) -> None:
    server.put(pod("a", uid="1"))
    watch = watches(resourceVersion=server.version)
    server.put(pod("a", uid="2"))
    events = [watch.event(), watch.event()]
    assert [(event["type"], event["object"]["metadata"]["uid"]) for event in events] == [
        ("DELETED", "1"),
        ("ADDED", "2"),
    ]


@pytest.mark.parametrize("in_stream", [False, True])
def test_a_watch_from_before_a_compaction_is_gone(
    server: ApiServer, client: Client, in_stream: bool
) -> None:
    since = server.version
    server.put(pod("a"))
    server.compact()
    server.api.gone_in_stream = in_stream
    code, answer = client.call(PODS, watch=1, resourceVersion=since)
    status = answer["object"] if in_stream else answer
    assert (code, status["code"], status["reason"]) == (200 if in_stream else 410, 410, "Expired")
    assert not in_stream or answer["type"] == "ERROR"


def test_bookmarks_carry_the_version_to_those_who_ask(server: ApiServer, watches: Any) -> None:
    watch = watches(resourceVersion=server.version, allowWatchBookmarks="true")
    other = watches(resourceVersion=server.version)
    server.put(network("n"))
    server.send_bookmarks()
    server.put(pod("a"))
    assert watch.event() == {
        "type": "BOOKMARK",
        "object": {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": str(server.version - 1)},
        },
    }
    assert [watch.told(), other.told()] == ["ADDED a", "ADDED a"]


def test_bookmarks_come_by_themselves() -> None:
    with ApiServer(bookmark_s=0.01) as server:
        watch = Watch(server, PODS, resourceVersion=server.version, allowWatchBookmarks="true")
        assert watch.event()["type"] == "BOOKMARK"
        watch.close()


def test_a_watch_ends_at_its_timeout_and_the_connection_goes_on(
    server: ApiServer, watches: Any
) -> None:
    watch = watches(resourceVersion=server.version, allowWatchBookmarks="true", timeoutSeconds=1)
    assert watch.told() == f"BOOKMARK {server.version}"
    assert watch.line() == b""
    assert watch.client.get(PODS)["items"] == []


def test_initial_events_end_with_a_bookmark(server: ApiServer, watches: Any) -> None:
    server.put(pod("a"))
    watch = watches(
        sendInitialEvents="true", resourceVersionMatch="NotOlderThan", allowWatchBookmarks="true"
    )
    assert watch.told() == "ADDED a"
    metadata = watch.event()["object"]["metadata"]
    assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_initial_events_are_refused_as_older_servers_do(server: ApiServer, client: Client) -> None:
    server.api.watch_list = "refused"
    code, status = client.call(
        PODS, watch=1, sendInitialEvents="true", resourceVersionMatch="NotOlderThan"
    )
    assert (code, status["reason"]) == (422, "Invalid")
    assert status["details"]["causes"][0]["field"] == "sendInitialEvents"


def test_initial_events_fail_in_the_stream_upon_an_old_etcd(
    server: ApiServer, watches: Any
) -> None:
    server.api.watch_list = "failing"
    watch = watches(sendInitialEvents="true", resourceVersionMatch="NotOlderThan")
    event = watch.event()
    assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
    assert watch.line() == b""


# --- patch and create -----------------------------------------------------------------------------


def test_a_patch_of_status_merges_metadata_but_not_spec(server: ApiServer, client: Client) -> None:
    before = server.put(pod("a", annotations={"old": "1", "kept": "1"}))
    patch = annotate(uid=before["metadata"]["uid"]) | {"spec": {"nodeName": "there"}}
    code, after = client.call(STATUS_OF_A, method="PATCH", body=patch)
    assert code == 200
    assert after["metadata"]["annotations"] == {"kept": "1", "status": "[]"}
    assert after["spec"]["nodeName"] == "here"
    assert after == server.get("Pod", "default", "a")
    assert int(after["metadata"]["resourceVersion"]) == server.version


def test_a_patch_that_changes_nothing_makes_no_version(server: ApiServer, client: Client) -> None:
    server.put(pod("a", annotations={"status": "[]"}))
    version = server.version
    assert client.call(STATUS_OF_A, method="PATCH", body=annotate())[0] == 200
    assert server.version == version


def test_a_patch_of_another_version_is_a_conflict(server: ApiServer, client: Client) -> None:
    before = server.put(pod("a"))
    patch = annotate(resourceVersion="1")
    code, status = client.call(STATUS_OF_A, method="PATCH", body=patch)
    assert (code, status["reason"]) == (409, "Conflict")
    assert server.get("Pod", "default", "a") == before


@pytest.mark.parametrize(("code", "reason"), [(422, "Invalid"), (409, "Conflict")])
def test_a_patch_of_another_pod_of_that_name_is_refused(
    server: ApiServer, client: Client, code: Literal[409, 422], reason: str
) -> None:
    before = server.put(pod("a"))
    server.api.uid_mismatch = code
    answered, status = client.call(STATUS_OF_A, method="PATCH", body=annotate(uid="other"))
    assert (answered, status["reason"]) == (code, reason)
    assert code == 409 or status["details"]["causes"][0]["field"] == "metadata.uid"
    assert server.get("Pod", "default", "a") == before


def test_a_patch_reaches_the_watches(server: ApiServer, client: Client, watches: Any) -> None:
    server.put(pod("a"))
    watch = watches(resourceVersion=server.version)
    client.call(STATUS_OF_A, method="PATCH", body=annotate())
    assert watch.told() == "MODIFIED a"


def test_events_are_created_with_a_generated_name(server: ApiServer, client: Client) -> None:
    event = {"metadata": {"generateName": "a."}, "involvedObject": {"namespace": "default"}}
    events = "/api/v1/namespaces/default/events"
    code, created = client.call(events, method="POST", body=event)
    assert code == 201
    assert created["metadata"]["name"].startswith("a.")
    assert server.objects("Event") == [created]
    code, status = client.call(events, method="POST", body=created)
    assert (code, status["reason"]) == (409, "AlreadyExists")
    for involved in (event["involvedObject"], {"kind": "Node"}):
        misplaced = event | {"involvedObject": involved}
        code, _ = client.call("/api/v1/namespaces/other/events", method="POST", body=misplaced)
        assert code == 422
    code, _ = client.call(events, method="POST", body=event | {"involvedObject": {"kind": "Node"}})
    assert code == 201
