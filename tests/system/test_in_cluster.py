"""The daemon as a pod has it: no kubeconfig, a service account's token and authority in files
(issue 4), against a real API server."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaplugin.k8s.api import Api, ApiAway, ApiRefused, ApiUnconfigured
from tests.controlplane.cluster import Cluster
from tests.outage.scene import Scene, interfaces, recording_node, wait_until

pytestmark = pytest.mark.system

ACCOUNT = Path("/run/secrets/kubernetes.io/serviceaccount")  # /run is the tests' own
SECRETS = "/api/v1/secrets"  # not for the daemon


@pytest.fixture
def account(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the kubelet gives to a pod of deploy/base/rbac.yaml's service account."""
    ACCOUNT.mkdir(parents=True)
    shutil.copy(cluster.authority.certificate, ACCOUNT / "ca.crt")
    project(cluster.token())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
    yield ACCOUNT
    shutil.rmtree(ACCOUNT)


def project(token: str) -> None:
    """Replace the token by rename, as the kubelet does."""
    (ACCOUNT / "next").write_text(token)
    (ACCOUNT / "next").replace(ACCOUNT / "token")


def test_a_daemon_with_a_service_account_alone_attaches_and_tells(
    cluster: Cluster, account: Path
) -> None:
    """Issue 4: its configuration in-cluster; `kubernetes: {}`, the node's name from NODE_NAME."""
    name = "in-cluster"
    os.environ["NODE_NAME"] = name
    node = recording_node(cluster, cluster.url, name)
    (node.root / "kubeconfig").unlink()
    node.daemon_keys["kubernetes"] = {}
    scene = Scene(cluster, node, name)
    try:
        scene.start(spare=1)
        pod = scene.known()
        added = node.add(pod)
        assert added.exit_code == 0, added.stdout
        wait_until(lambda: interfaces(scene.status(pod.name)) == ["eth0", "net1"])
        assert node.delete(pod).exit_code == 0
    finally:
        del os.environ["NODE_NAME"]
        sys.stdout.write(node.log.read_text())
        scene.close()


def ask(api: Api, path: str = "/api/v1/pods") -> None:
    api.call("GET", path, timeout_s=10)


def test_a_rotated_service_account_token_is_read_again(cluster: Cluster, account: Path) -> None:
    """Issue 4: in-cluster with token re-read; a request that is refused is asked once more."""
    project("expired")
    api = Api(None)
    with pytest.raises(ApiRefused, match="401"):
        ask(api)
    project(cluster.token())
    ask(api)


def test_a_token_is_read_again_before_it_expires(
    cluster: Cluster, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every minute, so that a rotation costs no refused request."""
    api = Api(None)
    with pytest.raises(ApiRefused, match="403"):
        ask(api, SECRETS)
    monkeypatch.setattr(api, "renew_credentials", lambda: pytest.fail("refused"))
    project("admin")
    expire(api)
    ask(api, SECRETS)


@pytest.mark.parametrize("damage", ["empty", "gone"])
def test_a_token_that_can_not_be_read_is_an_outage_that_ends(
    cluster: Cluster, account: Path, damage: str
) -> None:
    """ROB-2: no defect, whatever the moment at which the file is looked at."""
    api = Api(None)
    (account / "token").unlink()
    if damage == "empty":
        (account / "token").touch()
    expire(api)
    with pytest.raises(ApiAway, match="[Tt]oken"):
        ask(api)
    project(cluster.token())
    ask(api)


def expire(api: Api) -> None:
    """Have a minute gone by for the client's copy of the token."""
    assert api._client is not None
    hook = api._client.configuration.refresh_api_key_hook
    [loader] = [cell.cell_contents for cell in hook.__closure__]
    loader.token_expires_at = loader.token_expires_at.min


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_a_service_account_without_a_file_is_told(account: Path, missing: str) -> None:
    (account / missing).unlink()
    with pytest.raises(ApiUnconfigured, match="the pod's service account: .*does not exist"):
        Api(None)


def test_a_process_that_is_in_no_pod_is_told(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(ApiUnconfigured, match="the pod's service account: Service host"):
        Api(None)
