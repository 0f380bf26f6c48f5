"""`metaplugin check`: CHECK of what is attached on this node, asked as a runtime asks.

Each complete record is a live attachment; the shim is executed for it, so that the delegates run
where the runtime runs them.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from metaplugin.attachments.record import Failing, Record, StoredRecord
from metaplugin.cni.environment import format_args
from metaplugin.cni.errors import CNIError
from metaplugin.cni.raw import dump, load_object
from metaplugin.state.records import RecordFolder
from metaplugin.wire.container import DamagedRecord

CNI_VERSION = "1.0.0"
LIMIT_S = 240  # as the kubelet's patience with its runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome for one record; `problem` is empty when all is as ADD left it."""

    record: str
    pod: str
    problem: str


async def check_all(state: Path, shim: Path, cni_path: str) -> list[Finding]:
    """Return a finding for each record, by name; raise IOFailure, or OSError for a missing shim."""
    with ThreadPoolExecutor(max_workers=1) as disk:
        survey = await RecordFolder(state, disk).survey()
    return [_check(name, stored, shim, cni_path) for name, stored in survey.items()]


def _check(name: str, stored: StoredRecord | DamagedRecord, shim: Path, cni_path: str) -> Finding:
    if isinstance(stored, DamagedRecord):
        return Finding(record=name, pod="", problem=f"the record is damaged: {stored}")
    record = stored.record
    problem = "its ADD has not been completed; the runtime's DEL, or the next clean-up, ends it"
    if record.failing:
        problem = _failing(record.failing)
    elif record.complete:
        problem = _problem(record, shim, cni_path)
    return Finding(record=name, pod=str(record.pod or ""), problem=problem)


def _failing(failing: Failing) -> str:
    if failing.given_up:
        return f"not released though its pod is gone; the clean-up goes on trying: {failing.error}"
    return f"its DEL fails, and is repeated: {failing.error}"


def _problem(record: Record, shim: Path, cni_path: str) -> str:
    try:
        done = subprocess.run(
            [shim],
            check=False,
            input=dump({"cniVersion": CNI_VERSION, "name": record.network, "type": "metaplugin"}),
            capture_output=True,
            env=_environment(record, cni_path),
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return f"the shim did not answer within {LIMIT_S} s"
    if done.returncode == 0:
        return ""
    try:
        message = str(load_object(done.stdout, what="the shim's answer").get("msg"))
    except CNIError:
        return f"the shim ended with {done.returncode}: {done.stderr.decode(errors='replace')}"
    return message.removeprefix(f"pod {record.pod}: ")  # the finding names it already


def _environment(record: Record, cni_path: str) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "CNI_COMMAND": "CHECK",
        "CNI_CONTAINERID": record.sandbox.container_id,
        "CNI_NETNS": record.sandbox.netns,
        "CNI_IFNAME": record.ifname,
        "CNI_ARGS": format_args(record.attachments[0].planned.runtime.args),
        "CNI_PATH": cni_path,
    }
