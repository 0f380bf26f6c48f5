"""The API server of the tests keeps to the API where it is well, and is ill as it is told."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlencode

import pytest

from tests.apiserver.faults import (
    Answer,
    Cut,
    Garbage,
    HalfLine,
    Reset,
    Silence,
    Slow,
    later_pages,
    on,
)
from tests.apiserver.resources import ApiError, JSONObject
from tests.apiserver.server import ApiServer

PODS = "/api/v1/pods"
NETWORKS = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
WITHIN_S = 20.0  # for whatever must come; what must not come is never waited for
SHORT_S = 0.2  # a client's patience with what must not come


def pod(name: str, *, node: str = "here", **metadata: Any) -> JSONObject:
    return {"kind": "Pod", "metadata": {"name": name, **metadata}, "spec": {"nodeName": node}}


def network(name: str, config: str = "{}") -> JSONObject:
    spec = {"config": config}
    return {"kind": "NetworkAttachmentDefinition", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


class Client:
    """One connection, as urllib3 would hold it."""

    def __init__(self, server: ApiServer, *, token: str = "", patience: float = WITHIN_S) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=patience)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def open(
        self, path: str, *, method: str = "GET", body: object = None, **query: object
    ) -> http.client.HTTPResponse:
        headers = dict(self.headers)
        if body is not None:
            patch = method == "PATCH"
            headers["Content-Type"] = f"application/{'merge-patch+' if patch else ''}json"
        address = f"{path}?{urlencode(query)}" if query else path
        data = None if body is None else json.dumps(body)
        self.connection.request(method, address, data, headers)
        return self.connection.getresponse()

    def call(self, path: str, **request: Any) -> tuple[int, JSONObject]:
        response = self.open(path, **request)
        parsed = json.loads(response.read())
        assert isinstance(parsed, dict)
        return response.status, parsed

    def get(self, path: str, **query: object) -> JSONObject:
        code, answer = self.call(path, **query)
        assert code == 200, answer
        return answer

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def client(server: ApiServer) -> Iterator[Client]:
    client = Client(server)
    yield client
    client.close()


class Watch:
    """An open watch, read event by event."""

    def __init__(self, server: ApiServer, path: str, **query: Any) -> None:
        self.client = Client(server)
        self.response = self.client.open(path, watch=1, **query)
        assert self.response.status == 200, self.response.read()

    def line(self) -> bytes:
        return self.response.readline()

    def event(self) -> JSONObject:
        event = json.loads(self.line())
        assert isinstance(event, dict)
        return event

    def told(self) -> str:
        event = self.event()
        metadata = event["object"].get("metadata", {})
        return f"{event['type']} {metadata.get('name') or metadata['resourceVersion']}"

    def close(self) -> None:
        self.client.close()


@pytest.fixture
def watches(server: ApiServer) -> Iterator[Any]:
    opened: list[Watch] = []

    def watch(path: str = PODS, **query: object) -> Watch:
        opened.append(Watch(server, path, **query))
        return opened[-1]

    yield watch
    for one in opened:
        one.close()


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

STATUS_OF_A = "/api/v1/namespaces/default/pods/a/status"


def annotate(**metadata: object) -> JSONObject:
    return {"metadata": {"annotations": {"status": "[]", "old": None}, **metadata}}


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
    code, _ = client.call("/api/v1/namespaces/other/events", method="POST", body=event)
    assert code == 422


# --- faults ---------------------------------------------------------------------------------------


def test_requests_are_counted_as_rbac_names_them(
    server: ApiServer, client: Client, watches: Any
) -> None:
    server.put(pod("a"))
    client.get(PODS)
    client.get("/api/v1/namespaces/default/pods/a")
    client.call(STATUS_OF_A, method="PATCH", body=annotate())
    watches(NETWORKS, resourceVersion=server.version)
    assert server.tally() == {
        "list pods": 1,
        "get pods": 1,
        "patch pods/status": 1,
        "watch network-attachment-definitions": 1,
    }
    assert server.count("list") == 1
    assert server.count(resource="pods/status") == 1
    assert server.requests[2].body == annotate()


def test_only_the_token_of_now_is_accepted() -> None:
    with ApiServer(token="one") as server:
        old, new = Client(server, token="one"), Client(server, token="two")
        assert [old.call(PODS)[0], new.call(PODS)[0]] == [200, 401]
        server.rotate_token("two")
        assert [old.call(PODS)[0], new.call(PODS)[0]] == [401, 200]
        old.close()
        new.close()


@pytest.mark.parametrize("code", [401, 403, 410, 429, 500, 503, 504])
def test_a_fault_answers_as_often_as_told(server: ApiServer, client: Client, code: int) -> None:
    server.inject(Answer(code), on(method="GET", path="pods"), times=2)
    codes = [client.call(NETWORKS)[0], *(client.call(PODS)[0] for _ in range(3))]
    assert codes == [200, code, code, 200]


def test_a_fault_lasts_until_it_is_cleared(server: ApiServer, client: Client) -> None:
    rule = server.inject(Answer(503), on(verb="list", resource="pods"))
    assert [client.call(PODS)[0] for _ in range(3)] == [503] * 3
    rule.clear()
    assert client.call(PODS)[0] == 200


def test_too_many_requests_says_when_to_come_again(server: ApiServer, client: Client) -> None:
    server.inject(Answer(429, retry_after=7), on())
    response = client.open(PODS)
    assert (response.status, response.headers["Retry-After"]) == (429, "7")
    assert json.loads(response.read())["details"]["retryAfterSeconds"] == 7


def test_later_pages_alone_can_fail(server: ApiServer, client: Client) -> None:
    server.put_all([network(f"n{i}") for i in range(3)])
    server.inject(Answer(410), later_pages, times=1)
    token = client.get(NETWORKS, limit=2)["metadata"]["continue"]
    assert client.call(NETWORKS, limit=2, **{"continue": token})[0] == 410


def test_a_reset_request_is_not_done(server: ApiServer, client: Client) -> None:
    before = server.put(pod("a"))
    server.inject(Reset(), on(verb="patch"), times=1)
    with pytest.raises(ConnectionError):
        client.call(STATUS_OF_A, method="PATCH", body=annotate())
    assert server.get("Pod", "default", "a") == before


def test_a_cut_request_is_done_though_its_answer_is_lost(server: ApiServer, client: Client) -> None:
    before = server.put(pod("a"))
    server.inject(Cut(after=10), on(verb="patch"), times=1)
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.call(STATUS_OF_A, method="PATCH", body=annotate())
    assert len(caught.value.partial) == 10
    assert server.get("Pod", "default", "a") != before


def test_a_slow_answer_comes_after_its_time(server: ApiServer) -> None:
    server.put(pod("a"))
    server.inject(Slow(SHORT_S * 2), on(), times=2)
    impatient, patient = Client(server, patience=SHORT_S), Client(server)
    with pytest.raises(TimeoutError):
        impatient.call(STATUS_OF_A, method="PATCH", body=annotate())
    impatient.close()
    assert patient.get(STATUS_OF_A.removesuffix("/status")) == server.get("Pod", "default", "a")
    assert "annotations" not in server.get("Pod", "default", "a")["metadata"]
    patient.close()


def test_stopping_waits_for_no_slow_or_silent_answer() -> None:
    server = ApiServer()
    server.start()
    server.inject(Slow(3600), on(resource="pods"))
    server.inject(Silence(), on(resource="network-attachment-definitions"))
    clients = [Client(server), Client(server)]
    failures: list[BaseException] = []

    def ask(client: Client, path: str) -> None:
        try:
            client.call(path)
        except (OSError, http.client.HTTPException) as error:
            failures.append(error)

    threads = [
        threading.Thread(target=ask, args=args)
        for args in zip(clients, (PODS, NETWORKS), strict=True)
    ]
    for thread in threads:
        thread.start()
    server.wait_for(lambda: len(server.requests) == 2)
    server.stop()
    for thread in threads:
        thread.join(WITHIN_S)
    for client in clients:
        client.close()
    assert len(failures) == 2


def test_garbage_comes_between_the_events_of_a_watch(server: ApiServer, watches: Any) -> None:
    server.inject(Garbage(b"]{\n"), on(verb="watch"), times=1)
    watch = watches(resourceVersion=server.version)
    server.put(pod("a"))
    assert [watch.line(), watch.told()] == [b"]{\n", "ADDED a"]
    server.disturb_watches(Garbage(b"\x00\n"))
    assert watch.line() == b"\x00\n"


@pytest.mark.parametrize("cleanly", [False, True])
def test_half_a_line_is_all_that_comes_of_the_next_event(
    server: ApiServer, watches: Any, cleanly: bool
) -> None:
    watch = watches(resourceVersion=server.version)
    server.disturb_watches(HalfLine(cleanly))
    server.put(pod("a"))
    if cleanly:
        half = watch.response.read()
    else:
        with pytest.raises(http.client.IncompleteRead) as caught:
            watch.response.read()
        half = caught.value.partial
    assert half.startswith(b'{"type":"ADDED"')
    assert not half.endswith(b"\n")


def test_a_silent_watch_stays_open_and_gets_nothing(server: ApiServer, watches: Any) -> None:
    server.inject(Silence(), on(verb="watch", resource="pods"), times=1)
    silent = watches(resourceVersion=server.version, allowWatchBookmarks="true", timeoutSeconds=0)
    server.put(pod("a"))
    server.send_bookmarks()
    silent.client.connection.sock.settimeout(SHORT_S)
    with pytest.raises(TimeoutError):
        silent.line()
    assert len(server.open_watches("pods")) == 1
    server.cut_watches()
    server.wait_for(lambda: not server.open_watches())


def test_an_error_event_ends_a_watch(server: ApiServer, watches: Any) -> None:
    watch = watches(resourceVersion=server.version)
    server.disturb_watches(Answer(410))
    event = watch.event()
    assert (event["type"], event["object"]["reason"]) == ("ERROR", "Expired")
    assert watch.line() == b""


def test_ten_thousand_events_come_at_once(server: ApiServer, watches: Any) -> None:
    watch = watches(NETWORKS, resourceVersion=server.version)
    server.put_all(network(f"n{i}") for i in range(10_000))
    versions = [int(watch.event()["object"]["metadata"]["resourceVersion"]) for _ in range(10_000)]
    assert versions == list(range(server.version - 9_999, server.version + 1))


def test_watches_are_cut_and_those_of_clients_that_leave_are_noticed(
    server: ApiServer, watches: Any
) -> None:
    cut, left = watches(resourceVersion=server.version), watches(NETWORKS, resourceVersion=1000)
    server.cut_watches(resource="pods")
    with pytest.raises(http.client.IncompleteRead):
        cut.response.read()
    assert len(server.open_watches()) == 1
    left.response.close()
    left.close()
    server.wait_for(lambda: not server.open_watches())


def test_refused_connections_leave_open_ones_alone(server: ApiServer, client: Client) -> None:
    client.get(PODS)
    server.refuse_connections()
    with pytest.raises(ConnectionRefusedError):
        Client(server).get(PODS)
    client.get(PODS)
    server.accept_connections()
    newcomer = Client(server)
    newcomer.get(PODS)
    newcomer.close()


def test_a_stopped_server_comes_back_on_its_port_with_its_objects(
    server: ApiServer, watches: Any
) -> None:
    before = server.put(pod("a"))
    port, watch = server.port, watches(resourceVersion=server.version)
    server.stop()
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        watch.response.read()
    with pytest.raises(ConnectionRefusedError):
        Client(server).get(PODS)
    during = server.put(pod("b"))
    server.start()
    assert server.port == port
    again = watches(resourceVersion=before["metadata"]["resourceVersion"])
    assert again.event()["object"] == during


def test_a_bad_token_is_refused_even_where_none_is_needed() -> None:
    with ApiServer(token="t") as server:
        anonymous, stranger = Client(server), Client(server, token="x")
        assert anonymous.open("/readyz").read() == b"ok"
        assert stranger.call("/readyz")[0] == 401
        anonymous.close()
        stranger.close()


def test_what_is_not_there_is_an_error_for_the_test_too(server: ApiServer) -> None:
    with pytest.raises(ApiError, match='pods "a" not found'):
        server.delete("Pod", "default", "a")
