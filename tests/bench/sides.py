"""The two sides of the comparison, driven alike: metaplugin, and the floor.

The floor is the shim alone running the same delegates with the same bytes in sequence: a DEL
without a daemon replays a record's calls, and here the record is made to hold the calls of an ADD,
or of a DEL.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from metaplugin.attachments.calls import add_call, del_calls
from metaplugin.attachments.plan import PlannedAttachment
from metaplugin.attachments.runtime_conf import RuntimeConf, Sandbox
from metaplugin.cni.configuration import parse_network_config
from metaplugin.wire.container import Section, encode_section
from metaplugin.wire.frames import Netns
from tests.system.node import DEBIAN_PLUGINS, Node, macvlan_network, new_root


class Side(Protocol):
    """Attaches and detaches a pod; `prepare` does beforehand what isn't to be measured."""

    def prepare(self, command: str, pod: str) -> None: ...

    def run(self, command: str, pod: str) -> None: ...


@dataclass
class Metaplugin:
    """The real shim and the real daemon."""

    node: Node
    networks: int

    def prepare(self, command: str, pod: str) -> None:
        """Nothing is prepared."""

    def run(self, command: str, pod: str) -> None:
        annotation = ",".join(f"macvlan{i}" for i in range(self.networks))
        annotations = {"k8s.v1.cni.cncf.io/networks": annotation} if annotation else None
        config = {
            "cniVersion": "1.0.0",
            "name": "metaplugin",
            "type": "metaplugin",
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
        }
        execute(self.node.shim, command, pod, json.dumps(config).encode(), self.node.root)


class Floor:
    """A shim of its own without a daemon, over records written by `prepare`."""

    def __init__(self, node: Node, networks: int) -> None:
        self.root = new_root()
        self._floor = Node(self.root, {}, shim_keys={"del_wait_ms": 0})
        self._plan = plan(node, networks)
        (self.root / "state" / "attachments").mkdir(parents=True, mode=0o700)

    def prepare(self, command: str, pod: str) -> None:
        path = Path("/run/netns") / pod
        status = path.stat()
        sandbox = Sandbox(
            container_id=pod, netns=str(path), device=status.st_dev, inode=status.st_ino
        )
        if command == "ADD":
            calls = [
                add_call(p, plugin, sandbox, None)
                for p in self._plan
                for plugin in p.config.plugins
            ]
        else:
            calls = [call for p in reversed(self._plan) for call in del_calls(p, sandbox, None)]
        section = Section(
            note=b"{}",
            netns=Netns(sandbox.netns.encode(), sandbox.device, sandbox.inode),
            calls=tuple(call.to_exec(90) for call in calls),
        )
        record = self.root / "state" / "attachments" / f"{pod}@eth0"
        record.write_bytes(encode_section(section))

    def run(self, command: str, pod: str) -> None:
        del command  # the record says what is run
        execute(self._floor.shim, "DEL", pod, b"{}", self.root)

    def close(self) -> None:
        self._floor.close()


def plan(node: Node, networks: int) -> list[PlannedAttachment]:
    """Return the attachments whose delegates both sides run."""
    args = (("IgnoreUnknown", "true"),)
    configs: list[tuple[str, dict[str, Any]]] = [("eth0", node.default)]
    configs += [(f"net{i + 1}", network(node.root, i)) for i in range(networks)]
    return [
        PlannedAttachment(
            name=ifname,
            config=parse_network_config(raw, where="bench"),
            runtime=RuntimeConf(ifname=ifname, args=args),
        )
        for ifname, raw in configs
    ]


def network(root: Path, number: int) -> dict[str, Any]:
    return macvlan_network(root, subnet=f"10.{100 + number}.0.0/16") | {"name": f"macvlan{number}"}


def execute(shim: Path, command: str, pod: str, stdin: bytes, root: Path) -> None:
    """Run a shim as a runtime would; raise CalledProcessError with its answer."""
    environment = {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": command,
        "CNI_PATH": f"{root / 'plugins'}:{DEBIAN_PLUGINS}",
        "CNI_CONTAINERID": pod,
        "CNI_NETNS": f"/run/netns/{pod}",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}",
    }
    done = subprocess.run(
        [shim], check=False, input=stdin, capture_output=True, env=environment, timeout=60
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
