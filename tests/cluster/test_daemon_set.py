"""From nothing to networks by deploy/README.md's commands alone: the image, and deploy/ applied to
a real cluster whose nodes have nothing but a default network and its plugins."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.machine import until
from tests.cluster.metaplugin import (
    EXAMPLES,
    Metaplugin,
    install_default_network,
    install_plugins,
)
from tests.cluster.site import Site, running_site
from tests.manifests.documents import ROOT

ARCHIVE = ROOT / "dist" / "metaplugin-image.tar"
STATIC_POD = ROOT / "deploy" / "static-pod" / "metaplugin.yaml"
PODS = "/api/v1/namespaces/kube-system/pods"
CONFLIST = "/etc/cni/net.d/00-metaplugin.conflist"

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


@contextlib.contextmanager
def bare_site(root: Path) -> Iterator[Site]:
    """A cluster of one node that has the image, and nothing of ours installed."""
    with running_site(root, nodes=1) as site:
        [node] = site.nodes
        install_plugins(node)
        install_default_network(node)
        node.import_image(ARCHIVE)
        site.wait_for_nodes()
        site.kubectl("apply", "-f", str(ROOT / "crds"))
        yield site


def is_ready(site: Site) -> bool:
    """Say whether a pod of metaplugin is Ready."""
    pods = site.admin.get(f"{PODS}?labelSelector=app.kubernetes.io/name=metaplugin")["items"]
    conditions = [each for pod in pods for each in pod["status"].get("conditions", ())]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def embed_authority(kubeconfig: Path) -> None:
    """Put the authority's certificate into the file, which a container can't follow elsewhere."""
    content = yaml.safe_load(kubeconfig.read_text())
    for each in content["clusters"]:
        authority = Path(each["cluster"].pop("certificate-authority")).read_bytes()
        each["cluster"]["certificate-authority-data"] = base64.b64encode(authority).decode()
    kubeconfig.write_text(yaml.safe_dump(content))


def require_networks(site: Site) -> None:
    """Start an example's pod, look at its networks, and see that nothing is left of it."""
    [node] = site.nodes
    until(node.machine.path(CONFLIST).exists, "the runtime's configuration", seconds=30)
    objects = site.apply_file(EXAMPLES / "two-bridges.yaml")
    site.wait_for_pods("two-bridges")
    names = [each["name"] for each in site.network_status("two-bridges")]
    assert names == ["default-network", "default/storage", "default/backup"]
    assert "192.168.102" in site.execute("two-bridges", "ip", "addr", "show", "net1")
    site.remove(objects)
    until(lambda: Metaplugin(site, node).footprint() == {}, "what the pod left", seconds=30)


def test_the_daemon_set_gives_pods_their_networks(tmp_path: Path) -> None:
    """Issue 7: from nothing to a working node; the policy of policy.yaml is in force meanwhile."""
    with bare_site(tmp_path) as site:
        site.kubectl("apply", "-k", str(ROOT / "deploy" / "base"))
        until(lambda: is_ready(site), "the DaemonSet's pod", seconds=90)
        require_networks(site)
        site.kubectl("delete", "-k", str(ROOT / "deploy" / "base"))
        assert site.nodes[0].machine.path(CONFLIST).exists()


def test_the_static_pod_gives_pods_their_networks(tmp_path: Path) -> None:
    """With the kubeconfig that deploy/README.md has one make, whose token is bound to the Node."""
    with bare_site(tmp_path) as site:
        [node] = site.nodes
        for name in ("rbac.yaml", "policy.yaml"):
            site.kubectl("apply", "-f", str(ROOT / "deploy" / "base" / name))
        Metaplugin(site, node).configure()
        embed_authority(node.machine.path("/etc/cni/metaplugin/kubeconfig"))
        config = {
            "kubernetes": {"kubeconfig": "/etc/cni/metaplugin/kubeconfig"},
            "installation": {},
        }
        node.machine.write("/etc/cni/metaplugin/daemon.yaml", json.dumps(config))
        node.machine.write(
            "/etc/kubernetes/manifests/metaplugin.yaml", STATIC_POD.read_text(), 0o600
        )
        until(lambda: is_ready(site), "the static pod", seconds=90)
        require_networks(site)
