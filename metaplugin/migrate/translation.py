"""What an installed Multus means in our terms: three files, and a note on each difference.

A key either has a counterpart here, or a reason why it has none; what is in neither table is
unknown to Multus as well, and told as that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metaplugin.cni.configuration import parse_network_config
from metaplugin.cni.errors import CNIError
from metaplugin.cni.raw import JSONObject
from metaplugin.cni.version import SUPPORTED_VERSIONS
from metaplugin.commands.facts import POD_ANNOTATIONS_CAPABILITY
from metaplugin.daemon.config import DaemonConfig
from metaplugin.migrate.installation import CNI_FOLDER, Installation, MigrationError

MULTUS_CONF_DIR = "/etc/cni/multus/net.d"
MULTUS_BIN_DIR = "/opt/cni/bin"
DEFAULT_VERSION = "1.0.0"
_CONTAINER_ROOT = "/host"  # where Multus's manifests mount the node's folders
_LOG_LEVELS = {"panic": "error", "error": "error", "verbose": "info", "debug": "debug"}

DROPPED = {
    "logFile": "logs go to standard error, for the service manager or kubectl logs to keep",
    "logToStderr": "logs always go to standard error",
    "logOptions": "there is no log file to rotate",
    "retryDeleteOnError": "always so: a record stays until its DEL has succeeded",
    "runtimeConfig": "it is the runtime's to fill in",
    "prevResult": "it is the runtime's to fill in",
    "ipam": "Multus has no addresses of its own to hand out, and neither has metaplugin",
    "dns": "the default network's own configuration says it",
    "cniConf": "Multus's entry point writes it, and nothing reads it",
    "defaultnetworkfile": "Multus ignores it too",
    "defaultnetworkwaitseconds": "Multus ignores it too",
    "allowTryDeleteOnErr": "Multus ignores it too; see retryDeleteOnError",
    "chrootDir": "the shim runs the plugins in the runtime's own context; nothing is chrooted",
    "daemonSocketDir": "the shim finds the daemon by run_dir in metaplugin.conf",
    "connectionLimit": "requests cost the daemon little: the plugins run below the runtime, as "
    "many at a time as that starts",
    "metricsPort": "metrics.listen, by default 127.0.0.1:9547; the DaemonSet's probes ask there, "
    "so change them with it",
    "enablePprof": "it is a Go profiler",
    "perNodeCertificate": "the daemon uses its pod's service account, or a kubeconfig that you "
    "renew; RBAC (deploy/base/rbac.yaml) lets it read pods and net-attach-defs only",
    "multusConfigFile": "see installation",
    "cniConfigDir": "see installation",
    "multusAutoconfigDir": "see clusterNetwork",
    "multusMasterCNI": "see clusterNetwork",
    "forceCNIVersion": "metaplugin rewrites nobody's file; versions are negotiated by plugin",
    "overrideNetworkName": "the name stays the one that is in use now",
}
_RENAMED = {
    "defaultNetworks": "defaultNetworks",
    "systemNamespaces": "systemNamespaces",
    "readinessindicatorfile": "readinessFile",
    "auxiliaryCNIChainName": "auxiliaryChain",
}
_TRANSLATED = frozenset(
    (
        *("cniVersion", "name", "type", "capabilities", "confDir", "cniDir", "binDir"),
        *("clusterNetwork", "delegates", "kubeconfig", "logLevel", "namespaceIsolation"),
        *("globalNamespaces", "multusNamespace", "socketDir"),
        *("disableCheck", "disableGC", "cniVersions"),
    )
)


@dataclass(slots=True, kw_only=True)
class Translation:
    """The three files as values, each with the notes that belong above it."""

    daemon: JSONObject = field(default_factory=dict)
    conflist: JSONObject = field(default_factory=dict)
    shim: dict[str, str] = field(default_factory=dict)
    daemon_notes: list[str] = field(default_factory=list)
    conflist_notes: list[str] = field(default_factory=list)
    shim_notes: list[str] = field(default_factory=list)


def translate(installed: Installation) -> Translation:
    """Return our files for an installed Multus, valid as they are; raise MigrationError."""
    made = Translation()
    _cluster(installed, made)
    _default_network(installed, made)
    _isolation(installed, made)
    _folders(installed, made)
    _renamed(installed, made)
    _dropped(installed, made)
    _conflist(installed, made)
    _installation(installed, made)
    _require_valid(made)
    return made


def _cluster(installed: Installation, made: Translation) -> None:
    keys = installed.keys
    if keys.kubeconfig:
        made.daemon["kubernetes"] = {"kubeconfig": keys.kubeconfig}
        made.daemon_notes.append(
            f"kubeconfig: {keys.kubeconfig} is what Multus's installer wrote, with its token; it "
            "may go with Multus. Give metaplugin a service account (deploy/base) or a file "
            "of its own."
        )
    elif installed.thick:
        made.daemon["kubernetes"] = {}
        made.daemon_notes.append(
            "kubernetes: the pod's service account, as Multus's daemon; NODE_NAME in the "
            "environment takes the place of MULTUS_NODE_NAME."
        )
    else:
        made.daemon_notes.append(
            "kubernetes: Multus has no kubeconfig here, so it asks no cluster, nor does this. "
            "Where Multus got it from its environment, add `kubernetes: {}`."
        )


def _default_network(installed: Installation, made: Translation) -> None:
    keys = installed.keys
    if keys.cluster_network:
        _name_cluster_network(keys.cluster_network, made)
        if keys.delegates:
            made.daemon_notes.append(
                "delegates: dropped, as Multus ignores them beside clusterNetwork."
            )
    elif not keys.delegates and installed.thick:
        folder = _on_node(keys.multus_autoconfig_dir or str(CNI_FOLDER))
        _name_cluster_network(str(Path(folder, installed.master_file)), made)
        made.daemon_notes.append(
            f"clusterNetwork: Multus takes {installed.master_file or 'the first file'} of {folder} "
            "and copies it again when that changes; here the file itself is read, of a folder "
            "its first that is neither Multus's nor ours."
        )
    elif not keys.delegates:
        raise MigrationError(
            f"{', '.join(installed.sources)}: neither clusterNetwork nor delegates, with which "
            "Multus itself doesn't work"
        )
    if keys.multus_namespace:
        made.daemon["systemNamespace"] = keys.multus_namespace
        made.daemon_notes.append("systemNamespace: multusNamespace's name here.")


def _name_cluster_network(reference: str, made: Translation) -> None:
    on_node = _on_node(reference)
    made.daemon["clusterNetwork"] = on_node
    if on_node != reference:
        made.daemon_notes.append(
            f"clusterNetwork: {reference} is a path in Multus's container; on the node it is "
            f"{on_node}. Where metaplugin's daemon is in a container, mount it at that path."
        )


def _isolation(installed: Installation, made: Translation) -> None:
    keys = installed.keys
    made.daemon["namespaceIsolation"] = keys.namespace_isolation
    if not keys.namespace_isolation:
        made.daemon_notes.append(
            "namespaceIsolation: off, as Multus has it here. metaplugin's own default is on: set "
            "it to true once no pod uses another namespace's networks."
        )
    else:
        made.daemon_notes.append(
            "namespaceIsolation: here also for networks that a pod takes as its default."
        )
    if keys.global_namespaces:
        names = [name.strip() for name in keys.global_namespaces.split(",")]
        made.daemon["globalNamespaces"] = [name for name in names if name]
        made.daemon_notes.append("globalNamespaces: a list here, no text with commas.")
    made.daemon["undeclaredCapabilities"] = "warn"
    made.daemon_notes.append(
        "undeclaredCapabilities: warn, as Multus starts pods without what no plugin declares. "
        "metaplugin's own default is to fail them: remove it once no pod has the warning."
    )


def _folders(installed: Installation, made: Translation) -> None:
    keys = installed.keys
    made.daemon["confDir"] = _on_node(keys.conf_dir or MULTUS_CONF_DIR)
    made.daemon_notes.append(
        "confDir: Multus's folder, for net-attach-defs without spec.config; of two files of one "
        "network name the list wins, and a broken one spoils no other. The DaemonSet doesn't mount "
        "it: add it as a hostPath where such net-attach-defs are in use."
    )
    if keys.log_level:
        level = _LOG_LEVELS.get(keys.log_level.lower(), "info")
        made.daemon["logLevel"] = level
        made.daemon_notes.append(f"logLevel: {keys.log_level} is {level} here.")
    if keys.cni_dir:
        made.daemon_notes.append(
            f"cniDir: dropped; records are in stateDir. Multus's are imported from {keys.cni_dir} "
            "by `metaplugin migrate --import-cache`."
        )
    if keys.socket_dir:
        made.daemon_notes.append(
            "socketDir: dropped; the shim finds the daemon by runDir. Where the dynamic networks "
            f"controller is in use, set delegateApi.socket to {_socket(keys.socket_dir)} (see "
            "deploy/README.md: Hot-plug)."
        )
    made.shim["plugin_dirs"] = _on_node(keys.bin_dir or MULTUS_BIN_DIR)
    made.shim_notes.append(
        "plugin_dirs: Multus's binDir, which it searches before CNI_PATH; here CNI_PATH, the "
        "runtime's own, comes first."
    )


def _socket(folder: str) -> str:
    on_node = folder.removeprefix(_CONTAINER_ROOT) if folder.startswith("/host/run") else folder
    return f"{on_node.rstrip('/')}/multus.sock"


def _on_node(path: str) -> str:
    return path.removeprefix(_CONTAINER_ROOT) if path.startswith(f"{_CONTAINER_ROOT}/") else path


def _renamed(installed: Installation, made: Translation) -> None:
    for key, ours in _RENAMED.items():
        if key not in installed.raw:
            continue
        if key == "defaultNetworks" and "clusterNetwork" not in made.daemon:
            made.daemon_notes.append(f"{key}: dropped, as Multus ignores it beside delegates.")
        else:
            value = installed.raw[key]
            made.daemon[ours] = _on_node(value) if isinstance(value, str) else value
            made.daemon_notes.append(f"{key}: {ours} here.")


def _dropped(installed: Installation, made: Translation) -> None:
    for key in installed.raw:
        if key in DROPPED:
            made.daemon_notes.append(f"{key}: dropped: {DROPPED[key]}.")
        elif key not in _TRANSLATED and key not in _RENAMED:
            made.daemon_notes.append(f"{key}: dropped: neither Multus nor metaplugin knows it.")


def _conflist(installed: Installation, made: Translation) -> None:
    keys, notes = installed.keys, made.conflist_notes
    plugin: JSONObject = {"type": "metaplugin"}
    plugin["capabilities"] = keys.capabilities | {POD_ANNOTATIONS_CAPABILITY: True}
    if keys.delegates and not keys.cluster_network:
        plugin["delegates"] = keys.delegates
        notes.append("delegates: as they are; the first is the default network.")
    listed = {
        key: value
        for key, value in installed.around.items()
        if key in {"disableCheck", "disableGC", "cniVersions"}
    }
    made.conflist = {
        "cniVersion": _version(keys.cni_version, notes),
        "name": keys.name or "multus-cni-network",
        **listed,
        "plugins": [plugin, *installed.following],
    }
    notes.append(f"type: metaplugin instead of {keys.type or 'multus-shim'}.")
    if installed.raw.get("overrideNetworkName") and not keys.name:
        notes.append("name: put the default network's here, which overrideNetworkName asks for.")
    notes.append("name: the one in use: runtimes keep what they know of running pods by it.")
    notes.append(
        f"capabilities: {POD_ANNOTATIONS_CAPABILITY} added, by which runtimes (containerd, CRI-O "
        "since 1.29) say a pod's annotations, so that no request lies before its interfaces."
    )
    notes.append(
        "Multus's own 00-multus.conf or .conflist has to go when this file comes: the runtime "
        "takes the first by name. Stop Multus first, or it writes its file again."
    )
    notes.append(
        "CRI-O deletes a pod by the configuration that it was made with, which names Multus's "
        "type: put the shim (and metaplugin.conf) in the place of that executable as well."
    )


def _installation(installed: Installation, made: Translation) -> None:
    """Have the daemon write the configuration, unless it holds what only a hand-written one can."""
    if "delegates" in made.conflist["plugins"][0] or installed.following:
        made.daemon_notes.append(
            "installation: left out, so the daemon writes no CNI configuration, and the DaemonSet "
            "would serve nobody: delegates and plugins chained to Multus are only in the one that "
            "is printed here, which you put in place. Better name the default network by "
            "clusterNetwork, and add `installation: {}`."
        )
        return
    made.daemon["installation"] = {"networkName": made.conflist["name"]}
    folder = installed.raw.get("cniConfigDir")
    if isinstance(folder, str) and _on_node(folder).rstrip("/") != str(CNI_FOLDER):
        made.daemon["installation"]["cniConfDir"] = _on_node(folder)
    if installed.keys.bin_dir:
        made.daemon["installation"]["pluginDirs"] = [_on_node(installed.keys.bin_dir)]
    made.daemon_notes.append(
        "installation: the daemon writes 00-metaplugin.conflist as soon as Multus's file is gone, "
        "under the name in use, and `metaplugin install` (the DaemonSet's init container) writes "
        "metaplugin.conf. Without it both are to be put in place by hand, as printed here."
    )


def _version(version: str, notes: list[str]) -> str:
    if version in SUPPORTED_VERSIONS:
        if version != SUPPORTED_VERSIONS[-1]:
            notes.append(
                f"cniVersion: {version}, as it was. Plugins are spoken to in their own versions, "
                "so this may be as high as the runtime speaks: CHECK needs 0.4.0, GC and STATUS "
                "1.1.0."
            )
        return version
    notes.append(f"cniVersion: {version or 'none given'}; {DEFAULT_VERSION} instead.")
    return DEFAULT_VERSION


def _require_valid(made: Translation) -> None:
    """Raise MigrationError unless the daemon and the shim will take the files."""
    problems: list[Any] = []
    try:
        DaemonConfig.model_validate(made.daemon)
    except ValidationError as exc:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()]
    try:
        parse_network_config(made.conflist, where="the configuration")
    except CNIError as exc:
        problems.append(exc.msg)
    if not made.shim["plugin_dirs"].startswith("/") or not made.shim["plugin_dirs"].isprintable():
        problems.append("binDir: must be an absolute path")
    if problems:
        raise MigrationError("Multus's configuration can't be taken over: " + "; ".join(problems))
