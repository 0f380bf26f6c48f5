"""A real control plane: etcd and kube-apiserver on loopback, with TLS, tokens and RBAC.

It has no scheduler, controllers or kubelet: a test binds its pods itself. See README.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.controlplane.assets import program
from tests.controlplane.client import Client
from tests.controlplane.pki import Authority

ROOT = Path(__file__).resolve().parents[2]
CRDS = sorted((ROOT / "crds").glob("*.yaml"))
RBAC = ROOT / "deploy" / "base" / "rbac.yaml"

LOOPBACK = "127.0.0.1"
READY_S = 60  # it takes 4 s where the processor is free
_ADMIN_TOKEN = "admin"


class Program:
    """A server program: started, stopped, killed, paused; its log is kept in a file."""

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self.command, self._log = command, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        assert not self.running
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def terminate(self) -> None:
        """Ask the program to end, and don't wait for it."""
        assert self._process is not None, "not started"
        self.signal(signal.SIGTERM)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the program, paused or not, and wait for its end."""
        if self._process is not None:
            self.signal(number)
            self.signal(signal.SIGCONT)
            self._process.wait(READY_S)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program if it is there."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it where it is: the kernel goes on accepting connections, and nobody answers."""
        assert self._process is not None, "not started"
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None, "not started"
        self.signal(signal.SIGCONT)

    def check(self) -> None:
        """Raise with the log's end where the program has ended by itself."""
        if not self.running:
            raise RuntimeError(f"{self.command[0]} ended:\n{self._log.read_text()[-5000:]}")


class Cluster:
    """One control plane; all it writes is below a folder. `start` and `stop` are the API server's:
    etcd runs, and remembers, until `close`. `flags` win over the API server's own, None takes one
    away."""

    def __init__(
        self, root: Path, *, address: str = LOOPBACK, flags: Mapping[str, str | None] | None = None
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.authority = Authority(root / "pki")
        self.server_certificate = self.authority.issue("kube-apiserver", addresses=[address])
        self.address, self._flags = address, flags or {}
        self.port = free_port()
        self.url = f"https://{address}:{self.port}"
        self.etcd_port = free_port()
        etcd = f"http://{LOOPBACK}:{self.etcd_port}"
        self.etcd = self._etcd(etcd, peer=f"http://{LOOPBACK}:{free_port()}")
        self.api = self._api(etcd)
        self.admin = self.client(_ADMIN_TOKEN)

    def _etcd(self, url: str, peer: str) -> Program:
        flags = {
            "data-dir": self.root / "etcd",
            "unsafe-no-fsync": "true",
            "listen-client-urls": url,
            "advertise-client-urls": url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        options = [f"--{key}={value}" for key, value in flags.items()]
        return Program([program("etcd"), *options], self.root / "etcd.log")

    def _api(self, etcd: str) -> Program:
        certificate, key = self.server_certificate
        public, private = self.authority.signing_key()
        tokens = self.root / "pki" / "tokens.csv"
        tokens.write_text(f'{_ADMIN_TOKEN},admin,admin,"system:masters"\n')
        flags: dict[str, object] = {
            "etcd-servers": etcd,
            "bind-address": self.address,
            "advertise-address": self.address,
            "secure-port": self.port,
            "tls-cert-file": certificate,
            "tls-private-key-file": key,
            "client-ca-file": self.authority.certificate,
            "token-auth-file": tokens,
            "service-account-key-file": public,
            "service-account-signing-key-file": private,
            "service-account-issuer": "https://kubernetes.default.svc",
            "authorization-mode": "Node,RBAC",
            "disable-admission-plugins": "ServiceAccount",  # no controller makes `default` ones
            "service-cluster-ip-range": "10.97.0.0/16",
            "allow-privileged": "true",
            "endpoint-reconciler-type": "none",
            "shutdown-delay-duration": "0s",
        }
        flags.update(self._flags)
        options = [f"--{key}={value}" for key, value in flags.items() if value is not None]
        command: list[str | Path] = [program("kube-apiserver"), *options]
        return Program(command, self.root / "kube-apiserver.log")

    def start(self) -> None:
        """Start what of etcd and the API server doesn't run; return when it is ready."""
        for part in (self.etcd, self.api):
            if not part.running:
                part.start()
        self.wait_until_ready()

    def stop(self) -> None:
        """Stop the API server in an orderly way: it takes a minute while somebody watches."""
        self.api.stop()

    def kill(self) -> None:
        self.api.kill()

    def pause(self) -> None:
        self.api.pause()

    def resume(self) -> None:
        self.api.resume()

    def close(self) -> None:
        self.api.kill()
        self.etcd.kill()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while not self._is_ready():
            self.etcd.check()
            self.api.check()
            if time.monotonic() > deadline:
                raise TimeoutError((self.root / "kube-apiserver.log").read_text()[-5000:])
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            return self.admin.raw("GET", "/readyz") == (200, "ok")
        except OSError:
            return False

    def client(self, token: str, url: str = "") -> Client:
        """Return a client for a token's user, straight to the server or by a proxy's URL."""
        return Client(url or self.url, self.authority.client_context(), token)

    def apply(self, *files: Path) -> None:
        """Apply every document of YAML files; return when the CRDs among them are served."""
        documents = [one for path in files for one in yaml.safe_load_all(path.read_text())]
        for document in documents:
            self.admin.apply(document)
        for document in documents:
            if document["kind"] == "CustomResourceDefinition":
                self._wait_until_served(document)

    def _wait_until_served(self, definition: dict[str, Any]) -> None:
        spec = definition["spec"]
        version, plural = spec["versions"][0]["name"], spec["names"]["plural"]
        deadline = time.monotonic() + READY_S
        while self.admin.raw("GET", f"/apis/{spec['group']}/{version}/{plural}")[0] != 200:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{definition['metadata']['name']} is not served")
            time.sleep(0.02)

    def token(
        self, account: str = "metaplugin", namespace: str = "kube-system", *, node: str = ""
    ) -> str:
        """Return a new token for a service account that exists (TokenRequest); one that names a
        node, as a pod's does, is valid while there is that node."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        spec: dict[str, Any] = {"expirationSeconds": 3600}
        if node:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Node", "name": node}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": spec,
        }
        return str(self.admin.request("POST", path, request)["status"]["token"])

    def kubeconfig(self, path: Path, *, token: str = _ADMIN_TOKEN, url: str = "") -> Path:
        """Write a kubeconfig for a token's user, the administrator's unless told."""
        cluster = {
            "server": url or self.url,
            "certificate-authority": str(self.authority.certificate),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
        path.write_text(json.dumps(content))
        return path


@contextlib.contextmanager
def running_cluster(root: Path) -> Iterator[Cluster]:
    """A started control plane with our CRDs and deploy/base/rbac.yaml in it; gone at the end."""
    cluster = Cluster(root)
    try:
        cluster.start()
        cluster.apply(*CRDS, RBAC)
        yield cluster
    finally:
        cluster.close()


def free_port() -> int:
    """Return a port below the kernel's range for clients, whose sockets would else take it, or
    connect to themselves, while the server is away."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")
