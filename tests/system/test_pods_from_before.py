"""Pods that started before metaplugin was installed: named by Event and metric, untouched,
deletable; evicted where that is wanted (issue 7). With a real API server, and real plugins."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.controlplane import objects
from tests.controlplane.client import Client
from tests.controlplane.cluster import Cluster
from tests.controlplane.proxy import FaultProxy
from tests.manifests.documents import OPT_IN, RBAC, documents
from tests.outage.scene import recording_node, wait_until
from tests.system.node import DEBIAN_PLUGINS, Node, Pod, ip_json
from tests.system.test_monitoring import free_port, get, value
from tests.system.test_standalone import with_fallback

pytestmark = pytest.mark.system

NAME = "before"  # of the node, and of its pods' namespace
TAINT = "metaplugin.io/not-ready"
OTHER_TAINT = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
STATUS = "k8s.v1.cni.cncf.io/network-status"
OWNER = {
    "apiVersion": "apps/v1",
    "kind": "ReplicaSet",
    "name": "r",
    "uid": "00000000-0000-0000-0000-000000000001",
    "controller": True,
}
LOOKS_S = 75  # one look before the pods are known, the grace, one look after it; a busy machine


@pytest.fixture(scope="module")
def account(cluster: Cluster) -> str:
    """A token of an account that has rbac.yaml's rights and those of each opt-in."""
    for path in (RBAC, *OPT_IN):
        for document in documents(path):
            metadata = document["metadata"]
            if document["kind"] == "ServiceAccount":
                metadata["name"] = "opted-in"
            elif document["kind"] == "ClusterRoleBinding":
                metadata["name"] += "-opted-in"
                document["subjects"][0]["name"] = "opted-in"
            cluster.admin.apply(document)
    return cluster.token("opted-in")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def node(cluster: Cluster, proxy: FaultProxy, account: str, port: int) -> Iterator[Node]:
    """A node that is registered with the startup taint and another; its daemon doesn't run."""
    node = recording_node(cluster, proxy.url, NAME)
    cluster.kubeconfig(node.root / "kubeconfig", token=account, url=proxy.url)
    node.daemon_keys["metrics"] = {"listen": f"127.0.0.1:{port}"}
    taints = [{"key": TAINT, "effect": "NoSchedule"}, OTHER_TAINT]
    cluster.admin.create(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NAME},
            "spec": {"taints": taints},
        }
    )
    yield node
    sys.stdout.write(node.log.read_text() if node.log.exists() else "the daemon never ran")
    node.close()
    for path in (objects.pods(NAME), f"/api/v1/namespaces/{NAME}/events"):
        cluster.admin.delete(path)
    cluster.admin.delete(f"/api/v1/nodes/{NAME}")


def configure(node: Node, **keys: str) -> None:
    node.daemon_keys["kubernetes"] = node.daemon_keys["kubernetes"] | keys


def run(
    admin: Client, name: str, *, metadata: dict[str, Any], spec: dict[str, Any], phase: str
) -> None:
    """Make a pod with a network in its annotation, and say what a kubelet says once it runs."""
    pod = objects.pod(name, "storage", node=NAME, in_namespace=NAME)
    pod["metadata"]["annotations"] |= metadata.pop("annotations", {})
    pod["metadata"] |= metadata
    pod["spec"] |= spec
    admin.create(pod)
    address = {"podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}]}
    status = {"phase": phase, **({} if name == "starting" else address)}
    admin.patch(f"{objects.pods(NAME)}/{name}/status", {"status": status})


def pods_of_all_kinds(admin: Client) -> None:
    """Of these `owned`, `bare` and `initialising` are what we look for."""
    multus = json.dumps([{"name": "cbr0", "interface": "eth0", "default": True}])
    kinds: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
        "owned": ({"ownerReferences": [OWNER]}, {}, "Running"),
        "bare": ({}, {}, "Running"),
        "initialising": ({}, {}, "Pending"),
        "starting": ({}, {}, "Pending"),
        "done": ({}, {"restartPolicy": "Never"}, "Succeeded"),
        "multus": ({"annotations": {STATUS: multus}}, {}, "Running"),
        "host": ({}, {"hostNetwork": True}, "Running"),
        "plain": ({"annotations": {objects.NETWORKS: ""}}, {}, "Running"),
    }
    for name, (metadata, spec, phase) in kinds.items():
        run(admin, name, metadata=metadata, spec=spec, phase=phase)


def events(admin: Client, reason: str) -> dict[str, list[str]]:
    """Return the messages of the events with that reason, by pod."""
    found: dict[str, list[str]] = {}
    for event in admin.get(f"/api/v1/namespaces/{NAME}/events")["items"]:
        if event["reason"] == reason:
            found.setdefault(event["involvedObject"]["name"], []).append(event["message"])
    return found


def taints(admin: Client) -> list[str]:
    """Return the node's taints but that which the server itself gives to new nodes."""
    found = admin.get(f"/api/v1/nodes/{NAME}")["spec"].get("taints", [])
    return [t["key"] for t in found if not t["key"].startswith("node.kubernetes.io/")]


@pytest.mark.timeout(180)
def test_they_are_named_by_event_and_metric_and_nothing_else_happens_to_them(
    node: Node, cluster: Cluster, proxy: FaultProxy, port: int
) -> None:
    pods_of_all_kinds(cluster.admin)
    node.start()
    expected = {"owned", "bare", "initialising"}
    wait_until(lambda: events(cluster.admin, "NetworksNotAttached").keys() == expected, LOOKS_S)
    assert value(port, "metaplugin_pods_without_networks") == 3
    [message] = events(cluster.admin, "NetworksNotAttached")["bare"]
    assert "Delete the pod" in message
    assert message.endswith(f"It lacks: {NAME}/storage")
    assert {request.verb for request in proxy.requests} <= {"get", "list", "watch", "create"}
    assert proxy.count("create", "pods/eviction") == 0
    assert taints(cluster.admin) == [TAINT, "dedicated"]  # nobody asked to have it removed
    cluster.admin.delete(f"{objects.pods(NAME)}/bare")
    wait_until(lambda: value(port, "metaplugin_pods_without_networks") == 2)
    assert value(port, "metaplugin_watched_objects", resource="pods") == 7
    assert value(port, "metaplugin_api_up") == 1


@pytest.mark.timeout(180)
def test_those_that_a_controller_replaces_are_evicted_where_that_is_wanted(
    node: Node, cluster: Cluster, port: int
) -> None:
    pods_of_all_kinds(cluster.admin)
    configure(node, onMissing="evict")
    node.start()
    path = f"{objects.pods(NAME)}/owned"
    wait_until(lambda: "deletionTimestamp" in cluster.admin.get(path)["metadata"], LOOKS_S)
    wait_until(lambda: events(cluster.admin, "EvictedForNetworks").keys() == {"owned"})
    others = cluster.admin.get(objects.pods(NAME))["items"]
    going = {p["metadata"]["name"] for p in others if "deletionTimestamp" in p["metadata"]}
    assert going == {"owned"}
    assert value(port, "metaplugin_evictions_total", outcome="accepted") == 1


@pytest.mark.timeout(180)
def test_a_disruption_budget_is_kept(node: Node, cluster: Cluster, port: int) -> None:
    labels = {"labels": {"app": "held"}, "ownerReferences": [OWNER]}
    run(cluster.admin, "held", metadata=labels, spec={}, phase="Running")
    cluster.admin.create(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "held", "namespace": NAME},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "held"}}},
        }
    )
    configure(node, onMissing="evict")
    node.start()
    refused = ("metaplugin_evictions_total", "refused")
    wait_until(lambda: (value(port, refused[0], outcome=refused[1]) or 0) >= 1, LOOKS_S)
    assert "deletionTimestamp" not in cluster.admin.get(f"{objects.pods(NAME)}/held")["metadata"]


def test_the_startup_taint_goes_once_the_daemon_is_ready(
    node: Node, cluster: Cluster, proxy: FaultProxy, port: int
) -> None:
    """Others' taints stay."""
    configure(node, startupTaint=TAINT)
    proxy.answer(403, matches=lambda request: request.verb == "list")
    node.start()
    wait_until(lambda: get(port, "/healthz")[0] == 200)
    assert get(port, "/readyz")[1].startswith("[-] cluster: not listed yet: ")
    assert taints(cluster.admin) == [TAINT, "dedicated"]
    proxy.heal()
    wait_until(lambda: taints(cluster.admin) == ["dedicated"], 40)
    assert get(port, "/readyz")[0] == 200
    assert proxy.count("patch", "nodes") == 1


def test_a_node_without_the_taint_is_left_alone(
    node: Node, cluster: Cluster, proxy: FaultProxy
) -> None:
    cluster.admin.patch(f"/api/v1/nodes/{NAME}", {"spec": {"taints": [OTHER_TAINT]}})
    configure(node, startupTaint=TAINT)
    node.start()
    wait_until(lambda: proxy.count("get", "nodes") == 1)
    assert proxy.count("patch", "nodes") == 0


def test_a_node_that_others_change_meanwhile_loses_the_one_taint_alone(
    node: Node, cluster: Cluster, proxy: FaultProxy
) -> None:
    """A list is replaced whole: 409 where it isn't any more what was read."""
    proxy.answer(409, matches=lambda request: request.verb == "patch")
    configure(node, startupTaint=TAINT)
    node.start()
    wait_until(lambda: proxy.count("patch", "nodes") >= 1)
    third = {"key": "third", "effect": "NoExecute"}
    changed = [{"key": TAINT, "effect": "NoSchedule"}, OTHER_TAINT, third]
    cluster.admin.patch(f"/api/v1/nodes/{NAME}", {"spec": {"taints": changed}})
    proxy.heal()
    wait_until(lambda: taints(cluster.admin) == ["dedicated", "third"], 40)


# --- their DEL and CHECK, on a node of real plugins


def attach_without_us(node: Node, pod: Pod) -> None:
    """Do what the runtime did when bridge's list was its first configuration."""
    [plugin] = node.default["plugins"]
    config = {"cniVersion": "1.0.0", "name": node.default["name"], **plugin}
    config.pop("capabilities")
    subprocess.run(
        [DEBIAN_PLUGINS / "bridge"],
        env=node.environment("ADD", pod),
        input=json.dumps(config).encode(),
        check=True,
        capture_output=True,
    )
    assert len(node.leases()) == 1
    assert node.pod_links(pod) == {"eth0"}


@pytest.mark.parametrize("annotation", ["", "macvlan"], ids=["plain", "that lacks a network"])
@pytest.mark.parametrize("with_netns", [True, False], ids=["netns there", "netns gone"])
def test_their_del_releases_what_the_default_network_gave(
    idle_node: Node, annotation: str, *, with_netns: bool
) -> None:
    pod = idle_node.pod(annotation)
    links = idle_node.host_links()
    attach_without_us(idle_node, pod)
    idle_node.start()
    gone = {} if with_netns else {"CNI_NETNS": ""}
    if not with_netns:
        subprocess.run(["ip", "netns", "del", pod.netns.name], check=True)
    assert idle_node.delete(pod, environment=gone).exit_code == 0
    assert idle_node.leases() == []
    wait_until(lambda: idle_node.host_links() == links)  # a namespace ends in the background
    assert idle_node.records() == []
    if with_netns:
        assert idle_node.pod_links(pod) == set()
    assert idle_node.delete(pod, environment=gone).exit_code == 0


def test_their_check_says_that_nothing_is_known_of_them(idle_node: Node) -> None:
    pod = idle_node.pod("macvlan")
    attach_without_us(idle_node, pod)
    idle_node.start()
    reply = idle_node.call("CHECK", pod)
    assert reply.exit_code == 1
    assert reply.code == 3
    assert ip_json("link", "show", "eth0", namespace=pod.netns.name)


def test_their_del_finds_the_fallback_where_no_daemon_runs(idle_node: Node) -> None:
    """While the DaemonSet is updated, say: the shim alone doesn't know what they have."""
    pod = idle_node.pod("macvlan")
    attach_without_us(idle_node, pod)
    idle_node.write_config()
    with_fallback(idle_node, wait_ms=0)
    assert idle_node.delete(pod).exit_code == 0
    assert idle_node.leases() == []
    assert idle_node.pod_links(pod) == set()


def test_the_fallback_is_asked_once_a_del(idle_node: Node) -> None:
    """What we have attached needs none, nor does the repeat of its DEL: a tombstone is there."""
    pod = idle_node.pod("macvlan")
    idle_node.start()
    assert idle_node.add(pod).exit_code == 0
    idle_node.stop()
    asked = idle_node.root / "asked"
    fallback = idle_node.root / "fallback"
    fallback.write_text(f"#!/bin/sh\ntouch {asked}\n")
    fallback.chmod(0o755)
    idle_node.configure_shim(fallback=fallback, fallback_config=idle_node.root / "daemon.yaml")
    assert idle_node.delete(pod).exit_code == 0
    assert idle_node.delete(pod).exit_code == 0
    assert not asked.exists()
    assert idle_node.delete(idle_node.pod()).exit_code == 0
    assert asked.exists()
