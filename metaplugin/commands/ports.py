"""What the flows need from outside, each port named by what it offers.

`Caller` lives as long as one request: the program that the runtime started, in the runtime's
context. `Node` lives as long as the process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from metaplugin.attachments.calls import PluginCall
from metaplugin.attachments.default_routes import DefaultRoutes
from metaplugin.attachments.devices import (
    Allocation,
    AssignedDevice,
    ClaimedDevice,
    ResolvedDevice,
)
from metaplugin.attachments.isolation import Isolation
from metaplugin.attachments.plan import UndeclaredCapabilities
from metaplugin.attachments.policy import Policy
from metaplugin.attachments.record import Record, StoredRecord
from metaplugin.attachments.runtime_conf import PodReference, Sandbox
from metaplugin.cni.configuration import NetworkConfigList, PluginConf
from metaplugin.cni.environment import CmdArgs, Command
from metaplugin.cni.errors import CNIError
from metaplugin.cni.raw import JSONObject
from metaplugin.commands.versions import PluginVersions
from metaplugin.npwg.definition import NetworkAttachmentDefinition
from metaplugin.wire.frames import Executed, Stated


class CallerGone(Exception):
    """The program that the runtime started is gone: nothing can be run or written for it any more.

    The flow ends where it stands; the record says what the runtime's DEL has to undo.
    """


class PluginRunner(Protocol):
    """Runs delegates where the runtime would: in its namespaces, cgroup and environment."""

    async def exec_plugin(self, call: PluginCall, deadline_s: float) -> Executed:
        """Run a delegate to its end, at most `deadline_s`; raise CallerGone."""

    async def find_in_path(self, plugin_type: str) -> str:
        """Return where in the search path the executable of that name is, "" where there is none;
        raise CallerGone."""


class RecordWriter(Protocol):
    """Writes records under the sandbox's lock, so that nothing is written for a call that is
    over."""

    async def save(self, name: str, content: bytes) -> None:
        """Write a record durably; raise IOFailure, with nothing changed, or CallerGone."""

    async def append(self, name: str, content: bytes) -> None:
        """Add a section to a record; raise IOFailure or CallerGone."""

    async def forget(self, name: str) -> None:
        """Put a tombstone in the record's place; raise IOFailure or CallerGone."""


class SandboxLocks(Protocol):
    """The locks of other sandboxes than the request's own, one at a time."""

    async def try_lock(self, container_id: str) -> bool:
        """Take a sandbox's lock unless something runs for it; raise CallerGone."""

    async def unlock(self) -> None:
        """Release what try_lock took; raise CallerGone."""

    async def stat_netns(self, path: str) -> Stated:
        """Say what is at a path of the runtime's mount namespace; raise CallerGone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceState:
    """An interface as the kernel has it; addresses with prefix length."""

    name: str
    addresses: frozenset[str]


class SandboxNetwork(Protocol):
    """The inside of the sandbox's network namespace."""

    async def interface_names(self) -> Sequence[str]:
        """Return the names of the interfaces; raise IOFailure."""

    async def interfaces(self) -> Sequence[InterfaceState]:
        """Return the interfaces with their addresses; raise IOFailure."""

    async def default_routes(self) -> dict[int, tuple[tuple[str, str], ...]]:
        """Return per family the (interface, gateway) pairs of the main table's default routes, the
        preferred one first; raise IOFailure."""

    async def set_default_routes(self, wanted: DefaultRoutes) -> None:
        """Make the families of `wanted` have these default routes and no others; raise
        IOFailure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A runtime's call. `sandbox.netns` is "" when there is no such namespace (any more)."""

    args: CmdArgs
    stdin: bytes
    sandbox: Sandbox
    runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What the program that the runtime started does for us; `network` is None without a netns.

    `versions` is what its plugins have said before, to whichever request.
    """

    plugins: PluginRunner
    records: RecordWriter
    locks: SandboxLocks
    network: SandboxNetwork | None
    versions: PluginVersions = field(default_factory=PluginVersions)


Name = tuple[str, str]  # namespace, name

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPod:
    """What the cluster says of a pod. `uid` is empty when it doesn't say one; `network_status` is
    the annotation of that name.

    `attached` says that the pod lives on, in a network namespace of its own that has an address;
    `replaced` that a controller makes another one when it is gone.
    """

    uid: str
    annotations: Mapping[str, str]
    network_status: str = ""
    attached: bool = False
    replaced: bool = False

    def is_meant_by(self, reference: PodReference) -> bool:
        """Say whether this is the pod that a runtime refers to, and no other of that name.

        The runtime knows a static pod by its configuration's hash, which its mirror in the cluster
        notes.
        """
        known = (self.uid, self.annotations.get(MIRROR_ANNOTATION, ""))
        return not reference.uid or not self.uid or reference.uid in known


class Cluster(Protocol):
    """Pods and network definitions; None when they authoritatively don't exist."""

    async def pod(self, reference: PodReference) -> KnownPod | None:
        """Return the pod of that name, whatever its UID; raise TryAgainLater when it can't be
        known."""

    async def definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None:
        """Return the definition; raise TryAgainLater, or InvalidNetworkConfig for a malformed
        one."""


class Kubelet(Protocol):
    """What the kubelet has given to the pods of this node."""

    async def allocation(self, pod: PodReference) -> Allocation:
        """Return the pod's devices, none for a pod without any; raise TryAgainLater when they can't
        be known."""


class Claims(Protocol):
    """What the cluster says of devices that ResourceClaims (DRA) gave to a pod."""

    async def resolve(
        self, pod: PodReference, claimed: Sequence[ClaimedDevice]
    ) -> tuple[ResolvedDevice, ...]:
        """Return what is known of each, in their order; raise TryAgainLater when the claims can't
        be known."""


class DeviceInformation(Protocol):
    """Files of device information (NPWG DEV 4), one for each attachment that has one; `name` is
    what `device_info_name` gives."""

    async def prepare(self, name: str, device: AssignedDevice | None) -> None:
        """Make the folder, and the file as the device's plugin wrote it, or none; raise
        IOFailure."""

    async def read(self, name: str) -> JSONObject | None:
        """Return what is there after ADD, None for nothing and for what can't be used, which is
        logged; never raises."""

    async def remove(self, name: str) -> None:
        """Remove the file; never raises. Those of a record that ends are the shim's to remove."""


class Memory(Protocol):
    """Last known copies, for when the cluster can't be asked; losing them costs nothing else."""

    async def pod(self, reference: PodReference) -> KnownPod | None:
        """Return the last known copy of the pod; None when there is none."""

    async def definition(self, namespace: str, name: str) -> NetworkAttachmentDefinition | None:
        """Return the last known copy of the definition; None when there is none."""


class ClaimMemory(Protocol):
    """What the cluster last said of pods' claimed devices; losing it costs nothing else."""

    async def claimed_devices(self, pod: PodReference) -> tuple[ResolvedDevice, ...]:
        """Return what was learnt of the pod of that UID; () where nothing was."""

    def learn_claimed_devices(self, pod: PodReference, devices: Sequence[ResolvedDevice]) -> None:
        """Keep it some time soon, until the pod is gone; never raises."""


class Learner(Protocol):
    """Keeps what the cluster says for `Memory`, some time soon; nothing here raises.

    None says that the object is gone; `learn_all_…` that there are no others. Definitions that pods
    use are kept safer than others.
    """

    def learn_pods(self, pods: Mapping[Name, KnownPod | None]) -> None: ...

    def learn_definitions(
        self, definitions: Mapping[Name, NetworkAttachmentDefinition | None]
    ) -> None: ...

    def learn_all_pods(self, pods: Mapping[Name, KnownPod]) -> None: ...

    def learn_all_definitions(
        self, definitions: Mapping[Name, NetworkAttachmentDefinition]
    ) -> None: ...

    def learn_use(self, name: Name, definition: NetworkAttachmentDefinition | None) -> None:
        """Take in that a pod asked for the definition of that name, and what there was."""

    async def used_definitions(self) -> Sequence[Name]:
        """Return the names of those that pods have used."""


class ConfigurationFiles(Protocol):
    """Network configurations on the node's disk (NPWG 3.4.1)."""

    async def named(self, name: str, *, folder: str) -> NetworkConfigList | None:
        """Return the folder's configuration of that network name, a list before a single plugin's;
        raise CNIError."""

    async def at(self, path: str, *, own: Collection[str]) -> NetworkConfigList:
        """Return the configuration in that file, or in the first of that folder that isn't an
        output of ours: of a plugin type in `own`. Raise CNIError."""

    async def plugins(self, folder: str) -> tuple[PluginConf, ...]:
        """Return the plugins of a folder's `*.conf`, in the names' order, () where there is no such
        folder; raise CNIError."""

    async def exists(self, path: str) -> bool:
        """Say whether there is such a file; raise CNIError."""


class RecordReader(Protocol):
    """Records as they are on disk."""

    async def read(self, name: str) -> StoredRecord | None:
        """Return a record; None when there is none; raise DamagedRecord, or IOFailure."""

    async def read_all(self, container_id: str = "") -> Sequence[StoredRecord]:
        """Return every record, or every one of a sandbox, that can be read; damaged ones are left
        where they are, and logged."""

    async def damaged(self, container_id: str) -> Sequence[str]:
        """Return the names of a sandbox's records that can't be read; raise IOFailure."""

    async def is_forgotten(self, name: str) -> bool:
        """Say whether the record's last DEL has been done."""


class StatusPublisher(Protocol):
    """Brings the network-status annotation to the pod."""

    async def publish(self, record: Record) -> None:
        """Hand over a record's status, and wait a bounded time for it to be written; without one,
        leave what is there alone from now on. Never raises."""

    async def withdraw(self, record: Record) -> None:
        """Say that the record has ended; never raises."""


class PodEvents(Protocol):
    """Tells the pod's reader what became of its networks; never waits, never raises."""

    def attached(self, record: Record) -> None:
        """Tell each attachment of an ADD that succeeded."""

    def failed(self, command: Command, pod: PodReference, error: CNIError) -> None:
        """Tell why a pod was not attached, or not released."""

    def given_up(self, record: Record) -> None:
        """Tell that a pod goes though what the record names could not be released."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds. The kubelet gives a request 240 s; `rollback` is kept of `request` for undoing."""

    request: float = 200
    rollback: float = 60
    delegate: float = 90
    facts: float = 25
    readiness: float = 45
    status: float = 7  # whoever asks for it asks every few seconds; the shim may have waited before
    give_up: float = 120  # of failing, before a DEL is the clean-up's alone; 0: never


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration that the flows see. `stated` names what the daemon's own file says, which
    Multus's defaults don't replace."""

    cluster_network: str = ""
    default_networks: tuple[str, ...] = ()
    system_namespace: str = "kube-system"
    system_namespaces: tuple[str, ...] = ("kube-system",)
    conf_dir: str = "/etc/cni/metaplugin/net.d"
    auxiliary_chain: str = ""
    readiness_file: str = ""
    device_info_dir: str = "/var/run/k8s.cni.cncf.io/devinfo"
    stated: frozenset[str] = frozenset()
    isolation: Isolation = field(default_factory=Isolation)
    policy: Policy = field(default_factory=Policy)
    undeclared_capabilities: UndeclaredCapabilities = "fail"
    deadlines: Deadlines = field(default_factory=Deadlines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is there for all requests. `cluster` is None where no cluster is configured, `claims`
    where it is no API server; `recall` is what is known of it without asking, for who must not
    wait: DEL."""

    settings: Settings
    cluster: Cluster | None
    recall: Cluster | None
    configurations: ConfigurationFiles
    records: RecordReader
    status: StatusPublisher
    events: PodEvents
    device_info: DeviceInformation
    kubelet: Kubelet | None = None
    claims: Claims | None = None
    told: set[str] = field(default_factory=set)  # what an operator need not be told again
    failing: dict[str, float] = field(default_factory=dict)  # DELs without a record: since when
