"""The daemon's configuration file: YAML, every key typed, an unknown one refused with the nearest
known."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from metaplugin.attachments.isolation import Isolation
from metaplugin.attachments.plan import UndeclaredCapabilities
from metaplugin.attachments.policy import Policy
from metaplugin.commands.ports import Deadlines, Settings

# A label's key, as Kubernetes takes it.
_TAINT_KEY = (
    r"^(([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
)


class ConfigurationError(Exception):
    """The configuration file can't be used; the text names every place and what is expected
    there."""


class _Section(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=False
    )


class ManifestsConfig(_Section):
    """A folder of manifests as the cluster; `statusFolder` gets each pod's network-status."""

    folder: Path
    status_folder: Path


class KubernetesConfig(_Section):
    """The API server as the cluster: by the pod's service account, or a kubeconfig."""

    kubeconfig: Path | None = None
    node_name: str = Field(default="", description="else NODE_NAME of the environment, or the host")
    definition_namespaces: tuple[str, ...] = ()
    on_missing: Literal["report", "evict"] = "report"
    startup_taint: str = Field(default="", pattern=_TAINT_KEY)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; `host` is an IP address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(text: str) -> Address | None:
    """Return what `ADDRESS:PORT` says, None for "": nothing is to listen."""
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError("must be ADDRESS:PORT, such as 127.0.0.1:9547, or empty")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (ip_address(bare).version == 6) != (bare != host):
        raise ValueError("an IPv6 address goes in brackets, an IPv4 address doesn't")
    return Address(bare, int(port))


class MetricsConfig(_Section):
    """Where /metrics, /healthz and /readyz are served: an IP address and a port, "" for nowhere."""

    listen: str = "127.0.0.1:9547"

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, text: str) -> str:
        _address(text)
        return text

    @property
    def address(self) -> Address | None:
        return _address(self.listen)


class DeadlinesConfig(_Section):
    """Seconds. The kubelet ends a request after 240; rollback is kept of the request's own.
    `giveUpSeconds` is for how long a DEL fails before its pod may go all the same; 0: for ever."""

    request_seconds: float = Field(default=200, gt=0, le=230)
    rollback_seconds: float = Field(default=60, gt=0)
    delegate_seconds: float = Field(default=90, gt=0)
    facts_seconds: float = Field(default=25, gt=0)
    readiness_seconds: float = Field(default=45, gt=0)
    status_seconds: float = Field(default=7, gt=0)
    live_seconds: float = Field(default=20, gt=0)
    drain_seconds: float = Field(default=200, gt=0)
    give_up_seconds: float = Field(default=120, ge=0)


class PolicyConfig(_Section):
    """What net-attach-defs may hold: these plugin types, by namespace or "*", and not these
    keys."""

    allowed_plugins: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    denied_keys: tuple[str, ...] = ()


class KubeletConfig(_Section):
    """Where the kubelet says which devices a pod was given. The checkpoint's folder has to be
    there, not only the file: the kubelet writes a new one each time."""

    socket: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    checkpoint: Path = Path("/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint")
    timeout_seconds: float = Field(default=5, gt=0, le=30)


class DelegateApiConfig(_Section):
    """Multus's /healthz and /delegate on a socket, for the dynamic networks controller. `shim` is
    started as the runtime starts it: where the daemon runs elsewhere than the runtime, a command
    that enters the host's namespaces first."""

    socket: Path
    shim: tuple[str, ...] = Field(default=("/opt/cni/bin/metaplugin",), min_length=1)
    cni_path: str = ""


class InstallationConfig(_Section):
    """The runtime's CNI configuration, which the daemon writes and keeps, and what the installer
    puts into the shim's file. Paths are the host's."""

    cni_conf_dir: Path = Path("/etc/cni/net.d")
    file_name: str = Field(
        default="00-metaplugin.conflist", pattern=r"^[^/.\x00][^/\x00]*\.conflist$"
    )
    network_name: str = Field(default="metaplugin", pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$")
    beside_multus: bool = False
    add_wait_ms: int = Field(default=10_000, ge=0, le=3_600_000)
    del_wait_ms: int | None = Field(default=None, ge=0, le=3_600_000)
    status_wait_ms: int | None = Field(default=None, ge=0, le=3_600_000)
    plugin_dirs: tuple[Path, ...] = ()
    fallback_kubeconfig: Path | None = None


class DaemonConfig(_Section):
    """What the daemon may be told. `clusterNetwork` names the default network: a net-attach-def
    (`namespace/name`), the name of a configuration in `confDir`, or an absolute path; with
    `installation` and without a name it is the first of the runtime's folder."""

    run_dir: Path = Path("/run/metaplugin")
    state_dir: Path = Path("/var/lib/cni/metaplugin")
    conf_dir: Path = Path("/etc/cni/metaplugin/net.d")
    manifests: ManifestsConfig | None = None
    kubernetes: KubernetesConfig | None = None
    cluster_network: str = ""
    default_networks: tuple[str, ...] = ()
    system_namespace: str = "kube-system"
    system_namespaces: tuple[str, ...] = ("kube-system",)
    auxiliary_chain: str = Field(default="", pattern=r"^([a-zA-Z0-9][a-zA-Z0-9_.-]{0,254})?$")
    readiness_file: str = Field(default="", pattern=r"^(/[^\x00]+)?$")
    namespace_isolation: bool = True
    global_namespaces: tuple[str, ...] = ("default",)
    policy: PolicyConfig = PolicyConfig()
    kubelet: KubeletConfig = KubeletConfig()
    undeclared_capabilities: UndeclaredCapabilities = "fail"
    device_info_dir: str = Field(
        default="/var/run/k8s.cni.cncf.io/devinfo", pattern=r"^(/[^\x00]+)?$", min_length=2
    )
    delegate_api: DelegateApiConfig | None = None
    metrics: MetricsConfig = MetricsConfig()
    installation: InstallationConfig | None = None
    deadlines: DeadlinesConfig = DeadlinesConfig()
    reap_interval_seconds: float = Field(default=60, gt=0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def settings(self) -> Settings:
        """Return the part that the flows see."""
        deadlines = self.deadlines
        folder = str(self.installation.cni_conf_dir) if self.installation else ""
        return Settings(
            cluster_network=self.cluster_network or folder,
            default_networks=self.default_networks,
            system_namespace=self.system_namespace,
            system_namespaces=self.system_namespaces,
            conf_dir=str(self.conf_dir),
            auxiliary_chain=self.auxiliary_chain,
            readiness_file=self.readiness_file,
            device_info_dir=self.device_info_dir,
            stated=frozenset(self.model_fields_set),
            isolation=Isolation(
                enabled=self.namespace_isolation, global_namespaces=self.global_namespaces
            ),
            policy=Policy(
                allowed_plugins=self.policy.allowed_plugins, denied_keys=self.policy.denied_keys
            ),
            undeclared_capabilities=self.undeclared_capabilities,
            deadlines=Deadlines(
                request=deadlines.request_seconds,
                rollback=deadlines.rollback_seconds,
                delegate=deadlines.delegate_seconds,
                facts=deadlines.facts_seconds,
                readiness=deadlines.readiness_seconds,
                status=deadlines.status_seconds,
                give_up=deadlines.give_up_seconds,
            ),
        )


def load_config(path: Path) -> DaemonConfig:
    """Return the file's configuration; raise ConfigurationError."""
    try:
        raw = yaml.safe_load(path.read_bytes())
    except OSError as exc:
        raise ConfigurationError(f"{path}: {exc.strerror}") from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise ConfigurationError(f"{path}: no YAML: {exc}") from exc
    if not isinstance(raw, dict | None):
        raise ConfigurationError(f"{path}: must hold keys and values")
    if (
        raw and "installation" in raw and raw["installation"] is None
    ):  # off would be a node that serves nobody
        raise ConfigurationError(
            f"{path}: installation: nothing in it; `installation: {{}}` takes every default"
        )
    try:
        config = DaemonConfig.model_validate(raw or {})
    except ValidationError as exc:
        problems = [_problem(error["loc"], error["type"], error["msg"]) for error in exc.errors()]
        raise ConfigurationError(f"{path}: " + "; ".join(problems)) from exc
    _check_together(path, config)
    return config


def _check_together(path: Path, config: DaemonConfig) -> None:
    """Raise ConfigurationError for what no key can say by itself."""
    if config.manifests and config.kubernetes:
        raise ConfigurationError(f"{path}: manifests, kubernetes: one of them is the cluster")
    if config.installation:
        _check_installation(path, config.installation)
    if config.delegate_api:
        _check_delegate_api(path, config.delegate_api, config.run_dir)
    for where, place in (
        ("socket", config.kubelet.socket),
        ("checkpoint", config.kubelet.checkpoint),
    ):
        if not place.is_absolute():
            raise ConfigurationError(f"{path}: kubelet.{where}: must be an absolute path")
    if config.deadlines.rollback_seconds >= config.deadlines.request_seconds:
        raise ConfigurationError(f"{path}: deadlines.rollbackSeconds must be below requestSeconds")


def _check_installation(path: Path, installation: InstallationConfig) -> None:
    places = {"cniConfDir": installation.cni_conf_dir}
    places |= {f"pluginDirs[{i}]": each for i, each in enumerate(installation.plugin_dirs)}
    if installation.fallback_kubeconfig:
        places["fallbackKubeconfig"] = installation.fallback_kubeconfig
    for where, place in places.items():
        if not place.is_absolute() or not str(place).isprintable() or ":" in str(place):
            raise ConfigurationError(
                f"{path}: installation.{where}: must be an absolute path without ':'"
            )


def _check_delegate_api(path: Path, api: DelegateApiConfig, run_dir: Path) -> None:
    for where, value in (("socket", str(api.socket)), ("shim", api.shim[0])):
        if not value.startswith("/"):
            raise ConfigurationError(f"{path}: delegateApi.{where}: must be an absolute path")
    if api.socket == run_dir / "daemon.sock":
        raise ConfigurationError(f"{path}: delegateApi.socket: {api.socket} is the shims' socket")


_SHAPES = {"tuple_type": "must be a list", "model_type": "must hold keys and values"}


def _problem(location: tuple[int | str, ...], kind: str, message: str) -> str:
    where = ".".join(str(part) for part in location)
    if kind != "extra_forbidden":
        return f"{where}: {_SHAPES.get(kind, message)}"
    known = _known_keys(location[:-1])
    nearest = get_close_matches(str(location[-1]), known, n=1, cutoff=0.0)
    return f"{where}: unknown key; the nearest known one is {nearest[0]!r}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "manifests": ManifestsConfig,
        "kubernetes": KubernetesConfig,
        "kubelet": KubeletConfig,
        "policy": PolicyConfig,
        "delegateApi": DelegateApiConfig,
        "metrics": MetricsConfig,
        "installation": InstallationConfig,
        "deadlines": DeadlinesConfig,
    }
    section = sections[str(location[-1])] if location else DaemonConfig
    return [str(field.alias) for field in section.model_fields.values()]
