"""What a crash or a stranger leaves in the daemon's files: it starts, works, and other pods don't
suffer."""

from __future__ import annotations

import pytest

from tests.system.node import Node, Pod, noop_network

pytestmark = pytest.mark.system


def works(node: Node, pod: Pod) -> None:
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0
    assert (node.records(), node.locks()) == ([], [])


def test_a_daemon_works_with_a_database_cut_or_changed_anywhere(recording_node: Node) -> None:
    """ROB-7, DESIGN section 4; tests/unit/state does the same without a daemon, more finely."""
    node = recording_node
    node.define("net", noop_network(node.root, "net"))
    works(node, node.pod("net"))
    assert node.stop() == 0
    path = node.root / "state" / "state.db"
    content = path.read_bytes()
    middle, written = len(content) // 2, [at for at in range(len(content)) if content[at]]
    damaged = [content[:50], content[:middle], content[:-1]]
    damaged += [
        content[:at] + bytes([content[at] ^ 0x81]) + content[at + 1 :]
        for at in written[:: len(written) // 5]
    ]
    for bytes_on_disk in damaged:
        path.write_bytes(bytes_on_disk)
        node.start()
        works(node, node.pod("net"))
        assert node.stop() == 0


MANIFESTS = {
    "deep": "a: " + "[" * 200_000,
    "deep block": "".join(" " * depth + "a:\n" for depth in range(300)),
    "namespace a list": "kind: Pod\nmetadata: {name: x, namespace: [a]}\n",
    "kind a list": "kind: [Pod]\n",
    "items a number": "kind: List\nitems: 5\n",
    "key a list": "? [a]\n: b\n",
    "not utf-8": "a: \udcff\n",
}


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_manifest_that_can_not_be_read_harms_no_pod_that_needs_it_not(
    recording_node: Node, text: str
) -> None:
    """ROB-2, ROB-5: found by fuzzing; one of them ended the daemon."""
    node = recording_node
    node.define("net", noop_network(node.root, "net"))
    (node.root / "manifests" / "a.yaml").write_bytes(text.encode(errors="surrogateescape"))
    works(node, node.pod("net"))
    reply = node.add(node.pod("nowhere"))
    assert reply.code in (7, 11)
    assert node.daemon is not None
    assert node.daemon.poll() is None


def test_arguments_that_are_no_text_are_refused(recording_node: Node) -> None:
    """CNI-ENV-8, ROB-2: a file of that name could not be written."""
    pod = recording_node.pod("")
    arguments = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=a\udcff"
    reply = recording_node.call("ADD", pod, CNI_ARGS=arguments)
    assert (reply.code, "CNI_ARGS" in reply.msg) == (4, True)
    assert recording_node.records() == []


@pytest.mark.parametrize("name", ["/etc/a\0b", "\ud800", "/\ud800"], ids=ascii)
def test_a_default_network_of_no_possible_name_is_refused(recording_node: Node, name: str) -> None:
    """ROB-2."""
    node, pod = recording_node, recording_node.pod("")
    reply = node.add(pod, stdin=node.stdin(pod, clusterNetwork=name))
    assert (reply.code, "clusterNetwork" in reply.msg) == (7, True)
