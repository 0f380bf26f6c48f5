"""metaplugin installed on the demo's node as on a real one, below one folder, and its daemon."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from metaplugin.demo.claims import NotSoError
from metaplugin.demo.cluster import Pod

START_LIMIT_S = 15
STOP_LIMIT_S = 15
LOG_LINES = 12
SOCKET = Path("/run/metaplugin/daemon.sock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Where things are on the node; the shim's and the daemon's other paths are their defaults."""

    root: Path
    examples: Path

    @property
    def plugins(self) -> Path:
        return self.root / "bin"

    @property
    def status_folder(self) -> Path:
        return self.root / "status"

    @property
    def log(self) -> Path:
        return self.root / "daemon.log"

    def plugin_config(self) -> dict[str, Any]:
        """Return the plugin configuration that a runtime derives from the list of one plugin."""
        listed = json.loads((self.examples / "cluster" / "metaplugin.conflist").read_text())
        identity = {"name": listed["name"], "cniVersion": listed["cniVersion"]}
        return {**listed["plugins"][0], **identity}

    def status(self, pod: Pod) -> list[dict[str, Any]]:
        """Return the network-status written for a pod; raise NotSoError without one."""
        path = self.status_folder / f"{pod.namespace}_{pod.name}.yaml"
        if not path.exists():
            raise NotSoError(f"{pod}: no network-status was written")
        annotations = yaml.safe_load(path.read_text())["metadata"]["annotations"]
        status = json.loads(annotations["k8s.v1.cni.cncf.io/network-status"])
        if not isinstance(status, list):
            raise NotSoError(f"{pod}: its network-status is no list")
        return status

    def last_words(self) -> str:
        """Return the end of the daemon's log."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return "\n".join(lines[-LOG_LINES:])


def install(node: Node, shim: Path) -> None:
    """Put shim and configurations in place; raise NotSoError where something is missing."""
    if not shim.is_file():
        raise NotSoError(f"{shim}: the shim isn't built; `make setup` does")
    for folder in (node.plugins, node.root / "net.d"):
        folder.mkdir(mode=0o755, parents=True)
    shutil.copy(shim, node.plugins / "metaplugin")
    configuration = node.plugins / "metaplugin.conf"
    devices = node.root / "devinfo"  # the node's own may have files of pods that aren't ours
    configuration.write_text(
        f"# Ten seconds for a demo, not thirty.\nadd_wait_ms=10000\ndevice_info_dir={devices}\n"
    )
    configuration.chmod(0o644)
    shutil.copy(node.examples / "cluster" / "default-network.conflist", node.root / "net.d")
    daemon = yaml.safe_load((node.examples / "cluster" / "daemon.yaml").read_text())
    manifests = {"folder": str(node.examples), "statusFolder": str(node.status_folder)}
    own = {
        "confDir": str(node.root / "net.d"),
        "manifests": manifests,
        "deviceInfoDir": str(devices),
    }
    (node.root / "daemon.yaml").write_text(yaml.safe_dump(daemon | own))


@contextlib.contextmanager
def running_daemon(node: Node) -> Iterator[subprocess.Popen[bytes]]:
    """Run `metaplugin daemon`; it is killed at the end if `stop` hasn't ended it."""
    program = [sys.executable, "-m", "metaplugin.daemon.cli", "daemon"]
    with node.log.open("ab") as log:
        daemon = subprocess.Popen(
            [*program, "--config", str(node.root / "daemon.yaml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops it in order
        )
    try:
        _wait_until_it_serves(daemon)
        yield daemon
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()


def _wait_until_it_serves(daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not SOCKET.exists():
        if daemon.poll() is not None:
            raise NotSoError(f"the daemon ended at once, with exit code {daemon.returncode}")
        if time.monotonic() > deadline:
            raise NotSoError(f"the daemon doesn't serve after {START_LIMIT_S} s")
        time.sleep(0.02)  # between two processes there is no event for it


def stop(daemon: subprocess.Popen[bytes]) -> None:
    """Stop the daemon as an operator does, by SIGTERM; raise NotSoError unless it ends well."""
    daemon.terminate()
    try:
        code = daemon.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired as exc:
        raise NotSoError(f"the daemon didn't end within {STOP_LIMIT_S} s of SIGTERM") from exc
    if code != 0:
        raise NotSoError(f"the daemon ended with exit code {code} on SIGTERM")
