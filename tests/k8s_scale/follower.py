"""A real daemon that follows an API server, and what it costs the node."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.k8s_scale.fleet import NODE_NAME
from tests.k8s_scale.upstream import Upstream
from tests.system.node import Node, bridge_network, new_root

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
WAIT_S = 60.0


class Follower:
    """A node whose cluster is an API server. Its daemon starts with `start`, and again."""

    def __init__(self, upstream: Upstream) -> None:
        root = new_root()
        self.node = Node(root, bridge_network(root, subnet="10.90.0.0/16"))
        self._upstream = upstream
        upstream.kubeconfig(root / "kubeconfig", observed=True)
        self.node.daemon_keys |= {
            "manifests": None,
            "kubernetes": {"kubeconfig": str(root / "kubeconfig"), "nodeName": NODE_NAME},
            "logLevel": "info",
        }

    def start(self) -> None:
        """Start the daemon; return when it serves."""
        self.node.log.write_text("")
        self.node.start()

    def restart(self, *, observed: bool) -> None:
        """Start it anew, connected to the observed end of the server or to the server itself."""
        self.stop()
        self._upstream.kubeconfig(self.node.root / "kubeconfig", observed=observed)
        self.start()
        self.wait_for(lambda: self.synced)

    @property
    def synced(self) -> bool:
        """Whether it has listed definitions and pods."""
        return self.node.log.read_text().count("msg=listed") == 2

    def stop(self) -> None:
        assert self.node.stop() == 0, self.node.log.read_text()

    def close(self) -> None:
        self.node.close()

    @property
    def pid(self) -> int:
        assert self.node.daemon is not None
        return self.node.daemon.pid

    def memory_mb(self, field: str = "VmRSS") -> float:
        """Return what the kernel says of the daemon's memory: VmRSS now, VmHWM at most."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        assert found is not None, status
        return int(found[1]) / 1024

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def remembered(self, kind: str) -> int:
        """Return how many objects state.db holds."""
        return self._query("SELECT count(*) FROM objects WHERE kind = ?", kind)

    def remembers(self, text: str, times: int = 1) -> bool:
        """Say whether so many definitions of state.db hold the text."""
        found = "SELECT count(*) FROM objects WHERE kind = 'definition' AND instr(content, ?)"
        return self._query(found, text) >= times

    def _query(self, statement: str, value: str) -> int:
        path = self.node.root / "state" / "state.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return int(database.execute(statement, (value,)).fetchone()[0])

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, self.node.log.read_text()
            time.sleep(0.005)
