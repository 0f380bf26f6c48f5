"""Bad input: the right code, a message that names the place, nothing left behind."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.system.node import Node, noop_network

pytestmark = pytest.mark.system


def left(node: Node) -> dict[str, Any]:
    return {"records": node.records(), "locks": node.locks(), "leases": node.leases()}


NOTHING: dict[str, Any] = {"records": [], "locks": [], "leases": []}

STDIN = {
    "empty": (b"", {5, 6}),
    "truncated": (b'{"cniVersion": "1.0.0", "na', {6}),
    "not utf-8": (b'{"cniVersion": "1.0.0", "name": "\xff\xfe"}', {6}),
    "deep": (b'{"cniVersion": "1.0.0", "name": "a", "x": ' + b"[" * 200_000, {6}),
    "a list": (b"[]", {6, 7}),
    "64 MiB": (b'{"cniVersion": "1.0.0", "name": "' + b"a" * (64 << 20) + b'"}', {6}),
    "no name": (b'{"cniVersion": "1.0.0"}', {7}),
    "name with a slash": (b'{"cniVersion": "1.0.0", "name": "../x"}', {7}),
    "name of 300": (b'{"cniVersion": "1.0.0", "name": "' + b"a" * 300 + b'"}', {7}),
    "name of dots": (b'{"cniVersion": "1.0.0", "name": ".."}', {7}),
    "name with a nul": (b'{"cniVersion": "1.0.0", "name": "a\\u0000"}', {7}),
    "version of tomorrow": (b'{"cniVersion": "9.0.0", "name": "a"}', {1}),
    "version of no text": (b'{"cniVersion": 1, "name": "a"}', {1, 6, 7}),
    "runtimeConfig a list": (b'{"cniVersion": "1.0.0", "name": "a", "runtimeConfig": []}', {7}),
}


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize(("stdin", "codes"), STDIN.values(), ids=STDIN.keys())
def test_bad_standard_input(
    recording_node: Node, command: str, stdin: bytes, codes: set[int]
) -> None:
    """CNI-IN-1 to CNI-IN-7, CNI-VER-5, CNI-ERR-1."""
    reply = recording_node.call(command, recording_node.pod(""), stdin=stdin)
    assert reply.exit_code == 1
    assert reply.code in codes
    assert reply.msg
    assert recording_node.noop_calls() == []
    assert left(recording_node) == NOTHING


ENVIRONMENT = {
    "unknown command": ({"CNI_COMMAND": "MUL"}, "MUL"),
    "no command": ({"CNI_COMMAND": None}, "CNI_COMMAND"),
    "no container id": ({"CNI_CONTAINERID": None}, "CNI_CONTAINERID"),
    "id with a slash": ({"CNI_CONTAINERID": "a/../b"}, "CNI_CONTAINERID"),
    "id of dots": ({"CNI_CONTAINERID": ".."}, "CNI_CONTAINERID"),
    "no interface": ({"CNI_IFNAME": None}, "CNI_IFNAME"),
    "interface with a slash": ({"CNI_IFNAME": "a/b"}, "CNI_IFNAME"),
    "interface of dots": ({"CNI_IFNAME": ".."}, "CNI_IFNAME"),
    "interface of 300": ({"CNI_IFNAME": "a" * 300}, "CNI_IFNAME"),
    "no netns": ({"CNI_NETNS": None}, "CNI_NETNS"),
    "netns missing": ({"CNI_NETNS": "/run/netns/nowhere"}, "/run/netns/nowhere"),
    "netns is a file": ({"CNI_NETNS": "/etc/passwd"}, "/etc/passwd"),
    "netns is a folder": ({"CNI_NETNS": "/run"}, "/run"),
    "netns is another kind": ({"CNI_NETNS": "/proc/self/ns/mnt"}, "/proc/self/ns/mnt"),
    "netns is the host's": ({"CNI_NETNS": "/proc/1/ns/net"}, "/proc/1/ns/net"),
    "malformed args": ({"CNI_ARGS": "nonsense"}, "CNI_ARGS"),
    "no pod": ({"CNI_ARGS": "IgnoreUnknown=1"}, "K8S_POD_NAME"),
    "pod with a path": (
        {"CNI_ARGS": "K8S_POD_NAMESPACE=..;K8S_POD_NAME=../../x"},
        "K8S_POD_NAMESPACE",
    ),
    "pod not utf-8": (
        {"CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=\udcff"},
        "K8S_POD_NAME",
    ),
    "pod of 300": (
        {"CNI_ARGS": f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={'a' * 300}"},
        "K8S_POD_NAME",
    ),
    "id with a nul's bytes": ({"CNI_CONTAINERID": "a\\0b"}, "CNI_CONTAINERID"),
    "id not utf-8": ({"CNI_CONTAINERID": "a\udcff"}, "CNI_CONTAINERID"),
    "id with a newline": ({"CNI_CONTAINERID": "a\n"}, "CNI_CONTAINERID"),
    "netns of 5000": ({"CNI_NETNS": "/" + "a" * 5000}, "CNI_NETNS"),
}


@pytest.mark.parametrize(("changes", "named"), ENVIRONMENT.values(), ids=ENVIRONMENT.keys())
def test_a_bad_environment(
    recording_node: Node, changes: dict[str, str | None], named: str
) -> None:
    """CNI-ENV-1 to CNI-ENV-10, ROB-1, ROB-10, MULTUS-1."""
    reply = recording_node.call("ADD", recording_node.pod(""), environment=changes)
    assert (reply.exit_code, reply.code) == (1, 4)
    assert named in reply.msg
    assert recording_node.noop_calls() == []
    assert left(recording_node) == NOTHING


def test_a_very_long_container_id_lives_and_dies(recording_node: Node) -> None:
    """CNI-ENV-11."""
    pod = recording_node.pod("")
    pod.container_id = "a" * 4000
    assert recording_node.add(pod).exit_code == 0
    recording_node.kill()
    assert recording_node.delete(pod).exit_code == 0
    assert left(recording_node) == NOTHING


ANNOTATIONS = {
    "unknown network": ("nowhere", "networks[0]"),
    "bad item": ("a/b/c", "networks[0]"),
    "other namespace": ("elsewhere/net", "namespace"),
    "truncated json": ('[{"name": "extra"', "networks"),
    "name of dots": ('[{"name": ".."}]', "networks[0].name"),
    "name with a nul": ('[{"name": "a\\u0000"}]', "networks[0].name"),
    "name of 300": (json.dumps([{"name": "a" * 300}]), "networks[0].name"),
    "namespace with a slash": ('[{"name": "a", "namespace": "../b"}]', "networks[0].namespace"),
    "interface with a nul": ('[{"name": "extra", "interface": "a\\u0000"}]', "interface"),
    "interface of dots": ('[{"name": "extra", "interface": ".."}]', "networks[0].interface"),
    "interface of 300": (
        json.dumps([{"name": "extra", "interface": "a" * 300}]),
        "networks[0].interface",
    ),
    "no list": ('{"name": "extra"}', "list"),
    "no name": ("[{}]", "networks[0].name"),
    "null": ("[null]", "networks[0]"),
    "deep": ('[{"name": "extra", "cni-args": ' + "[" * 100_000, "networks"),
    "interface twice": ("extra@a,extra@a", "'a'"),
    "interface of the default": ("extra@eth0", "eth0"),
    "bad interface": ('[{"name": "extra", "interface": "a/b"}]', "networks[0].interface"),
    "bad address": ('[{"name": "extra", "ips": ["10.0.0.300"]}]', "networks[0].ips[0]"),
    "bad mac": ('[{"name": "extra", "mac": "02:11"}]', "networks[0].mac"),
    "undeclared capability": ('[{"name": "extra", "mac": "02:11:22:33:44:55"}]', "mac"),
    "two default routes": (
        '[{"name": "extra", "default-route": []}, {"name": "extra", "default-route": []}]',
        "default-route",
    ),
}


UNDECODABLE = {ANNOTATIONS["truncated json"][0], ANNOTATIONS["deep"][0]}


@pytest.mark.parametrize(("annotation", "named"), ANNOTATIONS.values(), ids=ANNOTATIONS.keys())
def test_a_bad_annotation(recording_node: Node, annotation: str, named: str) -> None:
    """ROB-4, ROB-6, NPWG-11 to NPWG-34."""
    node = recording_node
    node.define("extra", noop_network(node.root, "extra"))
    node.define("net", noop_network(node.root, "net"), namespace="elsewhere")
    pod = node.pod(annotation)
    reply = node.add(pod)
    assert reply.exit_code == 1
    assert reply.code == (6 if annotation in UNDECODABLE else 7)
    assert named in reply.msg
    assert f"default/{pod.name}" in reply.msg
    assert node.noop_calls() == []
    assert left(node) == NOTHING


DEFINITIONS = {
    "no json": ("{", 6, "default/bad"),
    "a list": ("[]", 7, "default/bad"),
    "no type": ('{"cniVersion": "1.0.0"}', 7, "default/bad"),
    "type is a path": ('{"cniVersion": "1.0.0", "type": "../sh"}', 7, "type"),
    "type of dots": ('{"cniVersion": "1.0.0", "type": ".."}', 7, "type"),
    "type with a nul": ('{"type": "noop\\u0000x"}', 7, "type"),
    "ourselves": ('{"cniVersion": "1.0.0", "type": "metaplugin"}', 7, "itself"),
    "type of 300": (json.dumps({"type": "a" * 300}), 7, "type"),
    "nested path": ('{"type": "noop", "ipam": {"type": "/bin/sh"}}', 7, "ipam.type"),
    "name with a slash": ('{"name": "a/b", "type": "noop"}', 7, "name"),
    "unknown version": ('{"cniVersion": "7.0.0", "type": "noop"}', 1, "default/bad"),
    "deep": ('{"type": "noop", "x": ' + "[" * 100_000, 6, "default/bad"),
}


@pytest.mark.parametrize(("config", "code", "named"), DEFINITIONS.values(), ids=DEFINITIONS.keys())
def test_a_bad_definition(recording_node: Node, config: str, code: int, named: str) -> None:
    """ROB-3, ROB-5, NPWG-3."""
    recording_node.define("bad", config)
    reply = recording_node.add(recording_node.pod("bad"))
    assert (reply.exit_code, reply.code) == (1, code)
    assert named in reply.msg
    assert recording_node.noop_calls() == []
    assert left(recording_node) == NOTHING


DELEGATES: dict[str, tuple[dict[str, Any], int, str]] = {
    "garbage": ({"print": "hello"}, 6, "no JSON"),
    "nothing": ({"print": ""}, 6, "empty"),
    "a list": ({"print": "[]"}, 7, "object"),
    "wrong shape": ({"print": '{"ips": [{"address": 5}]}'}, 6, "ips[0].address"),
    "100 MB": ({"bytes": 100 << 20}, 6, "16 MiB"),
    "unknown version": ({"print": '{"cniVersion": "5.0.0"}'}, 1, "5.0.0"),
    "a signal": ({"signal": signal.SIGKILL}, 100, "SIGKILL"),
    "a segfault": ({"signal": signal.SIGSEGV}, 100, "SIGSEGV"),
    "status 3": ({"exit": 3, "stderr": "because"}, 100, "status 3"),
    "failure with garbage": ({"print": "oops", "exit": 1}, 100, "no CNI error"),
    **{
        f"code {code}": ({"code": code, "msg": "because"}, code, "because")
        for code in (1, 2, 3, 4, 5, 6, 7, 11, 50, 51, 100, 101, 999)
    },
}


@pytest.mark.parametrize(("behaviour", "code", "named"), DELEGATES.values(), ids=DELEGATES.keys())
def test_a_delegate_that_misbehaves(
    recording_node: Node, behaviour: dict[str, Any], code: int, named: str
) -> None:
    """CNI-ERR-3, CNI-ERR-4, CNI-VER-10, ROB-2, ROB-6."""
    node = recording_node
    node.define("bad", noop_network(node.root, "bad", onADD=behaviour))
    pod = node.pod("bad")
    reply = node.add(pod)
    assert (reply.exit_code, reply.code) == (1, code)
    for text in (named, "default/bad", "net1", "noop", pod.name):
        assert text in reply.msg
    assert left(node) == NOTHING
    deleted = [c["env"]["CNI_IFNAME"] for c in node.noop_calls() if c["command"] == "DEL"]
    assert deleted == ["net1", "eth0"]


def test_a_delegate_that_is_missing(recording_node: Node) -> None:
    """CNI-ERR-7."""
    recording_node.define("bad", {"type": "nowhere"})
    reply = recording_node.add(recording_node.pod("bad"))
    assert (reply.exit_code, reply.code) == (1, 50)
    assert "'nowhere'" in reply.msg
    assert recording_node.noop_calls() == []
    assert left(recording_node) == NOTHING


def test_a_delegate_that_is_not_executable(recording_node: Node) -> None:
    recording_node.plugin("plain").chmod(0o644)
    recording_node.define("bad", {"type": "plain"})
    reply = recording_node.add(recording_node.pod("bad"))
    assert (reply.exit_code, reply.code) == (1, 50)
    assert "plain" in reply.msg
    assert recording_node.noop_calls() == []
    assert left(recording_node) == NOTHING


def test_a_delegate_whose_interpreter_is_missing(recording_node: Node) -> None:
    """It is found and can't be started: the others are undone."""
    recording_node.plugin("orphan").write_text("#!/no/such/interpreter\n")
    recording_node.define("bad", {"type": "orphan"})
    reply = recording_node.add(recording_node.pod("bad"))
    assert (reply.exit_code, reply.code) == (1, 50)
    assert "orphan" in reply.msg
    assert left(recording_node) == NOTHING


DEPTHS = [100, 150, *range(184, 208, 3), 400, 900, 960]


@pytest.mark.parametrize("place", ["definition", "result", "cni-args"])
def test_nesting_is_passed_on_or_refused_and_never_a_defect(
    recording_node: Node, place: str
) -> None:
    """CNI-IN-5, CNI-DLG-4, ROB-2: also at the edge of what can be decoded."""
    node = recording_node
    codes = []
    for depth in DEPTHS:
        nested = "[" * depth + "]" * depth
        annotation = "deep"
        keys: dict[str, Any] = {}
        if place == "definition":
            keys = {"x": "NESTED"}
        elif place == "result":
            keys = {"onADD": {"print": '{"cniVersion": "1.0.0", "x": NESTED}'}}
        else:
            annotation = '[{"name": "deep", "cni-args": {"x": NESTED}}]'
        text = json.dumps(noop_network(node.root, "deep", **keys))
        node.define("deep", text.replace('"NESTED"', nested).replace("NESTED", nested))
        pod = node.pod(annotation.replace("NESTED", nested))
        reply = node.add(pod)
        codes.append(reply.code)
        if reply.exit_code == 0:
            assert node.call("CHECK", pod).code in (0, 101)
            assert node.delete(pod).exit_code == 0
        assert left(node) == NOTHING, depth
    assert codes[:2] == [0, 0]
    assert codes[-1] == 6
    assert set(codes) <= {0, 6}


def test_a_delegate_that_never_ends_is_killed_at_its_deadline(short_node: Node) -> None:
    node = short_node
    node.define("slow", noop_network(node.root, "slow", onADD={"sleep": 60}))
    reply = node.add(node.pod("slow"))
    assert (reply.exit_code, reply.code) == (1, 11)
    assert "deadlines.delegateSeconds" in reply.msg
    assert reply.took < 8
    assert left(node) == NOTHING


def test_a_child_that_holds_a_delegates_stdout_delays_nothing(recording_node: Node) -> None:
    node = recording_node
    node.define("parent", noop_network(node.root, "parent", onADD={"child": 30}))
    pod = node.pod("parent")
    reply = node.add(pod)
    assert reply.exit_code == 0, reply.stdout
    assert reply.took < 5
    assert node.delete(pod).took < 5
    assert left(node) == NOTHING


def test_a_delegate_may_answer_in_another_known_version(recording_node: Node) -> None:
    """CNI-VER-10."""
    node = recording_node
    old = {"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24"}}
    node.define("old", noop_network(node.root, "old", result=old))
    pod = node.pod("old")
    assert node.add(pod).exit_code == 0
    [entry] = [entry for entry in node.status(pod) if entry["name"] == "default/old"]
    assert (entry["interface"], entry["ips"]) == ("net1", ["10.1.2.3"])
    assert node.delete(pod).exit_code == 0


def test_a_mistyped_key_is_ignored_and_told(recording_node: Node) -> None:
    """NPWG-7: foreign keys are tolerated; in the log it is told which one may be meant."""
    node = recording_node
    node.define("extra", noop_network(node.root, "extra"))
    pod = node.pod('[{"name": "extra", "interfce": "data0"}]')
    assert node.add(pod).exit_code == 0
    assert (
        "networks[0]: the key 'interfce' is ignored; 'interface' may be meant"
        in node.log.read_text()
    )
    assert node.delete(pod).exit_code == 0
