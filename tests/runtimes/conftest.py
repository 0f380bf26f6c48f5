"""The node that a runtime stands on is that of the system tests, with networks that leave more
traces: masquerading, host ports, a second bridge."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.runtimes.containerd import Containerd, running
from tests.runtimes.networks import write_networks
from tests.system.conftest import eth1, idle_node, node
from tests.system.node import Node

__all__ = ["eth1", "idle_node", "node"]


@pytest.fixture
def busy_node(node: Node) -> Iterator[Node]:
    """A serving node whose pods leave links, leases and iptables' rules outside themselves."""
    write_networks(node)
    yield node
    subprocess.run(["ip", "link", "del", "br-second"], check=False, capture_output=True)


@pytest.fixture
def containerd(busy_node: Node) -> Iterator[Containerd]:
    """A running containerd whose pods metaplugin attaches, its image imported."""
    with running(busy_node) as started:
        yield started
