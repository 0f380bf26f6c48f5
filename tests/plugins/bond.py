#!/usr/bin/python3
"""A CNI plugin that bonds interfaces which earlier networks have brought into the pod; its keys are
the bond plugin's: `links` (a list of `{"name": …}`), `mode`, `miimon`.

The real one, github.com/k8snetworkplumbingwg/bond-cni, can't be had as a Go module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def main() -> None:
    config = json.load(sys.stdin)
    command = os.environ["CNI_COMMAND"]
    if command == "VERSION":
        print(json.dumps({"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}))
    elif command == "ADD":
        add(config, os.environ["CNI_IFNAME"])
    elif command == "DEL" and os.environ.get("CNI_NETNS"):
        delete(os.environ["CNI_IFNAME"])


def inside(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["nsenter", f"--net={os.environ['CNI_NETNS']}", "ip", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def add(config: dict[str, Any], name: str) -> None:
    mode, miimon = config["mode"], str(config["miimon"])
    kind = ["type", "bond", "mode", mode, "miimon", miimon, "fail_over_mac", "active"]
    steps = [["link", "add", name, *kind]]
    for link in config["links"]:
        steps.append(["link", "set", link["name"], "down"])
        steps.append(["link", "set", link["name"], "master", name])
    steps.append(["link", "set", name, "up"])
    for step in steps:
        done = inside(*step)
        if done.returncode:
            error = {"cniVersion": config["cniVersion"], "code": 100, "msg": done.stderr.strip()}
            print(json.dumps(error))
            sys.exit(1)
    interface = {"name": name, "sandbox": os.environ["CNI_NETNS"]}
    print(json.dumps({"cniVersion": config["cniVersion"], "interfaces": [interface]}))


def delete(name: str) -> None:
    """Let the links go and remove the bond; fail where a link is gone from it already."""
    links = json.loads(inside("-json", "link", "show", "master", name).stdout or "[]")
    if len(links) < 2:
        sys.exit(f"{name} has lost its links before its DEL")
    inside("link", "del", name)


if __name__ == "__main__":
    main()
