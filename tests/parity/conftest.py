"""Nodes for the tests of parity: the system tests', and one that follows an API server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.apiserver.server import ApiServer
from tests.parity.cluster_node import NODE_NAME, ClusterNode, recording
from tests.system.conftest import eth1, idle_node, node, recording_node
from tests.system.node import Node, new_root, noop_network

__all__ = ["eth1", "idle_node", "node", "recording_node"]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def idle_cluster_node(server: ApiServer) -> Iterator[ClusterNode]:
    """A recording node that is to follow the server, its daemon not started; its default network,
    weave1, gives 1.1.1.2."""
    root = new_root()
    (root / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
    kubernetes = {"kubeconfig": str(root / "kubeconfig"), "nodeName": NODE_NAME}
    keys = {"manifests": None, "kubernetes": kubernetes}
    node = Node(root, noop_network(root, "weave1"), daemon_keys=keys)
    node.plugin("noop")
    (root / "default.conflist").write_text(json.dumps(recording(node, "weave1", "1.1.1.2/24")))
    yield ClusterNode(node, server)
    sys.stdout.write(node.log.read_text() if node.log.exists() else "the daemon never ran")
    node.close()


@pytest.fixture
def cluster_node(idle_cluster_node: ClusterNode) -> ClusterNode:
    """A recording node that follows the server."""
    idle_cluster_node.node.start()
    server = idle_cluster_node.server
    server.wait_for(lambda: len(server.open_watches()) == 2)
    return idle_cluster_node
