"""What the operator's configuration lets networks and pods do, end to end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.node import Node, noop_network

pytestmark = pytest.mark.system


def configured(node: Node, **keys: Any) -> None:
    node.daemon_keys = keys
    node.restart()


def refused(node: Node, annotation: str) -> str:
    """Return the error of a pod that is refused before anything has been run for it."""
    reply = node.add(node.pod(annotation))
    assert (reply.exit_code, reply.code) == (1, 7)
    assert node.noop_calls() == []
    assert node.records() == []
    return f"{reply.msg} ({reply.json.get('details')})"


def test_a_namespaces_networks_may_use_its_plugins_alone(recording_node: Node) -> None:
    """NPWG-56, ROB-5: configurations on the node's disk are the operator's own."""
    node = recording_node
    for namespace in ("default", "net-system"):
        node.define("extra", noop_network(node.root, "extra"), namespace=namespace)
    node.define("on-disk", "")
    (node.root / "net.d" / "x.conflist").write_text(json.dumps(noop_network(node.root, "on-disk")))
    policy = {"allowedPlugins": {"net-system": ["noop"], "*": ["macvlan", "host-local"]}}
    configured(node, policy=policy, globalNamespaces=["net-system"])
    text = refused(node, "extra")
    assert "net-attach-def default/extra: plugins[0].type" in text
    assert "allowed are host-local, macvlan" in text
    pod = node.pod("net-system/extra, on-disk")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0


def test_keys_that_are_root_file_access_can_be_denied(recording_node: Node) -> None:
    """ROB-5, NPWG-19: also in a pod's cni-args."""
    node = recording_node
    ipam = {"type": "host-local", "DataDir": "/etc/cron.d"}
    node.define("files", noop_network(node.root, "files", ipam=ipam))
    node.define("plain", {"cniVersion": "1.0.0", "type": "noop"})
    configured(node, policy={"deniedKeys": ["dataDir", "resolvConf", "kubeconfig"]})
    text = refused(node, "files")
    assert "net-attach-def default/files: plugins[0].ipam.DataDir" in text
    assert "policy.deniedKeys" in text
    text = refused(node, '[{"name": "plain", "cni-args": {"x": {"dataDir": "/"}}}]')
    assert "networks[0].cni-args.x.dataDir" in text
    pod = node.pod("plain")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0


def test_the_default_network_is_under_the_policy_too(recording_node: Node) -> None:
    """NPWG-56: where a net-attach-def is the default network."""
    node = recording_node
    node.define("main", noop_network(node.root, "main"), namespace="kube-system")
    configured(node, clusterNetwork="main", policy={"allowedPlugins": {"kube-system": ["bridge"]}})
    assert "kube-system/main: plugins[0].type" in refused(node, "")


def test_requests_without_a_capability_fail_unless_they_are_let_pass(recording_node: Node) -> None:
    """NPWG-12, NPWG-15, MULTUS-8: what Multus does is a key away."""
    node = recording_node
    node.define("plain", noop_network(node.root, "plain"))
    annotation = '[{"name": "plain", "ips": ["10.1.2.3/24"], "mac": "02:00:00:00:00:07"}]'
    text = refused(node, annotation)
    assert 'add "capabilities": {"ips": true, "mac": true} to a plugin of' in text
    assert "net-attach-def default/plain" in text
    configured(node, undeclaredCapabilities="warn")
    pod = node.pod(annotation)
    assert node.add(pod).exit_code == 0
    call = node.noop_calls()[1]
    assert "runtimeConfig" not in json.loads(call["stdin"])
    assert call["env"]["CNI_ARGS"].endswith(";IP=10.1.2.3/24;MAC=02:00:00:00:00:07")
    assert 'requests="ips, mac"' in node.log.read_text()
    assert node.delete(pod).exit_code == 0


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"policy": {"allowedPlugin": {}}}, "policy.allowedPlugin: unknown key; the nearest"),
        ({"policy": {"allowedPlugins": {"a": "macvlan"}}}, "policy.allowedPlugins.a"),
        ({"policy": {"deniedKeys": [1]}}, "policy.deniedKeys.0"),
        ({"undeclaredCapabilities": "ignore"}, "undeclaredCapabilities: "),
    ],
)
def test_a_malformed_policy_keeps_the_daemon_from_starting(
    idle_node: Node, keys: dict[str, Any], named: str
) -> None:
    idle_node.daemon_keys = keys
    idle_node.write_config()
    ended = idle_node.run_daemon(idle_node.root / "daemon.yaml")
    assert ended.returncode != 0
    assert named in ended.stderr
