"""metaplugin on a node as deploy/README.md has one install it by hand, its daemon a process of the
node's and not a pod."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.machine import Service, until
from tests.cluster.node import Node
from tests.cluster.site import Site, running_site
from tests.controlplane.cluster import CRDS, RBAC
from tests.runtimes.footprint import pods_rules
from tests.system.node import CLI, DEBIAN_PLUGINS, REPOSITORY, SHIM

EXAMPLES = REPOSITORY / "examples"
PLUGINS = "/opt/cni/bin"
STATE = "/var/lib/cni/metaplugin"
RUN = "/run/metaplugin"
SOCKET = f"{RUN}/daemon.sock"
DEFAULT_NETWORK = "/etc/cni/net.d/10-default-network.conflist"


def install_plugins(node: Node) -> None:
    """Put Debian's plugins where the runtime looks for them."""
    for plugin in DEBIAN_PLUGINS.iterdir():
        shutil.copy(plugin, node.machine.path(f"{PLUGINS}/{plugin.name}"))


def install_default_network(node: Node) -> None:
    """Give the node a default network, that of the examples, with the node's own addresses."""
    network = json.loads((EXAMPLES / "cluster" / "default-network.conflist").read_text())
    network["plugins"][0]["ipam"]["ranges"] = [[{"subnet": node.pods}]]
    node.machine.write(DEFAULT_NETWORK, json.dumps(network))


class Metaplugin:
    """metaplugin on one node. `daemon` is there while it runs."""

    def __init__(self, site: Site, node: Node, **daemon_keys: Any) -> None:
        self._site, self.node, self._keys = site, node, daemon_keys
        self.daemon: Service | None = None

    def install(self) -> None:
        """Follow "Installing by hand" to its end: plugins, configuration, daemon, conflist."""
        machine = self.node.machine
        install_plugins(self.node)
        install_default_network(self.node)
        shutil.copy(SHIM, machine.path(f"{PLUGINS}/metaplugin"))
        self.configure()
        self.start()
        conflist = (EXAMPLES / "cluster" / "metaplugin.conflist").read_text()
        machine.write("/etc/cni/net.d/00-metaplugin.conflist", conflist)

    def configure(self) -> None:
        """Write the daemon's file, and credentials that name the node."""
        folder, control = "/etc/cni/metaplugin", self._site.control
        token = {"token": control.token(node=self.node.name)}
        credentials = self._site.credentials(token, str(control.authority.certificate))
        self.node.machine.write(f"{folder}/kubeconfig", credentials, 0o600)
        keys = {
            "clusterNetwork": DEFAULT_NETWORK,
            "kubernetes": {"kubeconfig": f"{folder}/kubeconfig", "nodeName": self.node.name},
            "logLevel": "debug",
        } | self._keys
        self.node.machine.write(f"{folder}/daemon.yaml", yaml.safe_dump(keys))

    def start(self) -> None:
        self.node.machine.path(SOCKET).unlink(missing_ok=True)
        self.daemon = self.node.machine.serve("metaplugin", *CLI, "daemon")
        until(self._serves, f"the daemon: see {self.node.machine.logs}", seconds=20)

    def _serves(self) -> bool:
        assert self.daemon is not None
        self.daemon.check()
        return self.node.machine.path(SOCKET).exists()

    def kill(self) -> None:
        assert self.daemon is not None
        self.daemon.kill()

    def records(self) -> list[str]:
        return self.node.names(f"{STATE}/attachments")

    def leases(self) -> list[str]:
        """Return host-local's leases, which are files named by their address."""
        folder = self.node.machine.path("/var/lib/cni/networks")
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name[0].isdigit())

    def footprint(self) -> dict[str, list[str]]:
        """Return what is there of pods outside themselves; {} when nothing is."""
        rules = self.node.machine.run("iptables-save")
        found = {
            "links": sorted(self.node.links()),
            "rules": pods_rules(rules, rf"10\.244\.{self.node.number}\."),
            "leases": self.leases(),
            "records": self.records(),
            "locks": self.node.names(f"{RUN}/locks"),
        }
        return {what: names for what, names in found.items() if names}

    def check_all(self) -> str:
        """Run `metaplugin check --all`; return what it prints; raise RuntimeError on a finding."""
        return self.node.machine.run(*CLI, "check", "--all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A cluster, and metaplugin on each of its nodes."""

    site: Site
    metaplugins: tuple[Metaplugin, ...]

    def footprints(self) -> list[dict[str, list[str]]]:
        return [each.footprint() for each in self.metaplugins]


@contextlib.contextmanager
def installed_by_hand(root: Path, **options: Any) -> Iterator[Installed]:
    """A cluster whose nodes are Ready and whose pods metaplugin attaches; gone at the end."""
    with running_site(root, **options) as site:
        site.control.apply(*CRDS, RBAC)
        metaplugins = tuple(Metaplugin(site, node) for node in site.nodes)
        for each in metaplugins:
            each.install()
        site.wait_for_nodes()
        yield Installed(site=site, metaplugins=metaplugins)
