"""What the installer writes into the shim's file and into the host's copy of the daemon's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from metaplugin.daemon.config import DaemonConfig, InstallationConfig

GENERATED = b"# Written by `metaplugin install`: changes made here are lost.\n"


def shim_conf(config: DaemonConfig, *, fallback: Path | None, config_path: Path) -> bytes:
    """Return metaplugin.conf: the daemon's folders, and what to start where no daemon runs."""
    installation = config.installation or InstallationConfig()
    keys: dict[str, object] = {"run_dir": config.run_dir, "state_dir": config.state_dir}
    if fallback:
        keys |= {"fallback": fallback, "fallback_config": config_path}
    if installation.plugin_dirs:
        keys["plugin_dirs"] = ":".join(map(str, installation.plugin_dirs))
    waits = {
        "add_wait_ms": installation.add_wait_ms if fallback else None,
        "del_wait_ms": installation.del_wait_ms,
        "status_wait_ms": installation.status_wait_ms,
    }
    keys |= {key: value for key, value in waits.items() if value is not None}
    return GENERATED + "".join(f"{key}={value}\n" for key, value in keys.items()).encode()


def host_config(source: bytes, config: DaemonConfig, *, node_name: str) -> bytes:
    """Return the daemon's file for the host: as it is, but for what only its pod knows, the node's
    name, and for the credentials that the pod has and the host hasn't."""
    raw: dict[str, Any] = yaml.safe_load(source) or {}
    changed: dict[str, Any] = {}
    if config.kubernetes:
        if node_name and not config.kubernetes.node_name:
            changed["nodeName"] = node_name
        if config.installation and config.installation.fallback_kubeconfig:
            changed["kubeconfig"] = str(config.installation.fallback_kubeconfig)
    if not changed:
        return GENERATED + source
    raw["kubernetes"] = (raw.get("kubernetes") or {}) | changed
    return GENERATED + yaml.safe_dump(raw, sort_keys=False).encode()
