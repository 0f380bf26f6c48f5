"""Issue 7: the DaemonSet is updated while pods come and go, and shims meet daemons of another
release. No pod may notice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from metaplugin import __version__
from tests.cluster.churn import DEFINITIONS, churning, troubles
from tests.cluster.deployed import ARCHIVE, metrics, shim, wait_for_rollout
from tests.cluster.machine import until
from tests.cluster.metaplugin import PLUGINS, STATE, Installed
from tests.cluster.node import Node
from tests.cluster.objects import pod
from tests.cluster.releases import OTHER, VERSION, other_release
from tests.cluster.site import Site
from tests.manifests.documents import ROOT, documents

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

DEVICE_INFO = "/run/k8s.cni.cncf.io/devinfo/cni"


def update(site: Site, image: str) -> None:
    """Have every node's daemon be of another release, and wait for it."""
    containers = [f"{name}={image}" for name in ("install", "daemon")]
    site.kubectl("-n", "kube-system", "set", "image", "daemonset/metaplugin", *containers)
    wait_for_rollout(site)


def is_served_by(node: Node, version: str) -> bool:
    return f'metaplugin_build_info{{version="{version}"}}' in metrics(node)


def memory(node: Node) -> int:
    """Return the daemon's resident memory."""
    found = re.search(r"^process_resident_memory_bytes (\S+)$", metrics(node), re.MULTILINE)
    assert found
    return int(float(found[1]))


def requested_memory() -> int:
    """Return what the DaemonSet has the scheduler set aside for the daemon."""
    [daemon_set] = documents(ROOT / "deploy" / "base" / "daemonset.yaml")
    [daemon] = daemon_set["spec"]["template"]["spec"]["containers"]
    requested = daemon["resources"]["requests"]["memory"]
    assert requested.endswith("Mi")
    return int(requested.removesuffix("Mi")) << 20


def put_shim(node: Node, program: bytes) -> None:
    """Put a shim in the place of the one that may be running, as the installer does."""
    beside = shim(node).with_name(".another")
    beside.write_bytes(program)
    beside.chmod(0o755)
    beside.rename(shim(node))


def test_no_pod_notices_an_update(deployed: Installed, tmp_path: Path) -> None:
    """MULTUS-28: to another release and back; between, each shim with the other's daemon, whose
    protocol versions are 1, and 1 to 2."""
    site, [node] = deployed.site, deployed.site.nodes
    ours, theirs = shim(node).read_bytes(), other_release(ARCHIVE, tmp_path / "other.tar")
    node.import_image(tmp_path / "other.tar")
    with churning(site) as churn:
        update(site, OTHER)
        assert is_served_by(node, VERSION)
        assert shim(node).read_bytes() == theirs
        churn.go_on()

        put_shim(node, ours)  # an old shim, a new daemon
        churn.go_on()

        site.kubectl("-n", "kube-system", "rollout", "undo", "daemonset/metaplugin")
        wait_for_rollout(site)
        assert is_served_by(node, __version__)
        assert shim(node).read_bytes() == ours
        put_shim(node, theirs)  # a new shim, an old daemon
        churn.go_on()
        put_shim(node, ours)
        assert memory(node) < requested_memory()
    assert not churn.problems
    assert troubles(site) == []
    site.remove(DEFINITIONS)
    require_nothing_left(deployed)
    assert len(node.names(f"{STATE}/runtime")) == 2


def require_nothing_left(deployed: Installed) -> None:
    """Nothing of pods, and no unfinished file of an installer."""
    [node] = deployed.site.nodes
    until(lambda: deployed.footprints() == [{}], lambda: str(deployed.footprints()), seconds=30)
    assert node.names(DEVICE_INFO) == []
    assert not [name for name in node.names(PLUGINS) if name.startswith(".")]


def test_a_daemon_that_hangs_is_restarted_and_pods_start_meanwhile(deployed: Installed) -> None:
    """By the probe of the DaemonSet, which asks more often here."""
    site, [node] = deployed.site, deployed.site.nodes
    probe = {"periodSeconds": 1, "timeoutSeconds": 1, "terminationGracePeriodSeconds": 3}
    daemon = {"name": "daemon", "livenessProbe": probe}
    patch = {"spec": {"template": {"spec": {"containers": [daemon]}}}}
    site.kubectl(
        *("-n", "kube-system", "patch", "daemonset", "metaplugin", "-p", json.dumps(patch))
    )
    wait_for_rollout(site)
    site.apply(*DEFINITIONS, pod("known", "red,blue"))  # what no disk knows would wait for a daemon
    site.wait_for_pods("known")
    [first] = daemons(node)
    node.machine.run("kill", "-STOP", first)
    site.apply(pod("a", "red,blue"))
    site.wait_for_pods("a")
    assert "inet 10.71.0." in site.execute("a", "ip", "addr", "show", "net1")
    until(lambda: daemons(node) not in ([first], []), "the daemon isn't restarted", seconds=120)
    until(lambda: is_served_by(node, __version__), "the new one doesn't serve")
    site.delete_pods("a", "known")
    assert troubles(site) == []
    site.remove(DEFINITIONS)
    site.kubectl("apply", "-k", str(ROOT / "deploy" / "base"))
    wait_for_rollout(site)
    require_nothing_left(deployed)


def daemons(node: Node) -> list[str]:
    """Return the processes that are a daemon, as the machine numbers them."""
    pattern = "^/runtime/.* daemon --config"
    return node.machine.run("bash", "-c", f"pgrep -f '{pattern}' || true").split()
