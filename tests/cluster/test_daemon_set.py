"""From nothing to networks, and back, by the documents' commands alone: the image, and deploy/
applied to a real cluster whose nodes have nothing but a default network and its plugins."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
import yaml

from tests.cluster.deployed import (
    CONFLIST,
    PODS,
    README,
    REFERENCE,
    bare_site,
    commands,
    follow,
    metrics,
    wait_for_configuration,
)
from tests.cluster.machine import until
from tests.cluster.metaplugin import EXAMPLES, Metaplugin
from tests.cluster.node import Node
from tests.cluster.objects import bridge, pod
from tests.cluster.site import STATUS, Site
from tests.controlplane import objects
from tests.controlplane.client import JSONObject
from tests.manifests.documents import ROOT

STATIC_POD = ROOT / "deploy" / "static-pod" / "metaplugin.yaml"
LAN = objects.net_attach_def("lan", bridge("lan", "10.66.0.0/24"))
FOLDERS = ("/etc/cni", "/opt/cni", "/var/lib/cni", "/run/metaplugin", "/run/k8s.cni.cncf.io")
# Documented to stay: what device plugins share, which a kubelet has made.
STAYS = {"/run/k8s.cni.cncf.io"}

pytestmark = [pytest.mark.system, pytest.mark.timeout(480)]


def is_ready(site: Site) -> bool:
    """Say whether a pod of metaplugin is Ready."""
    conditions = [each for pod in metaplugins(site) for each in pod["status"].get("conditions", ())]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def embed_authority(kubeconfig: Path) -> None:
    """Put the authority's certificate into the file, which a container can't follow elsewhere."""
    content = yaml.safe_load(kubeconfig.read_text())
    for each in content["clusters"]:
        authority = Path(each["cluster"].pop("certificate-authority")).read_bytes()
        each["cluster"]["certificate-authority-data"] = base64.b64encode(authority).decode()
    kubeconfig.write_text(yaml.safe_dump(content))


def require_networks(site: Site, objects_applied: list[JSONObject]) -> None:
    """Look at the networks of an example's pod, and see that nothing is left of it."""
    [node] = site.nodes
    site.wait_for_pods("two-bridges", seconds=120)
    names = [each["name"] for each in site.network_status("two-bridges")]
    assert names == ["default-network", "default/storage", "default/backup"]
    assert "192.168.102" in site.execute("two-bridges", "ip", "addr", "show", "net1")
    site.remove(objects_applied)
    metaplugin = Metaplugin(site, node)
    leases = metaplugin.leases
    until(lambda: not [each for each in leases() if "default-network" not in each], "leases")


def files(node: Node) -> set[str]:
    """Return what is in the folders that metaplugin has things in, but for plugins' leases, and
    results that the runtime keeps: of pods whose ADD was by another configuration than their DEL it
    keeps them for ever."""
    found = node.machine.run("bash", "-c", f"find {' '.join(FOLDERS)} 2>/dev/null || true")
    others = ("/var/lib/cni/networks", "/var/lib/cni/results")
    return {path for path in found.split() if not path.startswith(others)}


def instance(site: Site, name: str) -> tuple[str, str]:
    """Return what a pod that is touched has another of: its container, its address."""
    status = site.pod(name)["status"]
    return status["containerStatuses"][0]["containerID"], status["podIP"]


def lacking(node: Node) -> str:
    found = re.search(r"^metaplugin_pods_without_networks (\S+)$", metrics(node), re.MULTILINE)
    return found[1] if found else ""


def test_a_cluster_from_nothing_to_networks_and_back(tmp_path: Path) -> None:
    """Issue 7: a working node by the README's commands alone; pods from before are named, left
    alone and can go; the commands for its end leave the node as it was."""
    with bare_site(tmp_path) as site:
        [node] = site.nodes
        before = files(node)
        site.apply(pod("early", "lan"), pod("plain"))
        site.wait_for_pods("early", "plain")
        early, plain = instance(site, "early"), instance(site, "plain")

        follow(site, commands(README, "## With Kubernetes"))
        assert is_ready(site)
        site.apply(LAN)
        example = EXAMPLES / "two-bridges.yaml"
        require_networks(site, [each for each in yaml.safe_load_all(example.read_text()) if each])

        require_named(site)
        assert (instance(site, "early"), instance(site, "plain")) == (early, plain)
        assert STATUS not in site.pod("early")["metadata"]["annotations"]
        site.delete_pods("early")
        assert leases(site) == [plain[1]]
        site.apply(pod("early", "lan"))
        site.wait_for_pods("early")
        assert "inet 10.66.0." in site.execute("early", "ip", "addr", "show", "net1")
        until(lambda: lacking(node) == "0.0", lambda: f"{lacking(node)} pods lack networks")
        site.delete_pods("early", "plain")
        assert Metaplugin(site, node).footprint() == {}

        uninstall(site)
        assert files(node) - STAYS == before
        site.apply(pod("late", "lan"))
        site.wait_for_pods("late")
        assert STATUS not in site.pod("late")["metadata"]["annotations"]


def leases(site: Site) -> list[str]:
    """Return the default network's addresses that pods have."""
    return [each.partition("/")[2] for each in Metaplugin(site, site.nodes[0]).leases()]


def require_named(site: Site) -> None:
    """The pod that lacks networks has an event and is counted; no other is."""
    [node] = site.nodes
    wanted = "NetworksNotAttached"
    until(
        lambda: any(each.startswith(wanted) for each in site.events("early")),
        lambda: str(site.events("early")),
        seconds=120,
    )
    [event] = [each for each in site.events("early") if each.startswith(wanted)]
    assert event.endswith("It lacks: default/lan")
    assert not [each for each in site.events("plain") if each.startswith(wanted)]
    assert lacking(node) == "1.0"


def uninstall(site: Site) -> None:
    """Follow deploy/README.md: the node is drained, then the DaemonSet goes, then what it put."""
    [node] = site.nodes
    text = REFERENCE.read_text()
    for command in ("kubectl cordon", "kubectl drain --ignore-daemonsets"):
        assert f"`{command}`" in text
        follow(site, f"{command} {node.name}")
    assert "`kubectl delete -k deploy/base`" in text
    follow(site, "kubectl delete -k deploy/base")
    until(lambda: not metaplugins(site), "metaplugin's pods stay", seconds=120)
    assert node.machine.path(CONFLIST).exists()
    node.machine.run("bash", "-euc", commands(REFERENCE, "**Away with it**"))
    follow(site, f"kubectl uncordon {node.name}")


def metaplugins(site: Site) -> list[JSONObject]:
    found = site.admin.get(f"{PODS}?labelSelector=app.kubernetes.io/name=metaplugin")["items"]
    assert isinstance(found, list)
    return found


def test_the_static_pod_gives_pods_their_networks(tmp_path: Path) -> None:
    """With the kubeconfig that deploy/README.md has one make, whose token is bound to the Node."""
    with bare_site(tmp_path) as site:
        [node] = site.nodes
        site.kubectl("apply", "-f", str(ROOT / "crds"))
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
        until(lambda: is_ready(site), "the static pod", seconds=180)
        wait_for_configuration(node)
        require_networks(site, site.apply_file(EXAMPLES / "two-bridges.yaml"))
