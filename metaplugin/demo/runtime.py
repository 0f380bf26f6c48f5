"""The container runtime's part, as containerd plays it: sandboxes, and CNI calls for them."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaplugin.demo.claims import NotSoError
from metaplugin.demo.cluster import Pod
from metaplugin.demo.namespaces import command

CALL_LIMIT_S = 60
PLUGIN_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")  # Debian's package, everybody else's


@dataclass(slots=True, kw_only=True)
class Sandbox:
    """A pod's sandbox: its container id, its network namespace, and the result that ADD gave."""

    pod: Pod
    container_id: str = field(default_factory=lambda: uuid.uuid4().hex + uuid.uuid4().hex)
    result: dict[str, Any] = field(default_factory=dict)
    took_ms: int = 0

    @property
    def namespace(self) -> str:
        return f"cni-{self.pod.name}"

    @property
    def netns(self) -> Path:
        return Path("/run/netns") / self.namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Calls the shim for one plugin configuration, as libcni does."""

    folder: Path
    config: dict[str, Any]

    def run(self, pod: Pod) -> Sandbox:
        """Make the pod's sandbox and attach it; raise NotSoError with the plugin's own words."""
        sandbox = Sandbox(pod=pod)
        command(["ip", "netns", "add", sandbox.namespace])
        command(["ip", "-n", sandbox.namespace, "link", "set", "lo", "up"])
        started = time.monotonic()
        sandbox.result = json.loads(self._call("ADD", sandbox))
        sandbox.took_ms = _milliseconds_since(started)
        return sandbox

    def check(self, sandbox: Sandbox) -> None:
        """Return when CHECK finds everything as ADD left it; raise NotSoError with what it says."""
        self._call("CHECK", sandbox)

    def remove(self, sandbox: Sandbox) -> int:
        """Detach the pod, remove its sandbox, and return the milliseconds that DEL took; raise
        NotSoError with the plugin's own words."""
        started = time.monotonic()
        self._call("DEL", sandbox)
        took_ms = _milliseconds_since(started)
        command(["ip", "netns", "delete", sandbox.namespace])
        return took_ms

    def _call(self, verb: str, sandbox: Sandbox) -> bytes:
        done = subprocess.run(
            [str(self.folder / self.config["type"])],
            input=json.dumps(self._stdin(sandbox)).encode(),
            env=self._environment(verb, sandbox),
            capture_output=True,
            check=False,
            timeout=CALL_LIMIT_S,
        )
        if done.returncode != 0:
            raise NotSoError(f"{verb} {sandbox.pod} failed: {_error(done)}")
        return done.stdout

    def _environment(self, verb: str, sandbox: Sandbox) -> dict[str, str]:
        pod = sandbox.pod
        args = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": pod.namespace,
            "K8S_POD_NAME": pod.name,
            "K8S_POD_INFRA_CONTAINER_ID": sandbox.container_id,
            "K8S_POD_UID": pod.uid,
        }
        return {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": sandbox.container_id,
            "CNI_NETNS": str(sandbox.netns),
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in args.items()),
            "CNI_PATH": os.pathsep.join((str(self.folder), *PLUGIN_FOLDERS)),
        }

    def _stdin(self, sandbox: Sandbox) -> dict[str, Any]:
        """Return the configuration with what the runtime adds: its own capabilities that the plugin
        declares, and after ADD the result."""
        pod = sandbox.pod
        offered: dict[str, Any] = {
            "io.kubernetes.cri.pod-annotations": pod.annotations or None  # null: the pod has none
        }
        offered |= {"portMappings": list(pod.port_mappings)} if pod.port_mappings else {}
        offered |= {"bandwidth": pod.bandwidth} if pod.bandwidth else {}
        declared = self.config.get("capabilities", {})
        given = {key: value for key, value in offered.items() if declared.get(key)}
        config = {key: value for key, value in self.config.items() if key != "capabilities"}
        after_add = {"prevResult": sandbox.result} if sandbox.result else {}
        return config | {"runtimeConfig": given} | after_add


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _error(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return a failed call's error for a person: code, message, details."""
    try:
        answer = json.loads(done.stdout)
        said = f"code {answer['code']}: {answer['msg']}"
        return f"{said} ({answer['details']})" if answer.get("details") else said
    except (ValueError, KeyError, TypeError):
        return f"exit code {done.returncode}, {done.stdout[-500:]!r} {done.stderr[-500:]!r}"
