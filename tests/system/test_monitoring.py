"""The real daemon's /metrics, /healthz and /readyz, as Prometheus and the kubelet ask for them."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.system.node import Node, new_root, noop_network
from tests.system.test_daemon import begin, end, wait_for_calls

pytestmark = pytest.mark.system

RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.1.2/24"}]}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def idle_node(port: int) -> Iterator[Node]:
    root = new_root()
    node = Node(
        root,
        noop_network(root, "cbr0", result=RESULT),
        daemon_keys={"metrics": {"listen": f"127.0.0.1:{port}"}},
    )
    node.plugin("noop")
    yield node
    sys.stdout.write(node.log.read_text())
    node.close()


@pytest.fixture
def node(idle_node: Node, port: int) -> Node:
    idle_node.start()
    wait_until(lambda: get(port, "/healthz")[0] == 200)
    return idle_node


def wait_until(condition: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def get(port: int, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
    """Return status and text; 0 where nobody listens."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        try:
            connection.request(method, path, body)
        except ConnectionRefusedError:
            return 0, ""
        response = connection.getresponse()
        return response.status, response.read().decode()


def families(port: int) -> list[Metric]:
    status, text = get(port, "/metrics")
    assert status == 200
    return list(text_string_to_metric_families(text))


def value(port: int, name: str, **labels: str) -> float | None:
    found = [
        sample.value
        for family in families(port)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found[0] if found else None


def test_metrics_are_well_formed_and_named_as_prometheus_wants_them(node: Node, port: int) -> None:
    """Base units, `_total` for counters alone, a help text for each, no name with a pod's."""
    pod = node.pod()
    assert node.add(pod).exit_code == 0
    text = get(port, "/metrics")[1]
    found = families(port)
    ours = [family for family in found if family.name.startswith("metaplugin_")]
    others = {family.name.partition("_")[0] for family in found if family not in ours}
    assert others == {"process", "python"}
    assert len({family.name for family in found}) == len(found)
    for family in ours:
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        counted = f"# TYPE {family.name}_total counter" in text
        assert counted == (family.type == "counter")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        assert not re.search("_(milliseconds|minutes|kb|mb)$", family.name)
    assert pod.name not in text
    assert pod.container_id not in text


def test_a_pods_life_is_counted(node: Node, port: int) -> None:
    pod = node.pod()
    assert node.add(pod).exit_code == 0
    assert value(port, "metaplugin_records", state="complete") in (0, 1)  # counted now and then
    assert node.call("CHECK", pod).exit_code == 0
    assert node.delete(pod).exit_code == 0
    for command in ("ADD", "CHECK", "DEL"):
        assert value(port, "metaplugin_requests_total", command=command, code="0") == 1
        labels = {"plugin": "noop", "command": command}
        assert value(port, "metaplugin_plugin_duration_seconds_count", **labels) == 1
        assert (value(port, "metaplugin_request_duration_seconds_sum", command=command) or 0) > 0
        assert value(port, "metaplugin_requests_in_flight", command=command) == 0


def test_a_failed_add_is_counted_with_its_code_its_plugin_and_its_rollback(
    node: Node, port: int
) -> None:
    node.define("bad", noop_network(node.root, "bad", onADD={"code": 77, "msg": "no"}))
    reply = node.add(node.pod("bad"))
    assert reply.exit_code
    assert value(port, "metaplugin_requests_total", command="ADD", code=str(reply.code)) == 1
    labels = {"plugin": "noop", "command": "ADD", "reason": "error"}
    assert value(port, "metaplugin_plugin_failures_total", **labels) == 1
    assert value(port, "metaplugin_rollbacks_total", outcome="complete") == 1


def test_damaged_records_are_counted(idle_node: Node, port: int) -> None:
    folder = idle_node.root / "state" / "attachments"
    folder.mkdir(mode=0o700, parents=True)
    (folder / "c@eth0").write_bytes(b"half")
    idle_node.start()
    wait_until(lambda: get(port, "/healthz")[0] == 200)
    assert value(port, "metaplugin_records", state="damaged") == 1
    assert value(port, "metaplugin_records", state="complete") == 0


def test_probes_say_what_they_have_looked_at(node: Node, port: int) -> None:
    wait_until(lambda: get(port, "/readyz")[0] == 200)
    assert get(port, "/readyz") == (200, "ok\n")
    status, text = get(port, "/readyz?verbose")
    assert (status, text) == (200, "[+] serving: ok\n[+] cluster: ok\nok\n")
    status, text = get(port, "/healthz?verbose")
    assert status == 200
    names = [line.split(":")[0] for line in text.splitlines()[:-1]]
    assert names == [f"[+] {name}" for name in ("requests", "socket", "watches", "disk", "netlink")]


def test_a_daemon_whose_socket_is_gone_is_neither_ready_nor_alive(node: Node, port: int) -> None:
    """No shim could reach it any more, and a restart makes the socket anew."""
    (node.root / "run" / "daemon.sock").unlink()
    assert get(port, "/readyz")[0] == 503
    status, text = get(port, "/healthz")
    assert (status, text.splitlines()[1]) == (503, "failed")
    assert "daemon.sock is gone" in text


def test_a_daemon_that_another_has_replaced_is_alive_and_not_ready(node: Node, port: int) -> None:
    path = node.root / "run" / "daemon.sock"
    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(str(node.root / "run" / "other.sock"))
        (node.root / "run" / "other.sock").rename(path)
        assert get(port, "/healthz")[0] == 200
        status, text = get(port, "/readyz")
    assert status == 503
    assert "is another daemon's" in text


def test_a_daemon_that_drains_is_alive_and_not_ready(idle_node: Node, port: int) -> None:
    slow = noop_network(idle_node.root, "cbr0", result=RESULT, onADD={"sleep": 2})
    (idle_node.root / "default.conflist").write_text(json.dumps(slow))
    idle_node.start()
    wait_until(lambda: get(port, "/readyz")[0] == 200)
    process = begin(idle_node, idle_node.pod())
    wait_for_calls(idle_node, 1)
    assert value(port, "metaplugin_requests_in_flight", command="ADD") == 1
    idle_node.signal_daemon(signal.SIGTERM)
    wait_until(lambda: get(port, "/readyz")[0] == 503)
    assert get(port, "/readyz")[1] == "[-] serving: draining\nfailed\n"
    assert get(port, "/healthz")[0] == 200
    assert end(process).exit_code == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/metrics", 405), ("GET", "/", 404), ("HEAD", "/healthz", 200)],
    ids=["no writing", "another path", "without the text"],
)
def test_other_requests(node: Node, port: int, method: str, path: str, status: int) -> None:
    assert get(port, path, method)[0] == status
    assert "defect" not in node.log.read_text()


def test_a_body_is_refused_unread(node: Node, port: int) -> None:
    """Who may connect may not fill the daemon's memory."""
    assert get(port, "/metrics", "POST", b"x" * 1000)[0] == 413


def test_clients_that_say_nothing_keep_nobody_out(node: Node, port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    assert get(port, "/healthz")[0] == 200
    for connection in idle:
        connection.close()


def test_a_taken_port_keeps_no_pod_from_starting(idle_node: Node, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        idle_node.start()
        assert idle_node.add(idle_node.pod()).exit_code == 0
        wait_until(lambda: "address can't be had" in idle_node.log.read_text())
    wait_until(lambda: get(port, "/healthz")[0] == 200)


def test_metrics_can_be_off(idle_node: Node, port: int) -> None:
    idle_node.daemon_keys["metrics"] = {"listen": ""}
    idle_node.start()
    assert idle_node.add(idle_node.pod()).exit_code == 0
    assert get(port, "/healthz")[0] == 0


@pytest.mark.parametrize(
    "listen", ["9547", "localhost:9547", "127.0.0.1:0", "::1:9547", "[127.0.0.1]:9547", "1.2.3.4:x"]
)
def test_an_address_that_is_none_is_refused(idle_node: Node, listen: str) -> None:
    idle_node.daemon_keys["metrics"] = {"listen": listen}
    idle_node.write_config()
    ended = idle_node.run_daemon(idle_node.root / "daemon.yaml")
    assert ended.returncode == 1
    assert "metrics.listen" in ended.stderr
    idle_node.log.touch()


def test_ipv6_is_an_address(idle_node: Node, port: int) -> None:
    keys: dict[str, Any] = {"metrics": {"listen": f"[::1]:{port}"}}
    idle_node.daemon_keys |= keys
    idle_node.start()
    wait_until(lambda: _answers("::1", port))


def _answers(host: str, port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
    except ConnectionRefusedError:
        return False
