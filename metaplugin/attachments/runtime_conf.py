"""Who is being attached: the sandbox, the pod behind it, and each attachment's runtime
configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metaplugin.cni.environment import CmdArgs, format_args
from metaplugin.wire.frames import encode_environment

ArgPairs = tuple[tuple[str, str], ...]

DEFAULT_NAMESPACE = "default"  # as kubectl's, where nobody names one


@dataclass(frozen=True, slots=True, kw_only=True)
class PodReference:
    """The pod that CNI_ARGS name. `uid` is empty when the runtime gave none."""

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def pod_reference(args: ArgPairs) -> PodReference | None:
    """Return the pod that K8S_POD_NAME names, None where there is no such key.

    Podman gives a container's name and no namespace: it is then a pod of `default`.
    """
    values = dict(args)
    name = values.get("K8S_POD_NAME", "")
    if not name:
        return None
    namespace = values.get("K8S_POD_NAMESPACE", "") or DEFAULT_NAMESPACE
    return PodReference(namespace=namespace, name=name, uid=values.get("K8S_POD_UID", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A container's sandbox. Device and inode tell its network namespace from a later one at that
    path.

    `netns` is empty when there is none any more.
    """

    container_id: str
    netns: str
    device: int = 0
    inode: int = 0

    def is_at(self, device: int, inode: int) -> bool:
        return (self.device, self.inode) == (device, inode)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConf:
    """The runtime configuration of one attachment, as in libcni: what isn't in the network's
    configuration."""

    ifname: str
    args: ArgPairs = ()
    capability_args: Mapping[str, Any] = field(default_factory=dict)

    def environment(self, command: str, sandbox: Sandbox) -> bytes:
        """Return the CNI_* variables of a delegate, CNI_PATH excepted: that one is the shim's to
        add."""
        return encode_environment(
            {
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": sandbox.container_id,
                "CNI_NETNS": sandbox.netns,
                "CNI_IFNAME": self.ifname,
                "CNI_ARGS": format_args(self._tolerant() if command == "DEL" else self.args),
            }
        )

    def _tolerant(self) -> ArgPairs:
        """Return the arguments with IgnoreUnknown, unless it is given: a plugin that refused one of
        them in ADD, which is the runtime's affair, would refuse it in every DEL."""
        if not self.args or "IgnoreUnknown" in dict(self.args):
            return self.args
        return (("IgnoreUnknown", "true"), *self.args)


def secondary_args(args: CmdArgs) -> ArgPairs:
    """Return the CNI_ARGS that networks beside the default one get: the pod's, and nothing else of
    the runtime's (NPWG 7.5); IgnoreUnknown lets plugins that know none of them pass over them."""
    given = dict(args.args)
    keys = ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID")
    pod = tuple((key, given[key]) for key in keys if key in given)
    return (("IgnoreUnknown", "true"), *pod)
