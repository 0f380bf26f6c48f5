"""The API server of the tests is ill as it is told, and tells what it saw."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from typing import Any

import pytest

from tests.apiserver.client import (
    NETWORKS,
    PODS,
    SHORT_S,
    STATUS_OF_A,
    WITHIN_S,
    Client,
    annotate,
    network,
    pod,
)
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
from tests.apiserver.resources import ApiError
from tests.apiserver.server import ApiServer


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


def test_an_answer_can_be_text_as_of_a_missing_api_group_or_a_proxy(
    server: ApiServer, client: Client
) -> None:
    server.inject(Answer(404, text="404 page not found\n"), on(path="k8s.cni.cncf.io"))
    response = client.open(NETWORKS)
    assert (response.status, response.headers["Content-Type"]) == (404, "text/plain")
    assert response.read() == b"404 page not found\n"


def test_the_body_of_a_list_can_be_garbage(server: ApiServer, client: Client) -> None:
    server.inject(Garbage(b"]"), on(verb="list"), times=1)
    assert client.open(PODS).read() == b"]"
    assert client.get(PODS)["items"] == []


def test_a_watch_can_be_cut_when_it_has_just_opened(server: ApiServer, watches: Any) -> None:
    server.inject(Cut(), on(verb="watch"), times=1)
    with pytest.raises(http.client.IncompleteRead):
        watches(resourceVersion=server.version).response.read()
    server.put(pod("a"))
    assert watches(resourceVersion=server.version - 1).told() == "ADDED a"


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


def test_stopping_amid_connecting_clients_leaves_nothing(
    server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    asked_enough = threading.Event()

    def ask() -> None:
        while not asked_enough.is_set():
            client = Client(server)
            with contextlib.suppress(OSError, http.client.HTTPException):
                client.get(PODS)
            client.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        server.forget_requests()
        server.wait_for(lambda: server.requests)
        server.stop()
        server.start()
    asked_enough.set()
    for thread in threads:
        thread.join(WITHIN_S)
    assert [record.message for record in caplog.records] == []


def test_what_is_not_there_is_an_error_for_the_test_too(server: ApiServer) -> None:
    with pytest.raises(ApiError, match='pods "a" not found'):
        server.delete("Pod", "default", "a")
