"""A node whose networks name no resource: the kubelet is nothing to it (issue 6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.node import Node

pytestmark = pytest.mark.system


def test_a_daemon_without_device_networks_never_loads_grpc(node: Node) -> None:
    pod = node.pod("macvlan")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0
    assert node.daemon is not None
    maps = Path(f"/proc/{node.daemon.pid}/maps").read_text()
    assert "pydantic_core" in maps  # what is imported is there
    assert "cygrpc" not in maps
