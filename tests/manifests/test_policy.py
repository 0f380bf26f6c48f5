"""deploy/base/policy.yaml on a real API server, with tokens bound as a kubelet has them bound: each
daemon writes network-status to the pods of its own node, and nothing else anywhere; with
deploy/opt-in/startup-taint.yaml it also takes taints off that node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.controlplane import objects
from tests.controlplane.client import ApiError, Client, path_of
from tests.controlplane.cluster import ROOT, Cluster
from tests.manifests.documents import documents

POLICY = documents(ROOT / "deploy" / "base" / "policy.yaml")
TAINT = documents(ROOT / "deploy" / "opt-in" / "startup-taint.yaml")
STATUS = "k8s.v1.cni.cncf.io/network-status"
NODES = ("node-1", "node-2")
EFFECTIVE_S = 30  # an API server looks at its policies once a second

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

JSONObject = dict[str, Any]


def annotated(key: str = STATUS, value: str | None = "[]") -> JSONObject:
    return {"metadata": {"annotations": {key: value}}}


def status_of(pod: JSONObject) -> str:
    return f"{path_of(pod)}/status"


def refusal(client: Client, pod: JSONObject, changes: JSONObject) -> str:
    """Return why a user may not change a pod's status, "" where it may."""
    return refusal_at(client, status_of(pod), changes)


def refusal_at(client: Client, path: str, changes: JSONObject) -> str:
    try:
        client.patch(path, changes)
    except ApiError as error:
        if error.status != 403:
            raise
        return error.text
    return ""


def bound_token(cluster: Cluster, target: JSONObject) -> str:
    """Return a token of the daemon's account that is bound to a pod, as a kubelet asks for it, or
    to a node."""
    metadata = {key: target["metadata"][key] for key in ("name", "uid")}
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": target["kind"]} | metadata},
    }
    path = "/api/v1/namespaces/kube-system/serviceaccounts/metaplugin/token"
    return str(cluster.admin.request("POST", path, request)["status"]["token"])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + EFFECTIVE_S
    while not condition():
        assert time.monotonic() < deadline, "the policy doesn't take effect"
        time.sleep(0.05)


def created(cluster: Cluster, resource: JSONObject) -> JSONObject:
    return cluster.admin.create(resource) | {key: resource[key] for key in ("apiVersion", "kind")}


@pytest.fixture(scope="module")
def policy(cluster: Cluster) -> Iterator[None]:
    """The policy in effect; the shared cluster's other tests go without."""
    unbound = cluster.client(cluster.token())
    pod = created(cluster, objects.pod("probed"))
    for document in POLICY:
        cluster.admin.apply(document)
    wait_until(lambda: refusal(unbound, pod, annotated()) != "")
    yield
    for document in reversed(POLICY):
        cluster.admin.delete(path_of(document))
    wait_until(lambda: refusal(unbound, pod, annotated()) == "")
    cluster.admin.delete(path_of(pod))


@pytest.fixture(scope="module")
def daemons(cluster: Cluster, policy: None) -> Iterator[dict[str, Client]]:
    """Each node's daemon, as the API server knows it."""
    made, clients = [], {}
    for node in NODES:
        made.append(
            created(cluster, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
        )
        pod = objects.pod(f"daemon-{node}", node=node, in_namespace="kube-system")
        pod["spec"]["serviceAccountName"] = "metaplugin"
        made.append(created(cluster, pod))
        clients[node] = cluster.client(bound_token(cluster, made[-1]))
    yield clients
    for each in reversed(made):
        cluster.admin.delete(path_of(each))


@pytest.fixture
def pod(cluster: Cluster) -> Iterator[JSONObject]:
    """A pod of node-1."""
    made = created(cluster, objects.pod("guarded", annotations={"team": "a"}))
    yield made
    cluster.admin.delete(path_of(made))


def test_a_daemon_writes_changes_and_removes_the_status_of_its_nodes_pods(
    daemons: dict[str, Client], pod: JSONObject
) -> None:
    own = daemons["node-1"]
    for value in ("[]", '[{"name": "storage"}]', None):
        written = own.patch(
            status_of(pod),
            {"metadata": {"uid": pod["metadata"]["uid"], "annotations": {STATUS: value}}},
        )
        assert written["metadata"]["annotations"].get(STATUS) == value


def test_a_static_pods_mirror_is_its_nodes_as_any_other(
    cluster: Cluster, daemons: dict[str, Client]
) -> None:
    mirror = objects.pod("mirror", annotations={"kubernetes.io/config.mirror": "0123"})
    made = created(cluster, mirror)
    try:
        assert refusal(daemons["node-1"], made, annotated()) == ""
        assert refusal(daemons["node-2"], made, annotated()) != ""
    finally:
        cluster.admin.delete(path_of(made))


def test_a_daemon_writes_to_no_other_nodes_pods(
    daemons: dict[str, Client], pod: JSONObject
) -> None:
    assert (
        "metaplugin: the daemon of node node-2 may not write to a pod of node node-1"
    ) in refusal(daemons["node-2"], pod, annotated())


def test_a_daemon_writes_to_no_pod_that_has_no_node_yet(
    cluster: Cluster, daemons: dict[str, Client]
) -> None:
    pending = objects.pod("pending")
    del pending["spec"]["nodeName"]
    made = created(cluster, pending)
    try:
        assert "may not write to a pod of node (none)" in refusal(
            daemons["node-1"], made, annotated()
        )
    finally:
        cluster.admin.delete(path_of(made))


@pytest.mark.parametrize(
    "changes",
    [
        annotated("k8s.v1.cni.cncf.io/networks", "other"),
        annotated("team", "b"),
        annotated("team", None),
    ],
    ids=["adds", "changes", "removes"],
)
def test_a_daemon_writes_no_other_annotation(
    daemons: dict[str, Client], pod: JSONObject, changes: JSONObject
) -> None:
    changes["metadata"]["annotations"][STATUS] = "[]"
    assert "may write no annotation but k8s.v1.cni.cncf.io/network-status" in refusal(
        daemons["node-1"], pod, changes
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"status": {"phase": "Running"}},
        {"status": {"podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}]}},
        {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
        {"metadata": {"labels": {"app": "database"}}},
        {"metadata": {"finalizers": ["example.com/never"]}},
    ],
    ids=["phase", "address", "ready", "labels", "finalizers"],
)
def test_a_daemon_writes_nothing_else_of_a_pod(
    daemons: dict[str, Client], pod: JSONObject, changes: JSONObject
) -> None:
    assert "may write nothing of a pod but its annotation" in refusal(
        daemons["node-1"], pod, changes
    )


def test_a_token_that_is_bound_to_the_node_does_as_well(
    cluster: Cluster, daemons: dict[str, Client], pod: JSONObject
) -> None:
    """As a static pod's kubeconfig has it, which can have no service account of its own."""
    for name in NODES:
        node = cluster.admin.get(f"/api/v1/nodes/{name}") | {"kind": "Node"}
        client = cluster.client(bound_token(cluster, node))
        assert (refusal(client, pod, annotated()) == "") is (name == "node-1")


def test_a_token_that_names_no_node_may_write_nothing(
    cluster: Cluster, policy: None, pod: JSONObject
) -> None:
    unbound = cluster.client(cluster.token())
    assert "metaplugin: the token names no node" in refusal(unbound, pod, annotated())


def test_other_users_are_not_concerned(cluster: Cluster, policy: None, pod: JSONObject) -> None:
    assert cluster.admin.patch(status_of(pod), {"status": {"message": "m"}})
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "metaplugin", "namespace": "default"},  # of the same name
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "other"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "metaplugin",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "metaplugin", "namespace": "default"}],
    }
    made = [created(cluster, each) for each in (account, binding)]
    try:
        other = cluster.client(cluster.token("metaplugin", "default"))
        wait_until(lambda: refusal(other, pod, annotated("team", "b")) == "")
    finally:
        for each in made:
            cluster.admin.delete(path_of(each))


@pytest.fixture
def tainted(cluster: Cluster, daemons: dict[str, Client]) -> Iterator[str]:
    """The path of node-1, which has two taints, the opt-in in effect."""
    path = "/api/v1/nodes/node-1"
    for document in TAINT:
        cluster.admin.apply(document)
    message = "the daemon of node node-2 may not write to node node-1"
    wait_until(lambda: message in refusal_at(daemons["node-2"], path, {"spec": {}}))
    taints = [{"key": key, "effect": "NoSchedule"} for key in ("first", "second")]
    cluster.admin.patch(path, {"spec": {"taints": taints}})
    yield path
    cluster.admin.patch(path, {"spec": {"taints": None}})
    for document in reversed(TAINT):
        cluster.admin.delete(path_of(document))


def test_a_daemon_takes_taints_off_its_own_node(
    cluster: Cluster, daemons: dict[str, Client], tainted: str
) -> None:
    kept = cluster.admin.get(tainted)["spec"]["taints"][1:]
    assert refusal_at(daemons["node-1"], tainted, {"spec": {"taints": kept}}) == ""
    assert cluster.admin.get(tainted)["spec"]["taints"] == kept
    assert refusal_at(daemons["node-1"], tainted, {"spec": {"taints": None}}) == ""
    unbound = cluster.client(cluster.token())
    assert "of node (none) may not" in refusal_at(unbound, tainted, {"spec": {"taints": None}})


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}},
        {"spec": {"taints": [{"key": "first", "effect": "NoExecute"}]}},
        {"spec": {"unschedulable": True}},
        {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"finalizers": ["example.com/never"]}},
    ],
    ids=["taint", "effect", "cordon", "label", "annotation", "finalizer"],
)
def test_a_daemon_writes_nothing_else_of_a_node(
    daemons: dict[str, Client], tainted: str, changes: JSONObject
) -> None:
    assert "metaplugin: a daemon may " in refusal_at(daemons["node-1"], tainted, changes)
