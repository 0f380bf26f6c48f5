"""deploy/base/rbac.yaml on a real API server: the daemon may do what it needs, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.controlplane import objects
from tests.controlplane.client import ApiError, Client
from tests.controlplane.cluster import Cluster
from tests.manifests.documents import CRDS, DEPLOY, OPT_IN, documents, granted

NETWORKS = "network-attachment-definitions"
NEEDED = {
    *product(("get", "list", "watch"), ("",), ("pods",)),
    ("patch", "", "pods/status"),
    *product(("get", "list", "watch"), ("k8s.cni.cncf.io",), (NETWORKS,)),
    ("create", "", "events"),
    ("get", "resource.k8s.io", "resourceclaims"),
    ("list", "resource.k8s.io", "resourceslices"),
}
FORBIDDEN = [
    ("update", "", "pods"),
    ("patch", "", "pods"),
    ("delete", "", "pods"),
    ("update", "", "pods/status"),
    ("create", "", "pods/exec"),
    ("create", "", "pods/eviction"),
    ("get", "", "secrets"),
    ("get", "", "configmaps"),
    ("list", "", "nodes"),
    ("list", "", "events"),
    ("patch", "", "events"),
    ("create", "", "serviceaccounts/token"),
    ("update", "k8s.cni.cncf.io", NETWORKS),
    ("delete", "k8s.cni.cncf.io", NETWORKS),
    ("get", "k8s.cni.cncf.io", "ipamclaims"),
    ("list", "resource.k8s.io", "resourceclaims"),
    ("update", "resource.k8s.io", "resourceclaims/status"),
    ("watch", "resource.k8s.io", "resourceslices"),
    ("create", "resource.k8s.io", "resourceslices"),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
]


@pytest.fixture
def daemon(cluster: Cluster) -> Client:
    return cluster.client(cluster.token())


@pytest.fixture
def pod(cluster: Cluster) -> Iterator[str]:
    cluster.admin.create(objects.pod("published"))
    yield f"{objects.pods()}/published"
    cluster.admin.delete(f"{objects.pods()}/published")


def is_allowed(client: Client, verb: str, group: str, resource: str) -> bool:
    """Ask the server as its user would (SelfSubjectAccessReview), for all namespaces."""
    kind, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": kind, "subresource": subresource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "metadata": {},
        "spec": {"resourceAttributes": attributes},
    }
    return bool(client.create(review)["status"]["allowed"])


def rules_of(client: Client) -> set[tuple[str, str, str]]:
    """Return all that a user may do to resources in a namespace (SelfSubjectRulesReview)."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "metadata": {},
        "spec": {"namespace": "default"},
    }
    return {
        call
        for rule in client.create(review)["status"]["resourceRules"]
        for call in product(rule["verbs"], rule["apiGroups"], rule["resources"])
    }


@pytest.mark.parametrize("path", CRDS + DEPLOY + OPT_IN, ids=lambda path: path.name)
def test_every_document_parses_strictly_and_says_how_it_is_used(path: Path) -> None:
    assert all({"apiVersion", "kind", "metadata"} <= set(document) for document in documents(path))
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert f"#   kubectl apply -f {path.name}" in lines


def test_the_role_has_the_least_verbs_and_no_wildcard() -> None:
    assert granted() == NEEDED


@pytest.mark.system
@pytest.mark.parametrize("call", sorted(NEEDED), ids=" ".join)
def test_the_daemon_may_do_what_it_needs(daemon: Client, call: tuple[str, str, str]) -> None:
    assert is_allowed(daemon, *call)


@pytest.mark.system
@pytest.mark.parametrize("call", FORBIDDEN, ids=" ".join)
def test_the_daemon_may_do_nothing_else(daemon: Client, call: tuple[str, str, str]) -> None:
    assert not is_allowed(daemon, *call)


@pytest.mark.system
def test_the_role_adds_nothing_but_its_rules_to_what_every_user_may_do(
    cluster: Cluster, daemon: Client
) -> None:
    cluster.admin.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "nobody", "namespace": "default"},
        }
    )
    nobody = cluster.client(cluster.token("nobody", "default"))
    assert rules_of(daemon) - rules_of(nobody) == NEEDED


@pytest.mark.system
def test_a_pods_annotation_can_be_written_through_its_status_only(daemon: Client, pod: str) -> None:
    change = {"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": "[]"}}}
    with pytest.raises(ApiError) as caught:
        daemon.patch(pod, change)
    assert caught.value.status == 403
    written = daemon.patch(f"{pod}/status", change | {"spec": {"nodeName": "elsewhere"}})
    assert written["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"] == "[]"
    assert written["spec"]["nodeName"] == "node-1"
