"""The proxy passes everything on until it is told not to, and counts what RBAC would see."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.controlplane import objects
from tests.controlplane.client import ApiError, Client, JSONObject
from tests.controlplane.cluster import Cluster
from tests.controlplane.proxy import FaultProxy
from tests.controlplane.request import Request

pytestmark = pytest.mark.system

PODS = "/api/v1/pods"


@pytest.fixture
def client(cluster: Cluster, proxy: FaultProxy) -> Client:
    """The daemon's account, through the proxy."""
    return cluster.client(cluster.token(), proxy.url)


@pytest.fixture
def impatient(cluster: Cluster, proxy: FaultProxy) -> Client:
    tls = cluster.authority.client_context()
    return Client(proxy.url, tls, cluster.token(), timeout=0.3)


@pytest.fixture
def pod(cluster: Cluster) -> Iterator[str]:
    cluster.admin.create(objects.pod("watched"))
    yield f"{objects.pods()}/watched"
    cluster.admin.delete(f"{objects.pods()}/watched")


class Watch(threading.Thread):
    """A watch that runs beside the test; it has ended when `join` returns."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client
        self.events: list[JSONObject] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):  # Python's TLS tells most resets as an end
            for event in self._client.watch(PODS):
                self.events.append(event)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def label(cluster: Cluster, path: str, value: str) -> None:
    cluster.admin.patch(path, {"metadata": {"labels": {"step": value}}})


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/api/v1/pods?limit=500", ("list", "", "pods", "")),
        ("GET", "/api/v1/pods?watch=true", ("watch", "", "pods", "")),
        ("GET", "/api/v1/pods?watch=false", ("list", "", "pods", "")),
        ("GET", "/api/v1/namespaces/n/pods/p", ("get", "", "pods", "p")),
        ("GET", "/api/v1/namespaces/n", ("get", "", "namespaces", "n")),
        ("PATCH", "/api/v1/namespaces/n/pods/p/status", ("patch", "", "pods/status", "p")),
        ("POST", "/api/v1/namespaces/n/events", ("create", "", "events", "")),
        (
            "GET",
            "/apis/k8s.cni.cncf.io/v1/namespaces/n/network-attachment-definitions/d",
            ("get", "k8s.cni.cncf.io", "network-attachment-definitions", "d"),
        ),
        ("GET", "/readyz", ("get", "", "", "")),
        ("GET", "/apis", ("get", "", "", "")),
    ],
)
def test_a_request_is_seen_as_rbac_sees_it(
    method: str, target: str, expected: tuple[str, ...]
) -> None:
    request = Request(method, target)
    assert expected == (request.verb, request.group, request.resource, request.name)


def test_requests_are_passed_on_and_counted_by_verb_and_resource(
    client: Client, proxy: FaultProxy, pod: str
) -> None:
    client.get(PODS)
    client.patch(f"{pod}/status", {"metadata": {"annotations": {"k": "v"}}})
    assert client.get(pod)["metadata"]["annotations"]["k"] == "v"
    assert (
        proxy.count("list", "pods"),
        proxy.count("patch", "pods/status"),
        proxy.count("get", "pods"),
    ) == (1, 1, 1)
    assert proxy.count() == 3
    proxy.forget()
    assert proxy.count() == 0


def test_a_large_body_passes_unchanged_both_ways(cluster: Cluster, proxy: FaultProxy) -> None:
    admin = cluster.client("admin", proxy.url)
    large = objects.net_attach_def("large", {"type": "bridge", "note": "x" * 900_000})
    admin.create(large)
    path = f"{objects.net_attach_defs()}/large"
    assert large["spec"] == admin.get(path)["spec"]
    admin.delete(path)


def test_a_watch_streams_and_ends_with_its_client(
    cluster: Cluster, client: Client, proxy: FaultProxy, pod: str
) -> None:
    events = client.watch(PODS)
    assert next(events)["type"] == "ADDED"
    assert proxy.watches == 1
    label(cluster, pod, "1")
    assert next(events)["type"] == "MODIFIED"
    events.close()
    wait_for(lambda: proxy.watches == 0)


def test_what_is_injected_comes_between_two_events(
    cluster: Cluster, client: Client, proxy: FaultProxy, pod: str
) -> None:
    events = client.watch(PODS)
    assert next(events)["type"] == "ADDED"
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410}}
    assert proxy.inject(json.dumps(gone).encode() + b"\n") == 1
    label(cluster, pod, "after")
    assert next(events) == gone
    assert next(events)["type"] == "MODIFIED"
    proxy.inject(b'{"type": "half a li')
    proxy.cut_watches()
    with pytest.raises(ValueError, match="Unterminated"):
        next(events)


def test_cut_watches_end_and_other_requests_go_on(
    client: Client, proxy: FaultProxy, pod: str
) -> None:
    watches = [Watch(client) for _ in range(3)]
    for watch in watches:
        watch.start()
    wait_for(lambda: all(watch.events for watch in watches))
    assert proxy.cut_watches() == 3
    for watch in watches:
        watch.join(20)
        assert not watch.is_alive()
    assert client.get(pod)["metadata"]["name"] == "watched"


def test_a_refusing_proxy_resets_what_is_open_and_refuses_what_comes(
    client: Client, proxy: FaultProxy, pod: str
) -> None:
    watch = Watch(client)
    watch.start()
    wait_for(lambda: watch.events)
    proxy.refuse()
    watch.join(20)
    assert not watch.is_alive()
    with pytest.raises(ConnectionRefusedError):
        client.get(PODS)
    proxy.heal()
    assert client.get(PODS)["kind"] == "PodList"


def test_an_error_is_answered_without_asking_the_server(
    client: Client, proxy: FaultProxy, pod: str
) -> None:
    proxy.answer(429, retry_after=7, matches=lambda request: request.verb == "patch")
    assert client.get(PODS)["kind"] == "PodList"
    with pytest.raises(ApiError) as caught:
        client.patch(f"{pod}/status", {"metadata": {"annotations": {"lost": "yes"}}})
    assert caught.value.status == 429
    assert caught.value.headers["Retry-After"] == "7"
    proxy.answer(500)
    assert client.raw("GET", PODS)[0] == 500
    proxy.heal()
    assert "lost" not in client.get(pod)["metadata"].get("annotations", {})


def test_a_slow_answer_comes_late_though_the_server_did_at_once(
    cluster: Cluster, impatient: Client, proxy: FaultProxy, pod: str
) -> None:
    proxy.slow(30)
    with pytest.raises(TimeoutError):
        impatient.patch(f"{pod}/status", {"metadata": {"annotations": {"done": "yes"}}})
    assert cluster.admin.get(pod)["metadata"]["annotations"]["done"] == "yes"


def test_a_slow_answer_comes(client: Client, proxy: FaultProxy) -> None:
    proxy.slow(0.5)
    start = time.monotonic()
    client.get(PODS)
    assert time.monotonic() - start >= 0.5


def test_a_frozen_proxy_is_silent_in_both_directions_and_then_goes_on(
    cluster: Cluster, client: Client, impatient: Client, proxy: FaultProxy, pod: str
) -> None:
    watch = Watch(client)
    watch.start()
    wait_for(lambda: watch.events)
    seen = len(watch.events)
    proxy.freeze()
    label(cluster, pod, "frozen")
    with pytest.raises(TimeoutError):
        impatient.get(PODS)
    assert (seen, True) == (len(watch.events), watch.is_alive())
    proxy.heal()
    wait_for(lambda: len(watch.events) > seen)
    proxy.cut()
    watch.join(20)
    assert not watch.is_alive()


def test_dropped_packets_are_never_answered_and_flow_again(
    cluster: Cluster, client: Client, impatient: Client, proxy: FaultProxy, pod: str
) -> None:
    watch = Watch(client)
    watch.start()
    wait_for(lambda: watch.events)
    seen = len(watch.events)
    proxy.drop()
    label(cluster, pod, "dropped")
    with pytest.raises(TimeoutError):  # in connect(2), where a frozen proxy accepts
        impatient.get(PODS)
    assert (len(watch.events), watch.is_alive()) == (seen, True)
    proxy.heal()
    assert client.get(PODS)["kind"] == "PodList"
    wait_for(lambda: len(watch.events) > seen)  # by retransmission
    proxy.cut()
    watch.join(20)


def test_a_lost_server_is_a_broken_connection_and_its_return_is_seen(
    cluster: Cluster, client: Client
) -> None:
    cluster.stop()
    try:
        with pytest.raises(OSError, match=r"reset|closed|EOF"):
            client.get(PODS)
    finally:
        cluster.start()
    assert client.get(PODS)["kind"] == "PodList"
