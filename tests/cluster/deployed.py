"""metaplugin in a cluster as the documents have one install it: their commands, word by word."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster.machine import until
from tests.cluster.metaplugin import (
    PLUGINS,
    Installed,
    Metaplugin,
    install_default_network,
    install_plugins,
)
from tests.cluster.node import Node
from tests.cluster.site import Site, running_site
from tests.controlplane.assets import program
from tests.manifests.documents import ROOT

ARCHIVE = ROOT / "dist" / "metaplugin-image.tar"
README = ROOT / "README.md"
REFERENCE = ROOT / "deploy" / "README.md"
PODS = "/api/v1/namespaces/kube-system/pods"
CONFLIST = "/etc/cni/net.d/00-metaplugin.conflist"


def commands(document: Path, after: str) -> str:
    """Return the first block of commands after a text of the document."""
    rest = document.read_text().partition(after)[2]
    found = re.search(r"^```sh\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)
    assert found, f"{document}: no commands after {after!r}"
    return found[1]


def follow(site: Site, script: str) -> str:
    """Run commands in the checkout as the cluster's administrator; return what they print."""
    environment = os.environ | {
        "KUBECONFIG": str(site.kubeconfig),
        "HOME": str(site.root),
        "PATH": f"{program('kubectl').parent}:{os.environ['PATH']}",
    }
    command = ["bash", "-euxo", "pipefail", "-c", script]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def bare_site(root: Path, **options: Any) -> Iterator[Site]:
    """A cluster whose nodes have the image, a default network, and nothing of ours installed."""
    with running_site(root, **options) as site:
        for node in site.nodes:
            install_plugins(node)
            install_default_network(node)
            node.import_image(ARCHIVE)
        site.wait_for_nodes()
        yield site


@contextlib.contextmanager
def deployed_site(root: Path, **options: Any) -> Iterator[Installed]:
    """A cluster with metaplugin as README.md has one apply it."""
    with bare_site(root, **options) as site:
        site.kubectl("apply", "-f", str(ROOT / "crds"))
        site.kubectl("apply", "-k", str(ROOT / "deploy" / "base"))
        wait_for_rollout(site)
        yield Installed(site=site, metaplugins=tuple(Metaplugin(site, node) for node in site.nodes))


def wait_for_rollout(site: Site) -> None:
    site.kubectl(
        *("-n", "kube-system", "rollout", "status", "daemonset/metaplugin", "--timeout=240s")
    )


def shim(node: Node) -> Path:
    return node.machine.path(f"{PLUGINS}/metaplugin")


def metrics(node: Node) -> str:
    """Return what the node's daemon answers to Prometheus, "" where none does."""
    url = "http://127.0.0.1:9547/metrics"
    with contextlib.suppress(RuntimeError):
        return node.machine.run("/bin/busybox", "wget", "-q", "-O", "-", url)
    return ""


def wait_for_configuration(node: Node) -> None:
    until(node.machine.path(CONFLIST).exists, "the runtime's configuration", seconds=30)
