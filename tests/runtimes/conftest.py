"""The node that a runtime stands on is that of the system tests."""

from __future__ import annotations

from tests.system.conftest import eth1, idle_node, node

__all__ = ["eth1", "idle_node", "node"]
