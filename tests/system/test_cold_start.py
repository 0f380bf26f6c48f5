"""A node after a power loss, before its API server: what the installer has put on the disk is all
that there is (issue 7's drill)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.apiserver.server import ApiServer
from tests.install.host import make_tree
from tests.system.node import CLI, SHIM, Node, new_root
from tests.system.test_kubernetes import NODE, define, network, remembered, synced

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture
def installed_node(tmp_path: Path) -> Iterator[Node]:
    """A node that was served as a DaemonSet serves it, and has lost its power; no API server."""
    root = new_root()
    with ApiServer() as server:
        (root / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
        kubernetes = {"kubeconfig": str(root / "kubeconfig"), "nodeName": NODE}
        keys = {"manifests": None, "kubernetes": kubernetes}
        node = Node(root, network(root, "cbr0", "10.1.1.2/24"), daemon_keys=keys)
        node.plugin("noop")
        for name in ("lan", "unused"):
            define(server, name, network(root, name, "10.1.1.3/24"))
        node.start()
        synced(server)
        remembered(node, "unused")
        use(node)
        node.kill()
    install(node, tmp_path)
    shutil.rmtree(root / "run")
    yield node
    node.close()


def use(node: Node) -> None:
    """Have a pod come and go, and its network kept."""
    pod = node.pod("lan", namespace="default")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0
    kept, deadline = node.root / "state/definitions/default/lan", time.monotonic() + 20
    while not kept.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (node.root / "noop.log").unlink()


def install(node: Node, folder: Path) -> None:
    """Run the command as the init container does: the daemon's file is the pod's, its credentials
    are the pod's too; a program of the test's is in the place of the image's."""
    config = yaml.safe_load((node.root / "daemon.yaml").read_text())
    installation = {"cniConfDir": str(node.root), "addWaitMs": 300}
    config |= {"kubernetes": {}, "installation": installation}
    source = folder / "daemon.yaml"
    source.write_text(yaml.safe_dump(config))
    program = f'exec {sys.executable} -m metaplugin.daemon.cli "$@"'
    options = {
        "--config": node.root / "host" / "daemon.yaml",
        "--from-config": source,
        "--bin-dir": node.root / "bin",
        "--conf-dir": node.root,
        "--runtime-tree": make_tree(folder / "tree", "1", program=program),
        "--shim": SHIM,
    }
    words = [str(word) for pair in options.items() for word in pair]
    done = subprocess.run([*CLI, "install", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def lose_database(node: Node) -> None:
    for path in (node.root / "state").glob("state.db*"):
        path.unlink()


@pytest.mark.parametrize("lost", ["nothing", "state.db"])
def test_a_static_pod_gets_its_networks_from_what_is_on_the_disk(
    installed_node: Node, lost: str
) -> None:
    """MULTUS-30: no daemon, no API server, no token: runtime, configuration and last known copies
    are the host's; what pods have used is kept beside state.db."""
    if lost == "state.db":
        lose_database(installed_node)
    pod = installed_node.pod("lan", namespace="default")
    added = installed_node.add(pod)
    assert added.exit_code == 0, added.stdout + added.stderr.encode()
    calls = [(call["env"]["CNI_IFNAME"], call["command"]) for call in installed_node.noop_calls()]
    assert calls == [("eth0", "ADD"), ("net1", "ADD")]
    assert installed_node.delete(pod).exit_code == 0
    assert installed_node.records() == []


def test_what_nobody_remembers_is_told_to_wait(installed_node: Node) -> None:
    """CNI-ERR-8: a pod isn't started without its networks; the runtime tries again."""
    lose_database(installed_node)
    added = installed_node.add(installed_node.pod("unused", namespace="default"))
    assert added.code == 11, added.stdout
    assert installed_node.noop_calls() == []
    plain = installed_node.pod("")
    assert installed_node.add(plain).exit_code == 0
