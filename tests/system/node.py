"""A node under test: the real daemon and the real shim, and the runtime's side of their calls.

Everything lies below one short-lived folder (short, since a socket's path has 107 bytes at most).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.kubelet.podresources import FakeKubelet

REPOSITORY = Path(__file__).resolve().parents[2]
SHIM = Path(os.environ.get("METAPLUGIN_SHIM", REPOSITORY / "build" / "metaplugin-shim"))
NOOP = REPOSITORY / "tests" / "plugins" / "noop.py"
CLI = (sys.executable, "-m", "metaplugin.daemon.cli")
DAEMON = (*CLI, "daemon")
DEBIAN_PLUGINS = Path("/usr/lib/cni")


@dataclass(frozen=True)
class Reply:
    """What a runtime sees of a call; `took` in seconds."""

    exit_code: int
    stdout: bytes
    stderr: str
    took: float

    @property
    def json(self) -> dict[str, Any]:
        parsed = json.loads(self.stdout)
        assert isinstance(parsed, dict)
        return parsed

    @property
    def code(self) -> int:
        return int(self.json["code"]) if self.exit_code else 0

    @property
    def msg(self) -> str:
        return str(self.json["msg"]) if self.exit_code else ""


@dataclass
class Pod:
    """A sandbox as a runtime makes it: an id, a network namespace, what CNI_ARGS say."""

    container_id: str
    netns: Path
    name: str = "pod"
    namespace: str = "default"
    uid: str = ""
    annotation: str | None = None

    @property
    def args(self) -> str:
        return (
            f"IgnoreUnknown=1;K8S_POD_NAMESPACE={self.namespace};K8S_POD_NAME={self.name};"
            f"K8S_POD_INFRA_CONTAINER_ID={self.container_id};K8S_POD_UID={self.uid}"
        )


@dataclass
class Node:
    root: Path
    default: dict[str, Any]
    daemon_keys: dict[str, Any] = field(default_factory=dict)
    shim_keys: dict[str, Any] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()  # enters the namespaces of a node of its own
    patience_s: float = 15  # for the daemon's start
    daemon: subprocess.Popen[bytes] | None = None
    _pods: int = 0

    def __post_init__(self) -> None:
        for name in ("bin", "plugins", "manifests", "status", "net.d", "run"):
            (self.root / name).mkdir(mode=0o700)
        self.log = self.root / "daemon.log"
        self.shim = self.root / "bin" / "metaplugin"
        shutil.copy(SHIM, self.shim)
        self.configure_shim(**self.shim_keys)
        (self.root / "default.conflist").write_text(json.dumps(self.default))

    def configure_shim(self, **keys: Any) -> None:
        """Write metaplugin.conf with short waits, `keys` winning."""
        values = {
            "run_dir": self.root / "run",
            "state_dir": self.root / "state",
            "device_info_dir": self.root / "devinfo",
            "add_wait_ms": 3000,
            "del_wait_ms": 300,
            "status_wait_ms": 1000,
            "lock_wait_ms": 10000,
            "silence_ms": 12000,
        } | keys
        text = "".join(f"{key}={value}\n" for key, value in values.items())
        path = self.root / "bin" / "metaplugin.conf"
        path.write_text(text)
        path.chmod(0o600)

    # --- the daemon

    def write_config(self) -> None:
        config = {
            "runDir": str(self.root / "run"),
            "stateDir": str(self.root / "state"),
            "deviceInfoDir": str(self.root / "devinfo"),
            "confDir": str(self.root / "net.d"),
            "manifests": {
                "folder": str(self.root / "manifests"),
                "statusFolder": str(self.root / "status"),
            },
            "clusterNetwork": str(self.root / "default.conflist"),
            "logLevel": "debug",
        } | self.daemon_keys
        (self.root / "daemon.yaml").write_text(yaml.safe_dump(config))

    def use(self, kubelet: FakeKubelet) -> None:
        """Have the daemon ask it, from its next start on."""
        socket, checkpoint = str(kubelet.socket), str(kubelet.checkpoint)
        keys = {"socket": socket, "checkpoint": checkpoint, "timeoutSeconds": 2}
        self.daemon_keys |= {"kubelet": keys}

    def start(self) -> None:
        self.write_config()
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [*self.prefix, *DAEMON, "--config", str(self.root / "daemon.yaml")],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.wait_for_socket()

    def run_daemon(self, config: Path) -> subprocess.CompletedProcess[str]:
        """Run a daemon to its end: for configurations with which it won't start."""
        command = [*DAEMON, "--config", str(config)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)

    def wait_for_socket(self) -> None:
        deadline = time.monotonic() + self.patience_s
        while not (self.root / "run" / "daemon.sock").exists():
            assert self.daemon is not None
            assert self.daemon.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def signal_daemon(self, number: signal.Signals) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(number)

    def kill(self) -> None:
        """Kill the daemon as a crash would: its socket's file stays behind."""
        if self.daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    def stop(self) -> int:
        """Stop the daemon as an operator would; return its exit code."""
        assert self.daemon is not None
        self.daemon.terminate()
        code = self.daemon.wait(30)
        self.daemon = None
        return code

    def restart(self) -> None:
        self.kill()
        (self.root / "run" / "daemon.sock").unlink(missing_ok=True)
        self.start()

    def check_all(
        self, shim: Path | None = None, cni_path: Path = DEBIAN_PLUGINS
    ) -> subprocess.CompletedProcess[str]:
        """Run `metaplugin check --all` as an operator would."""
        options = {
            "--config": self.root / "daemon.yaml",
            "--shim": shim or self.shim,
            "--cni-path": cni_path,
        }
        pairs = [str(part) for pair in options.items() for part in pair]
        command = [*self.prefix, *CLI, "check", "--all", *pairs]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    # --- the cluster

    def define(
        self,
        name: str,
        config: dict[str, Any] | str,
        *,
        namespace: str = "default",
        resource: str = "",
    ) -> None:
        """Write a net-attach-def to the folder of manifests; `resource` is its devices'."""
        text = config if isinstance(config, str) else json.dumps(config)
        annotations = {"k8s.v1.cni.cncf.io/resourceName": resource} if resource else {}
        document = {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"namespace": namespace, "name": name, "annotations": annotations},
            "spec": {"config": text},
        }
        self.write_manifest(f"{namespace}-{name}.yaml", document)

    def write_manifest(self, file_name: str, document: dict[str, Any]) -> None:
        path = self.root / "manifests" / file_name
        temporary = self.root / f"{file_name}.new"
        temporary.write_text(yaml.safe_dump(document))
        temporary.rename(path)

    def plugin(self, name: str, source: Path = NOOP) -> Path:
        """Put an executable into the search path before Debian's plugins."""
        path = self.root / "plugins" / name
        shutil.copy(source, path)
        path.chmod(0o755)
        return path

    # --- the runtime

    def pod(self, annotation: str | None = "", **values: Any) -> Pod:
        """Make a pod's namespace; `annotation` None leaves annotations to the manifests."""
        self._pods += 1
        name = f"{self.root.name}-{self._pods}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        container_id = f"{self._pods:04d}" + os.urandom(30).hex()
        netns = Path("/run/netns") / name
        return Pod(
            container_id, netns, **{"name": f"pod{self._pods}", **values}, annotation=annotation
        )

    def stdin(self, pod: Pod | None, version: str = "1.0.0", **extra: Any) -> bytes:
        config: dict[str, Any] = {"cniVersion": version, "name": "metaplugin", "type": "metaplugin"}
        if pod is not None and pod.annotation is not None:
            annotations = (
                {"k8s.v1.cni.cncf.io/networks": pod.annotation} if pod.annotation else None
            )
            config["runtimeConfig"] = {"io.kubernetes.cri.pod-annotations": annotations}
        return json.dumps(config | extra).encode()

    def environment(self, command: str, pod: Pod | None, **extra: str | None) -> dict[str, str]:
        values: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_PATH": f"{self.root / 'plugins'}:{DEBIAN_PLUGINS}",
        }
        if pod is not None:
            values |= {
                "CNI_CONTAINERID": pod.container_id,
                "CNI_NETNS": str(pod.netns),
                "CNI_IFNAME": "eth0",
                "CNI_ARGS": pod.args,
            }
        return {key: value for key, value in (values | extra).items() if value is not None}

    def popen(
        self,
        command: str,
        pod: Pod | None,
        *,
        prefix: tuple[str, ...] = (),
        **environment: str | None,
    ) -> subprocess.Popen[bytes]:
        """Start a call without waiting; its standard input is still to be given."""
        return subprocess.Popen(
            [*prefix, str(self.shim)],
            env=self.environment(command, pod, **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def call(
        self,
        command: str,
        pod: Pod | None,
        *,
        stdin: bytes | None = None,
        prefix: tuple[str, ...] = (),
        timeout: float = 50,
        environment: Mapping[str, str | None] | None = None,
        **variables: str | None,
    ) -> Reply:
        """Make a call and return what the runtime gets; `environment` and `variables` win."""
        started = time.monotonic()
        process = self.popen(command, pod, prefix=prefix, **{**variables, **(environment or {})})
        try:
            out, err = process.communicate(self.stdin(pod) if stdin is None else stdin, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        took = time.monotonic() - started
        return Reply(process.returncode, out, err.decode(errors="replace"), took)

    def add(self, pod: Pod, **values: Any) -> Reply:
        return self.call("ADD", pod, **values)

    def delete(self, pod: Pod, **values: Any) -> Reply:
        return self.call("DEL", pod, **values)

    # --- what is there

    def entries(self, *parts: str) -> list[str]:
        """Return the names in a folder below the root, [] when there is none."""
        folder = self.root.joinpath(*parts)
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def records(self) -> list[str]:
        return self.entries("state", "attachments")

    def locks(self) -> list[str]:
        return self.entries("run", "locks")

    def leases(self) -> list[str]:
        """Return host-local's leases, which are files named by their address."""
        folder = self.root / "leases"
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name[0].isdigit())

    def status(self, pod: Pod) -> list[dict[str, Any]]:
        path = self.root / "status" / f"{pod.namespace}_{pod.name}.yaml"
        annotations = yaml.safe_load(path.read_text())["metadata"]["annotations"]
        parsed = json.loads(annotations["k8s.v1.cni.cncf.io/network-status"])
        assert isinstance(parsed, list)
        return parsed

    def noop_calls(self, path: Path | None = None) -> list[dict[str, Any]]:
        path = path or self.root / "noop.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for_noop_calls(self, count: int) -> list[dict[str, Any]]:
        """Return the recording plugin's calls as soon as there are so many."""
        deadline = time.monotonic() + 30
        while len(calls := self.noop_calls()) < count:
            assert time.monotonic() < deadline, f"{len(calls)} calls, not {count}"
            time.sleep(0.01)
        return calls

    def wait_for_records(self, count: int) -> None:
        """Return as soon as there are so many records."""
        deadline = time.monotonic() + 30
        while len(self.records()) != count:
            assert time.monotonic() < deadline, self.records()
            time.sleep(0.01)

    def host_links(self) -> set[str]:
        """Return the node's links but the bridges, which their plugin keeps."""
        links = ip_json("link", prefix=self.prefix)
        return {link["ifname"] for link in links if not link["ifname"].startswith("br")}

    def pod_links(self, pod: Pod) -> set[str]:
        links = ip_json("link", namespace=pod.netns.name)
        return {link["ifname"] for link in links} - {"lo"}

    def close(self) -> None:
        if self.daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                self.daemon.send_signal(signal.SIGCONT)
        self.kill()
        for path in Path("/run/netns").glob(f"{self.root.name}-*"):
            subprocess.run(["ip", "netns", "del", path.name], check=False, capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)


def ip_json(
    *arguments: str, namespace: str | None = None, prefix: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Return what `ip -json` prints, on the node or in a named namespace."""
    where = ["-n", namespace] if namespace else []
    command = [*prefix, "ip", "-json", *where, *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parsed = json.loads(output or "[]")
    assert isinstance(parsed, list)
    return parsed


def bridge_network(root: Path, name: str = "cbr0", subnet: str = "10.90.0.0/24") -> dict[str, Any]:
    """Return a default network: a bridge with host-local addresses and a default route."""
    return {
        "cniVersion": "1.0.0",
        "name": name,
        "plugins": [
            {
                "type": "bridge",
                "bridge": f"br-{name}",
                "isGateway": True,
                "capabilities": {"mac": True, "ips": True},
                "ipam": host_local(root, subnet, routes=[{"dst": "0.0.0.0/0"}]),
            }
        ],
    }


def macvlan_network(root: Path, subnet: str = "10.91.0.0/24", **extra: Any) -> dict[str, Any]:
    """Return a macvlan network over the node's eth1."""
    plugin = {
        "type": "macvlan",
        "master": "eth1",
        "mode": "bridge",
        "capabilities": {"mac": True, "ips": True},
        "ipam": host_local(root, subnet),
    }
    return {"cniVersion": "1.0.0", "plugins": [plugin | extra]}


def noop_network(root: Path, name: str = "noop", **keys: Any) -> dict[str, Any]:
    """Return a network of the recording plugin."""
    plugin = {"type": "noop", "log": str(root / "noop.log"), **keys}
    return {"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}


def host_local(root: Path, subnet: str, **extra: Any) -> dict[str, Any]:
    leases = str(root / "leases")
    return {"type": "host-local", "dataDir": leases, "ranges": [[{"subnet": subnet}]], **extra}


def new_root() -> Path:
    return Path(tempfile.mkdtemp(prefix="mp", dir="/run"))


@contextlib.contextmanager
def uplink() -> Iterator[None]:
    """The interface eth1 of the tests' namespace, which macvlan networks of all nodes use."""
    wire = ["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "wire1"]
    subprocess.run(wire, check=True)
    for name in ("eth1", "wire1"):
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield
    subprocess.run(["ip", "link", "del", "eth1"], check=True)
