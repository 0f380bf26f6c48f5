"""What is wrong in Multus v4.3.0's daemon, its installation and papers, must hold here (A25)."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from pathlib import Path

import pytest
import yaml

from metaplugin.daemon.cli import main
from metaplugin.daemon.config import ConfigurationError, load_config
from tests.parity.cluster_node import STATUS_ANNOTATION, ClusterNode, recording
from tests.system.node import REPOSITORY, Node, noop_network

DOCUMENTS = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "examples").glob("*.md")),
    *sorted((REPOSITORY / "deploy").glob("*.md")),
    *sorted((REPOSITORY / "tests").rglob("README.md")),
]


@pytest.mark.system
def test_a_daemon_with_a_users_own_configuration_runs_until_it_is_told_to_stop(
    idle_node: Node,
) -> None:
    """A25.8."""
    node = idle_node
    own = node.root / "users.conf"
    node.plugin("noop")
    plugin = noop_network(node.root)["plugins"][0]
    own.write_text(json.dumps(plugin | {"cniVersion": "1.0.0", "name": "own"}))
    node.daemon_keys["clusterNetwork"] = str(own)
    node.start()
    for _ in range(2):
        pod = node.pod("")
        assert node.add(pod).exit_code == 0
        assert node.delete(pod).exit_code == 0
    assert node.daemon is not None
    assert node.daemon.poll() is None
    assert node.stop() == 0


@pytest.mark.parametrize(
    ("key", "nearest"), [("cniConf", "confDir"), ("systemNamespace1", "systemNamespace")]
)
def test_a_key_that_nobody_reads_is_refused(tmp_path: Path, key: str, nearest: str) -> None:
    """A25.20: what a configuration says has an effect, or is an error that names the right key."""
    path = tmp_path / "daemon.yaml"
    path.write_text(yaml.safe_dump({key: "/x"}))
    with pytest.raises(ConfigurationError, match=f"{key}: unknown key.*'{nearest}'"):
        load_config(path)


@pytest.mark.system
def test_a_flag_counts(recording_node: Node) -> None:
    """A25.20: `--config` names the file that is read."""
    other = recording_node.root / "other.yaml"
    other.write_text("nonsense: 1\n")
    finished = recording_node.run_daemon(other)
    assert finished.returncode != 0
    assert "other.yaml: nonsense: unknown key" in finished.stderr


def test_the_daemon_may_do_what_it_does_and_no_more() -> None:
    """A25.23."""
    documents = yaml.safe_load_all((REPOSITORY / "deploy" / "base" / "rbac.yaml").read_text())
    rules = [rule for document in documents for rule in document.get("rules", [])]
    verbs = {
        (resource, verb)
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert "*" not in {word for pair in verbs for word in pair}
    of_definitions = {verb for kind, verb in verbs if "definitions" in kind}
    assert of_definitions == {"get", "list", "watch"}
    assert {kind for kind, verb in verbs if verb in {"patch", "create"}} == {
        "pods/status",
        "events",
    }


@pytest.mark.system
def test_an_annotation_costs_one_small_patch_and_rest_costs_nothing(
    cluster_node: ClusterNode,
) -> None:
    """A25.24: no resync, no PUT of a whole pod."""
    cluster_node.define("lan", recording(cluster_node.node, "lan", "1.1.1.3/24"))
    pod = cluster_node.pod("lan")
    assert cluster_node.add(pod).exit_code == 0
    cluster_node.status(pod)
    cluster_node.events(pod, 2)
    [patch] = [r for r in cluster_node.server.requests if r.resource == "pods/status"]
    assert patch.method == "PATCH"
    assert set(patch.body) == {"metadata"}
    assert set(patch.body["metadata"]["annotations"]) == {STATUS_ANNOTATION}
    before = cluster_node.server.tally()
    time.sleep(2.5)  # two of Multus's periods: nothing must come
    assert cluster_node.server.tally() == before
    assert cluster_node.node.delete(pod).exit_code == 0


@pytest.mark.system
def test_a_wrong_word_on_the_socket_ends_one_conversation(recording_node: Node) -> None:
    """A25.26, A25.25: shim and daemon exchange frames of known form (tests/unit/wire spells their
    bytes out); what isn't one harms nobody else."""
    for data in (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 64, b"\xff" * 64):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(recording_node.root / "run" / "daemon.sock"))
            connection.sendall(data)
            connection.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
    pod = recording_node.pod("")
    assert recording_node.add(pod).exit_code == 0
    assert recording_node.delete(pod).exit_code == 0


def test_what_the_runtime_is_given_is_one_list() -> None:
    """A25.29: a `.conflist` with plugins in it, and no second file beside it that could win."""
    installed = [
        path
        for path in (REPOSITORY / "examples").rglob("*.conf*")
        if '"type": "metaplugin"' in path.read_text()
    ]
    [path] = installed
    assert path.suffix == ".conflist"
    config = json.loads(path.read_text())
    assert [plugin["type"] for plugin in config["plugins"]] == ["metaplugin"]
    assert config["cniVersion"] >= "1.0.0"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_papers_name_nothing_that_is_not_there(path: Path) -> None:
    """A25.32: every link leads to a file, every `metaplugin` subcommand exists."""
    text = path.read_text()
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
    named = set(re.findall(r"`metaplugin ([a-z]+)", text))
    assert named <= set(main.commands)
