"""metaplugin comes to a node with a containerd that runs, is fought over, and goes again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtimes.build import built_folder
from tests.runtimes.containerd import Containerd, running
from tests.runtimes.footprint import footprint
from tests.runtimes.networks import ETH0, MACVLAN, write_networks
from tests.system.node import CLI, SHIM, Node

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

CONFLIST = "00-metaplugin.conflist"


class Bare(Containerd):
    """A containerd of a node that has never heard of metaplugin."""

    def _install_plugins(self) -> None:
        for plugin in Path("/usr/lib/cni").iterdir():
            (self.root / "bin" / plugin.name).symlink_to(plugin)

    def configure(self, version: str) -> None:
        """Write the default network's configuration, as its own installer would."""
        default = self.node.root / "default.conflist"
        (self.root / "net.d" / "10-default.conflist").write_bytes(default.read_bytes())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def command(verb: str, containerd: Containerd, *options: str) -> str:
    """Run the installer with the runtime's folders, which its own configuration names."""
    node, root = containerd.node, containerd.root
    words = ["--config", f"{node.root}/daemon.yaml", "--bin-dir", f"{root}/bin"]
    done = subprocess.run(
        [*CLI, verb, *words, "--conf-dir", f"{root}/net.d", *options],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "folder",
    [pytest.param(lambda: Path("/usr/bin"), id="Debian's"), pytest.param(built_folder, id="2")],
)
def test_a_node_gets_metaplugin_keeps_it_and_loses_it(
    folder: Callable[[], Path], idle_node: Node
) -> None:
    """Issue 7: the runtime takes the file at once, when it comes and when it comes again; pods from
    before are untouched and deletable; afterwards the default network is as before."""
    node = idle_node
    write_networks(node)
    with running(node, folder=folder(), kind=Bare) as containerd:
        assert containerd.networks() == ["cbr0"]
        before = containerd.run("before", "macvlan")
        assert "net1" not in containerd.execute(before, "ip", "link")

        installation = {"cniConfDir": str(containerd.root / "net.d")}
        node.daemon_keys = {"installation": installation, "clusterNetwork": ""}
        node.write_config()
        command("install", containerd, "--shim", str(SHIM))
        assert containerd.networks() == ["cbr0"]
        node.start()
        until(lambda: containerd.networks() == ["metaplugin"])
        first = containerd.run("first", "macvlan")
        assert containerd.address(first, "eth0").startswith(ETH0)
        assert containerd.address(first, "net1").startswith(MACVLAN)

        (containerd.root / "net.d" / CONFLIST).rename(
            containerd.root / "net.d" / f"{CONFLIST}.cilium_bak"
        )
        until(lambda: containerd.networks() == ["cbr0"])
        until(lambda: containerd.networks() == ["metaplugin"])
        second = containerd.run("second", "macvlan")
        containerd.ping(second, "net1", containerd.address(first, "net1"))

        for pod in (before, first, second):
            containerd.remove(pod.sandbox)
        assert footprint(node) == {}
        node.stop()
        command("uninstall", containerd)
        until(lambda: containerd.networks() == ["cbr0"])
        after = containerd.run("after", "macvlan")
        assert "net1" not in containerd.execute(after, "ip", "link")
        assert containerd.address(after, "eth0").startswith(ETH0)
        containerd.remove(after.sandbox)
