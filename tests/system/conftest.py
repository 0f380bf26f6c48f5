"""A node for each test that asks for one: default network a bridge, a second network over
macvlan."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kubelet.podresources import FakeKubelet
from tests.system.node import (
    Node,
    bridge_network,
    macvlan_network,
    new_root,
    noop_network,
    uplink,
)


@pytest.fixture
def eth1() -> Iterator[None]:
    """The node's interface that macvlan networks use."""
    with uplink():
        yield


@pytest.fixture
def idle_node(eth1: None) -> Iterator[Node]:
    """A node of real plugins whose daemon doesn't run yet."""
    root = new_root()
    node = Node(root, bridge_network(root))
    node.define("macvlan", macvlan_network(root))
    yield node
    sys.stdout.write(node.log.read_text() if node.log.exists() else "the daemon never ran")
    node.close()
    for link in ("br-cbr0",):
        subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)


@pytest.fixture
def node(idle_node: Node) -> Node:
    """A node of real plugins, its daemon serving."""
    idle_node.start()
    return idle_node


@pytest.fixture
def recording_node() -> Iterator[Node]:
    """A node whose default network is the recording plugin, its daemon serving."""
    root = new_root()
    node = Node(root, noop_network(root, "default-net"))
    node.plugin("noop")
    node.start()
    yield node
    sys.stdout.write(node.log.read_text())
    node.close()


@pytest.fixture
def kubelet() -> Iterator[FakeKubelet]:
    folder = new_root()
    with FakeKubelet(folder) as fake:
        fake.limited = False
        yield fake
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if not path.is_dir() else path.rmdir()
    folder.rmdir()


@pytest.fixture
def short_node() -> Iterator[Node]:
    """A recording node whose delegates get 1.5 seconds."""
    root = new_root()
    deadlines = {"delegateSeconds": 1.5, "requestSeconds": 20, "rollbackSeconds": 5}
    node = Node(root, noop_network(root, "default-net"), daemon_keys={"deadlines": deadlines})
    node.plugin("noop")
    node.start()
    yield node
    sys.stdout.write(node.log.read_text())
    node.close()
