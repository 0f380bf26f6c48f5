"""A pod as Multus attaches it: real plugins run as libcni runs them, and both of its caches, in the
format that Multus 4.3 and libcni 1.3 write."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.system.node import Node, Pod


def attach(node: Node, pod: Pod, cache: Path, networks: dict[str, dict[str, Any]]) -> None:
    """Attach a pod to the networks by name, the first being the default one."""
    delegates = []
    for position, (name, config) in enumerate(networks.items()):
        ifname = f"net{position}" if position else "eth0"
        result = _add(node, pod, config, ifname)
        _remember(cache, pod, config, ifname, result)
        delegates.append(_delegate(name, config))
    (cache / pod.container_id).write_text(json.dumps(delegates))
    (cache / pod.container_id).chmod(0o600)


def hot_plug(node: Node, pod: Pod, cache: Path, config: dict[str, Any], ifname: str) -> None:
    """Do what Multus's /delegate does, which leaves libcni's cache alone."""
    _remember(cache, pod, config, ifname, _add(node, pod, config, ifname))


def _add(node: Node, pod: Pod, config: dict[str, Any], ifname: str) -> dict[str, Any]:
    previous: dict[str, Any] | None = None
    for plugin in config["plugins"]:
        request = plugin | {"name": config["name"], "cniVersion": config["cniVersion"]}
        request |= {"prevResult": previous} if previous else {}
        path = node.root / "plugins" / plugin["type"]
        done = subprocess.run(
            [path if path.exists() else Path("/usr/lib/cni") / plugin["type"]],
            env=node.environment("ADD", pod, CNI_IFNAME=ifname),
            input=json.dumps(request).encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        previous = json.loads(done.stdout)
    assert previous is not None
    return previous


def _remember(
    cache: Path, pod: Pod, config: dict[str, Any], ifname: str, result: dict[str, Any]
) -> None:
    content = {
        "kind": "cniCacheV1",
        "containerId": pod.container_id,
        "config": _base64(config),
        "ifName": ifname,
        "networkName": config["name"],
        "netns": str(pod.netns),
        "cniArgs": [item.split("=", 1) for item in pod.args.split(";")],
        "result": result,
    }
    folder = cache / "results"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{config['name']}-{pod.container_id}-{ifname}"
    path.write_text(json.dumps(content))


def _delegate(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a delegate as Multus stores it, its `Bytes` without the keys that Multus loses."""
    lost = [{k: v for k, v in plugin.items() if k != "log"} for plugin in config["plugins"]]
    return {
        "Conf": {"name": config["name"], "ipam": {}, "dns": {}},
        "ConfList": {"cniVersion": config["cniVersion"], "name": config["name"], "plugins": None},
        "CNINetworkConfigList": {"Name": "", "CNIVersion": "", "Plugins": None, "Bytes": None},
        "Name": name,
        "IsFilterV4Gateway": False,
        "IsFilterV6Gateway": False,
        "Bytes": _base64(config | {"plugins": lost}),
    }


def _base64(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()
