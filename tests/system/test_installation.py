"""The daemon writes and keeps the runtime's configuration; the command takes everything away."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metaplugin.install.texts import GENERATED
from tests.controlplane.cluster import Cluster
from tests.outage.scene import Scene, recording_node, wait_until
from tests.system.node import CLI, SHIM, Node, new_root, noop_network

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

OTHER = {"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "noop"}]}


def installing(root: Path) -> dict[str, Any]:
    """Return the keys of a daemon that goes by the runtime's folder alone."""
    (root / "cni").mkdir()
    return {"installation": {"cniConfDir": str(root / "cni")}, "clusterNetwork": ""}


@pytest.fixture
def kept_node() -> Iterator[Node]:
    """A node whose default network is in the runtime's folder, its daemon not running."""
    root = new_root()
    default = noop_network(root, "default-net", capabilities={"portMappings": True})
    node = Node(root, default, daemon_keys=installing(root))
    node.plugin("noop")
    yield node
    sys.stdout.write(node.log.read_text() if node.log.exists() else "the daemon never ran")
    node.close()


def file(node: Node, name: str = "00-metaplugin.conflist") -> Path:
    return node.root / "cni" / name


def add_default(node: Node, **keys: Any) -> None:
    """Write the default network's file as its own installer would, or write it anew."""
    plugin = node.default["plugins"][0] | keys
    temporary = file(node, "new")
    temporary.write_text(json.dumps(node.default | {"plugins": [plugin]}))
    temporary.rename(file(node, "10-default.conflist"))


def capabilities(node: Node) -> set[str]:
    [plugin] = json.loads(file(node).read_text())["plugins"]
    return set(plugin["capabilities"])


def until(condition: Callable[[], bool], node: Node, limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, node.log.read_text()
        time.sleep(0.05)


def test_the_configuration_is_there_once_pods_can_be_served_and_stays(kept_node: Node) -> None:
    """Issue 7, NPWG-50, MULTUS C3: written last, kept on shutdown; a pod attaches by the default
    network of the same folder."""
    kept_node.start()
    assert not file(kept_node).exists()
    until(lambda: "waiting for a default network" in kept_node.log.read_text(), kept_node)
    add_default(kept_node)
    until(file(kept_node).exists, kept_node)
    assert capabilities(kept_node) == {"portMappings", "io.kubernetes.cri.pod-annotations"}
    pod = kept_node.pod()
    assert kept_node.add(pod).exit_code == 0
    assert kept_node.delete(pod).exit_code == 0
    before = file(kept_node).stat()
    assert kept_node.stop() == 0
    kept_node.start()
    until(lambda: "found as it should be" in kept_node.log.read_text(), kept_node)
    assert file(kept_node).stat().st_ino == before.st_ino


def test_the_configuration_is_written_again_and_follows_the_default_network(
    kept_node: Node,
) -> None:
    """MULTUS C8, A7.6."""
    add_default(kept_node)
    kept_node.start()
    until(file(kept_node).exists, kept_node)
    file(kept_node).rename(file(kept_node, "00-metaplugin.conflist.cilium_bak"))
    until(file(kept_node).exists, kept_node, 10)
    assert "renamed to 00-metaplugin.conflist.cilium_bak" in kept_node.log.read_text()
    add_default(kept_node, capabilities={"bandwidth": True})
    until(lambda: "bandwidth" in capabilities(kept_node), kept_node, 10)
    file(kept_node, "10-default.conflist").unlink()
    until(lambda: "what is installed stays" in kept_node.log.read_text(), kept_node, 10)
    assert file(kept_node).exists()
    status = kept_node.call("STATUS", None, stdin=kept_node.stdin(None, "1.1.0"))
    assert status.code == 50
    assert "no network configuration" in status.msg


def test_a_real_api_server_takes_events_on_the_node(cluster: Cluster) -> None:
    """Issue 7: base/rbac.yaml suffices; kubectl looks for a node's events by its name as UID."""
    name = "keeping"
    node = recording_node(cluster, cluster.url, name)
    system = node.daemon_keys["clusterNetwork"]
    node.daemon_keys |= installing(node.root) | {"clusterNetwork": system}
    scene = Scene(cluster, node, name)
    try:
        scene.start(spare=1)
        until(file(node).exists, node)
        file(node).unlink()
        selector = f"involvedObject.kind=Node,involvedObject.uid={name}"
        path = f"/api/v1/namespaces/default/events?fieldSelector={selector}"
        wait_until(lambda: len(cluster.admin.get(path)["items"]) == 2)
        told = {(item["type"], item["reason"]) for item in cluster.admin.get(path)["items"]}
        assert told == {
            ("Normal", "CNIConfigurationWritten"),
            ("Warning", "CNIConfigurationRestored"),
        }
    finally:
        sys.stdout.write(node.log.read_text())
        scene.close()


def test_two_that_fight_are_told_of(kept_node: Node) -> None:
    """MULTUS C8: something renames our file whenever it is there, as Cilium does."""
    add_default(kept_node)
    kept_node.start()

    def fought() -> bool:
        if file(kept_node).exists():
            file(kept_node).rename(file(kept_node, "00-metaplugin.conflist.cilium_bak"))
        return "CNI configuration contested" in kept_node.log.read_text()

    until(fought, kept_node, 60)
    assert kept_node.log.read_text().count("CNI configuration restored") == 2
    pod = kept_node.pod()
    assert kept_node.add(pod).exit_code == 0
    assert kept_node.delete(pod).exit_code == 0


def test_from_a_virtual_environment_the_fallback_is_its_program(kept_node: Node) -> None:
    """Installed by hand, from a wheel: no runtime tree."""
    add_default(kept_node)
    kept_node.write_config()
    program = Path(sys.executable).with_name("metaplugin")
    paths = {"--config": "daemon.yaml", "--bin-dir": "bin", "--conf-dir": "cni"}
    words = [word for option, name in paths.items() for word in (option, kept_node.root / name)]
    command = [program, "install", *words, "--shim", SHIM, "--configuration"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"the shim starts {program}" in done.stdout
    assert f"fallback={program}\n" in (kept_node.root / "bin/metaplugin.conf").read_text()
    kept_node.start()
    until(lambda: "found as it should be" in kept_node.log.read_text(), kept_node)


# --- taking it away


def uninstall(node: Node, *options: str) -> subprocess.CompletedProcess[str]:
    paths = {"--config": "daemon.yaml", "--bin-dir": "bin", "--conf-dir": "cni"}
    words = [word for option, name in paths.items() for word in (option, str(node.root / name))]
    command = [*CLI, "uninstall", *words, *options]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture
def running_node(kept_node: Node) -> Node:
    """That node, served by a daemon that has written its configuration."""
    add_default(kept_node)
    kept_node.start()
    until(file(kept_node).exists, kept_node)
    return kept_node


def test_a_node_with_a_daemon_is_not_uninstalled(running_node: Node) -> None:
    done = uninstall(running_node)
    assert done.returncode == 1
    assert "a daemon runs" in done.stderr
    assert file(running_node).exists()


def test_a_node_with_attachments_is_not_uninstalled(running_node: Node) -> None:
    """Runtimes take the configuration of the moment for a DEL: it would be the default network's,
    and extra networks would leak."""
    pod = running_node.pod()
    assert running_node.add(pod).exit_code == 0
    running_node.stop()
    done = uninstall(running_node)
    assert done.returncode == 1
    assert "pod default/pod1" in done.stderr
    assert "kubectl drain" in done.stderr
    assert running_node.shim.exists()
    assert file(running_node).exists()
    assert running_node.delete(pod).exit_code == 0
    done = uninstall(running_node)
    assert done.returncode == 0, done.stderr


def test_a_damaged_record_keeps_a_node_from_being_uninstalled(running_node: Node) -> None:
    pod = running_node.pod()
    running_node.add(pod)
    running_node.stop()
    [record] = (running_node.root / "state" / "attachments").iterdir()
    record.write_bytes(b"torn")
    done = uninstall(running_node)
    assert done.returncode == 1
    assert "the record is damaged" in done.stderr


def test_what_was_installed_goes_and_the_state_stays(running_node: Node) -> None:
    running_node.stop()
    (running_node.root / "state/runtime/1").mkdir(parents=True)
    file(running_node, "00-metaplugin.conflist.cilium_bak").write_bytes(
        file(running_node).read_bytes()
    )
    file(running_node, "90-own.conf").write_text('{"type": "metaplugin"}')
    (running_node.root / "run/.daemon.sock.7").touch()  # of one killed in its start
    done = uninstall(running_node)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (running_node.root / "cni").iterdir()] == ["10-default.conflist"]
    assert "10-default.conflist is what the runtime goes by now" in done.stdout
    assert not running_node.shim.exists()
    assert running_node.entries("bin") == []
    assert not (running_node.root / "run").exists()
    assert running_node.entries("state") == ["state.db"]
    assert (running_node.root / "daemon.yaml").exists(), "an administrator's own"
    assert uninstall(running_node).returncode == 0


def test_force_and_purge_leave_nothing(running_node: Node) -> None:
    running_node.add(running_node.pod())
    running_node.signal_daemon(signal.SIGSTOP)
    config = running_node.root / "daemon.yaml"
    config.write_bytes(GENERATED + config.read_bytes())
    done = uninstall(running_node, "--force", "--purge")
    assert done.returncode == 0, done.stderr
    assert "a daemon runs" in done.stdout
    assert "would never be released" in done.stdout
    assert not (running_node.root / "state").exists()
    assert not config.exists()


def test_a_pod_that_starts_meanwhile_stops_the_removal(running_node: Node) -> None:
    """The window between the look at the records and the runtime's reload."""
    pod = running_node.pod()
    running_node.add(pod)
    running_node.stop()
    attachments = running_node.root / "state" / "attachments"
    hidden = running_node.root / "hidden"
    attachments.rename(hidden)
    content = file(running_node).read_bytes()
    command = [*CLI, "uninstall", "--config", str(running_node.root / "daemon.yaml")]
    command += ["--bin-dir", str(running_node.root / "bin")]
    command += ["--conf-dir", str(running_node.root / "cni")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: not file(running_node).exists(), running_node)
        hidden.rename(attachments)
        _, errors = process.communicate()
    assert process.returncode == 1
    assert "pods have started meanwhile" in errors
    assert file(running_node).read_bytes() == content
    assert running_node.shim.exists()
    shutil.rmtree(attachments)
