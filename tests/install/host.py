"""A host's folders below one of the test's, and the command as an administrator, or the DaemonSet's
init container, runs it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from metaplugin.daemon.cli import main
from tests.system.node import CLI, SHIM

CALICO = {
    "cniVersion": "0.3.1",
    "name": "k8s-pod-network",
    "plugins": [
        {"type": "calico"},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def make_tree(folder: Path, version: str, *, program: str = "echo 1") -> Path:
    """Make a runtime tree whose program is a shell script."""
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").mkdir()
    (folder / "lib" / "module.py").write_text(f"version = {version!r}\n")
    (folder / "bin" / "metaplugin").write_text(f"#!/bin/sh\n{program}\n")
    (folder / "bin" / "metaplugin").chmod(0o755)
    manifest = {"version": version, "command": ["bin/metaplugin"]}
    (folder / "runtime.json").write_text(json.dumps(manifest))
    return folder


@dataclass
class Host:
    """What an installer finds and leaves."""

    root: Path
    config: Path
    tree: Path

    def __post_init__(self) -> None:
        for name in ("opt/cni/bin", "etc/cni/net.d"):
            (self.root / name).mkdir(parents=True)
        self.config.write_text("kubernetes: {}\ninstallation: {}\n")
        make_tree(self.tree, "1")
        self.write("10-calico.conflist", CALICO)

    def write(self, name: str, content: dict[str, Any]) -> Path:
        path = self.net_d / name
        path.write_text(json.dumps(content))
        return path

    @property
    def net_d(self) -> Path:
        return self.root / "etc/cni/net.d"

    @property
    def bin(self) -> Path:
        return self.root / "opt/cni/bin"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/cni/metaplugin"

    @property
    def command(self) -> list[str]:
        options = ["--root", self.root, "--from-config", self.config, "--shim", SHIM]
        return [*CLI, "install", *map(str, options), "--runtime-tree", str(self.tree)]

    def install(self, *options: str) -> Done:
        """Run the command in this process: starting one takes a second."""
        return invoke([*self.command[len(CLI) :], *options])

    def install_under(self, prefix: tuple[str, ...], *options: str) -> Done:
        """Run the command as a process of its own, by another program."""
        done = subprocess.run(
            [*prefix, *self.command, *options],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Done(done.returncode, done.stdout + done.stderr)

    def uninstall(self, *options: str) -> Done:
        return invoke(["uninstall", "--root", str(self.root), *options])

    def shim_keys(self) -> dict[str, str]:
        lines = (self.bin / "metaplugin.conf").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    def versions(self) -> list[str]:
        return sorted(path.name for path in (self.state / "runtime").iterdir())

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    text: str


def invoke(words: list[str]) -> Done:
    result = CliRunner(env={"NODE_NAME": "node-1"}).invoke(main, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.output)
