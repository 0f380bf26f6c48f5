"""The runtime's CNI configuration: metaplugin's own, made from the default network's, and what else
is in the folder that runtimes take the first file of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metaplugin.cni.configuration import NetworkConfigList
from metaplugin.cni.errors import CNIError
from metaplugin.cni.raw import load_object
from metaplugin.commands.outer import OWN_TYPE

CNI_VERSION = "1.0.0"  # containerd 1.6 refuses results of 1.1.0
CNI_VERSIONS = ["0.4.0", "1.0.0", "1.1.0"]
POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
MULTUS_TYPES = ("multus", "multus-shim")
BAK_SUFFIX = ".cilium_bak"  # what Cilium renames others' configurations to
SUFFIXES = (".conf", ".conflist", ".json")  # what runtimes read
BASIC_CAPABILITIES = ("portMappings", "bandwidth")  # of a default network that isn't known here

Kind = Literal["ours", "multus", "network", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A configuration file that a runtime would consider."""

    path: Path
    kind: Kind


def conflist(network: NetworkConfigList | None, name: str) -> bytes:
    """Return our configuration over that of the default network: runtimes pass on what it declares
    as they would to it, and the pod's annotations."""
    declared = (
        {each for plugin in network.plugins for each in plugin.capabilities}
        if network
        else {*BASIC_CAPABILITIES}
    )
    capabilities = dict.fromkeys(sorted(declared | {POD_ANNOTATIONS}), True)
    made = {
        "cniVersion": CNI_VERSION,
        "cniVersions": CNI_VERSIONS,
        "name": name,
        "plugins": [{"type": OWN_TYPE, "capabilities": capabilities}],
    }
    return json.dumps(made, indent=2).encode() + b"\n"


def installed(folder: Path) -> list[Installed]:
    """Return the folder's configurations in the order in which runtimes consider them; raise
    OSError."""
    paths = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    return [Installed(path=path, kind=kind_of(path)) for path in paths]


def kind_of(path: Path) -> Kind:
    """Say whose configuration the file is; raise nothing."""
    try:
        types = plugin_types(path.read_bytes())
    except (OSError, CNIError):
        return "unreadable"
    if OWN_TYPE in types:
        return "ours"
    return "multus" if types & set(MULTUS_TYPES) else "network"


def plugin_types(content: bytes) -> set[str]:
    """Return the types of a configuration's plugins; raise CNIError."""
    raw = load_object(content, what="a CNI configuration")
    plugins = raw.get("plugins")
    items = plugins if isinstance(plugins, list) else [raw]
    types = [item.get("type") for item in items if isinstance(item, dict)]
    return {each for each in types if isinstance(each, str)}
