#!/usr/bin/python3
"""A CNI plugin that records its calls and misbehaves on demand.

Keys of its configuration: `log`, a file that gets one JSON line a call; `result`, what ADD prints
in place of the default; and per command a behaviour, such as `"onADD": {"code": 7, "msg": "no"}`:
`code` and `msg` (a CNI error), `exit` (that status, nothing printed), `signal`, `sleep` (seconds),
`print` (this text), `bytes` (so many), `child` (leave one that sleeps so long and holds stdout),
`stderr`.

A file `<plugin>.versions` beside it lists the versions that it supports; then it refuses others as
Go's plugins do, and notes each refusal and each VERSION in `<plugin>.asked`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ALL = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def main() -> None:
    text = sys.stdin.read()
    config = json.loads(text)
    command = os.environ["CNI_COMMAND"]
    if command == "VERSION":
        note_asked(command)
        print(json.dumps({"cniVersion": "1.1.0", "supportedVersions": supported() or ALL}))
        return
    refuse_versions(config, command)
    record(config, command, text)
    misbehave(config.get(f"on{command}", {}), config)
    if command == "ADD":
        print(json.dumps(config.get("result", default_result(config))))


def supported() -> list[str] | None:
    path = Path(f"{sys.argv[0]}.versions")
    return json.loads(path.read_text()) if path.exists() else None


def note_asked(command: str) -> None:
    if supported() is not None:
        with open(f"{sys.argv[0]}.asked", "a") as asked:
            asked.write(f"{command}\n")


def refuse_versions(config: dict[str, Any], command: str) -> None:
    versions = supported()
    if versions is None:
        return
    if command in ("GC", "STATUS") and "1.1.0" not in versions:
        misbehaviour = {"code": 4, "msg": f"unknown CNI_COMMAND: {command}"}
    elif config.get("cniVersion", "0.1.0") not in versions:
        misbehaviour = {"code": 1, "msg": "incompatible CNI versions"}
    else:
        return
    note_asked(command)
    misbehave(misbehaviour, config)


def record(config: dict[str, Any], command: str, text: str) -> None:
    path = config.get("log")
    if not path:
        return
    call = {
        "command": command,
        "type": os.path.basename(sys.argv[0]),
        "env": {key: value for key, value in os.environ.items() if key.startswith("CNI_")},
        "stdin": text,
        "ppid": os.getppid(),
        "pid": os.getpid(),
        "netns": os.readlink("/proc/self/ns/net"),
        "mntns": os.readlink("/proc/self/ns/mnt"),
        "cgroup": Path("/proc/self/cgroup").read_text(),
        "time": time.time(),
    }
    with open(path, "a") as log:
        log.write(json.dumps(call) + "\n")


def misbehave(behaviour: dict[str, Any], config: dict[str, Any]) -> None:
    if "stderr" in behaviour:
        sys.stderr.write(behaviour["stderr"])
    if "child" in behaviour:
        subprocess.Popen(["sleep", str(behaviour["child"])])
    if "sleep" in behaviour:
        time.sleep(behaviour["sleep"])
    if "signal" in behaviour:
        os.kill(os.getpid(), behaviour["signal"])
    if "bytes" in behaviour:
        for _ in range(behaviour["bytes"] // 65536):
            os.write(1, b"x" * 65536)
    if "print" in behaviour:
        print(behaviour["print"])
        sys.exit(behaviour.get("exit", 0))
    if "code" in behaviour:
        error = {"cniVersion": config.get("cniVersion"), "code": behaviour["code"]}
        print(json.dumps(error | {"msg": behaviour.get("msg", "asked to fail"), "details": "noop"}))
        sys.exit(1)
    if "exit" in behaviour:
        sys.exit(behaviour["exit"])


def default_result(config: dict[str, Any]) -> dict[str, Any]:
    """Return the previous result, or one of an interface without addresses."""
    if "prevResult" in config:
        return dict(config["prevResult"])
    interface = {"name": os.environ["CNI_IFNAME"], "mac": "02:00:00:00:00:01"}
    return {
        "cniVersion": config.get("cniVersion"),
        "interfaces": [interface | {"sandbox": os.environ["CNI_NETNS"]}],
    }


if __name__ == "__main__":
    main()
