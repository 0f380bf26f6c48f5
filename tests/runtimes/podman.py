"""Debian's podman 4, rootful, with metaplugin as the one network that it has by CNI."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.runtimes.cgroups import remove_cgroups
from tests.runtimes.image import IMAGE, root_file_system
from tests.system.node import REPOSITORY, Node

NETWORK = "metaplugin"
# runc: crun 1.8.1 refuses to run on hosts with cgroups of both versions.
_CONTAINERS = """[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
tmp_dir = "{root}/tmp"
static_dir = "{root}/static"
volume_path = "{root}/volumes"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{root}/bin"]
network_config_dir = "{root}/net.d"
default_network = "{network}"
[containers]
log_driver = "k8s-file"
"""
_STORAGE = """[storage]
driver = "vfs"
graphroot = "{root}/storage"
runroot = "{root}/run"
"""


class Podman:
    """A podman with folders of its own below the node's root."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.root = node.root / "p"
        for name in ("bin", "net.d"):
            (self.root / name).mkdir(parents=True)
        for plugin in Path("/usr/lib/cni").iterdir():
            (self.root / "bin" / plugin.name).symlink_to(plugin)
        for name in ("metaplugin", "metaplugin.conf"):
            shutil.copy2(node.shim.with_name(name), self.root / "bin" / name)
        shutil.copy(
            REPOSITORY / "examples" / "cluster" / "metaplugin.conflist", self.root / "net.d"
        )
        for name, text in (("containers.conf", _CONTAINERS), ("storage.conf", _STORAGE)):
            (self.root / name).write_text(text.format(root=self.root, network=NETWORK))
        self.own_cgroup = ("--cgroup-parent", f"/{node.root.name}")
        self.call("import", "-", IMAGE, data=root_file_system())

    def configure(self, plugin: dict[str, Any], version: str = "1.0.0") -> None:
        """Make `plugin` the only one of podman's network."""
        network = {"cniVersion": version, "name": NETWORK, "plugins": [plugin]}
        (self.root / "net.d" / "metaplugin.conflist").write_text(json.dumps(network))

    def call(self, *arguments: str, data: bytes | None = None) -> str:
        """Run podman; return its output."""
        done = self.attempt(*arguments, data=data)
        assert done.returncode == 0, (arguments, done.stderr.decode())
        return done.stdout.decode()

    def attempt(
        self, *arguments: str, data: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        process = self.popen(*arguments)
        out, err = process.communicate(data, timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        files = {
            "CONTAINERS_CONF": str(self.root / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.root / "storage.conf"),
        }
        return subprocess.Popen(
            ["podman", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | files,
        )

    def run(self, name: str, *options: str) -> str:
        """Start a container that sleeps; return its id."""
        return self.call(*self.run_command(name, *options)).strip()

    def run_command(self, name: str, *options: str) -> tuple[str, ...]:
        sleep = ("/bin/busybox", "sleep", "9999")
        return ("run", "--detach", "--name", name, *self.own_cgroup, *options, IMAGE, *sleep)

    def run_in_pod(self, pod: str, name: str) -> str:
        """Start a container that sleeps in a pod; return its id."""
        options = ("--name", name, "--pod", pod)
        return self.call(
            "run", "--detach", *options, IMAGE, "/bin/busybox", "sleep", "9999"
        ).strip()

    def make_pod(self, name: str) -> None:
        sleep = "/bin/busybox sleep 9999"
        infra = ("--infra-image", IMAGE, "--infra-command", sleep)
        self.call("pod", "create", "--name", name, *self.own_cgroup, *infra)

    def execute(self, name: str, *command: str) -> str:
        return self.call("exec", name, "/bin/busybox", *command)

    def address(self, name: str, interface: str) -> str:
        output = self.execute(name, "ip", "-4", "-o", "addr", "show", interface)
        found = re.search(r"inet ([0-9.]+)/", output)
        assert found, output
        return found[1]

    def ping(self, name: str, interface: str, address: str) -> None:
        output = self.execute(name, "ping", "-c1", "-W2", "-I", interface, address)
        assert " 0% packet loss" in output, output

    def close(self) -> None:
        self.attempt("pod", "rm", "--all", "--force", "--time", "0")
        self.attempt("rm", "--all", "--force", "--time", "0")
        remove_cgroups(self.node.root.name)
