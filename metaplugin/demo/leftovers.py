"""What is on the node, before and after: links, rules, leases, records and every other file.

Some things stay by their makers' design; each is known here with its reason, and nothing else may.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from metaplugin.demo.inspection import ip_json
from metaplugin.demo.namespaces import CNI_STATE, command

FILE_KINDS = (
    (f"{CNI_STATE}/networks/*/[0-9]*", "leases"),
    (f"{CNI_STATE}/metaplugin/attachments/*", "records"),
    ("/run/metaplugin/locks/*", "locks"),
    ("/run/netns/*", "network namespaces"),
    ("*/status/*", "network-status files"),
)
_BRIDGES = "the bridge plugin keeps its bridges"
_CHAINS = "portmap keeps three chains that all pods share"
_HOST_LOCAL = "host-local keeps its lock and the last address given"
KEPT_BY_DESIGN = (
    ("links", "bridge *", _BRIDGES),
    ("rules", "* nat :CNI-HOSTPORT-*", _CHAINS),
    ("rules", "* nat -A PREROUTING * -j CNI-HOSTPORT-DNAT", _CHAINS),
    ("rules", "* nat -A OUTPUT * -j CNI-HOSTPORT-DNAT", _CHAINS),
    ("rules", "* nat -A POSTROUTING * -j CNI-HOSTPORT-MASQ", _CHAINS),
    ("rules", "* nat -A CNI-HOSTPORT-MASQ *", _CHAINS),
    ("rules", "* nat -A CNI-HOSTPORT-SETMARK *", _CHAINS),
    ("files", f"{CNI_STATE}/networks/*/lock", _HOST_LOCAL),
    ("files", f"{CNI_STATE}/networks/*/last_reserved_ip.*", _HOST_LOCAL),
    ("files", f"{CNI_STATE}/metaplugin/tombstones/*", "metaplugin knows for a day what it deleted"),
    ("files", f"{CNI_STATE}/metaplugin/state.db*", "the daemon keeps its cache of the cluster"),
    ("files", "/run/xtables.lock", "iptables keeps its lock"),
)
MUST_APPEAR = ("links", "rules", "leases", "records", "network namespaces", "network-status files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One kind of thing over the demo; `kept` maps what stays by design to the reason."""

    kind: str
    before: int
    during: int
    left: tuple[str, ...]
    kept: Mapping[str, str]


def everything(own_folder: Path) -> dict[str, set[str]]:
    """Return what is on the node, by kind; the demo's own installation is not looked at."""
    found: dict[str, set[str]] = {kind: set() for _, kind in FILE_KINDS}
    found |= {"links": _links(), "rules": _rules(), "processes": _processes(), "files": set()}
    for path in _files(own_folder):
        kind = next((kind for pattern, kind in FILE_KINDS if fnmatch(path, pattern)), "files")
        found[kind].add(path)
    return found


def compare(
    before: Mapping[str, set[str]], during: Mapping[str, set[str]], after: Mapping[str, set[str]]
) -> Iterator[Comparison]:
    """Yield for each kind what is there now and wasn't before."""
    for kind, things in after.items():
        new = sorted(things - before[kind])
        kept = {thing: reason for thing in new if (reason := _reason(kind, thing))}
        yield Comparison(
            kind=kind,
            before=len(before[kind]),
            during=len(during[kind]),
            left=tuple(thing for thing in new if thing not in kept),
            kept=kept,
        )


def _reason(kind: str, thing: str) -> str:
    matching = (
        why for of, pattern, why in KEPT_BY_DESIGN if of == kind and fnmatch(thing, pattern)
    )
    return next(matching, "")


def bridges() -> list[str]:
    """Return the names of the node's bridges."""
    return [link["ifname"] for link in ip_json("link") if _kind(link) == "bridge"]


def _links() -> set[str]:
    return {f"{_kind(link)} {link['ifname']}" for link in ip_json("link")}


def _kind(link: Mapping[str, object]) -> str:
    info = link.get("linkinfo")
    return str(info.get("info_kind", "link")) if isinstance(info, dict) else "link"


def _rules() -> set[str]:
    """Return every chain and rule of every table, IPv4 and IPv6, without their counters."""
    lines = set()
    for program in ("iptables-save", "ip6tables-save"):
        table = ""
        for line in command([program]).splitlines():
            table = line.removeprefix("*") if line.startswith("*") else table
            if line.startswith(("-A", ":")) and not _is_empty_builtin(line):
                lines.add(f"{program.removesuffix('-save')} {table} {_without_counters(line)}")
    return lines


def _is_empty_builtin(line: str) -> bool:
    """Tell a built-in chain, which appears when somebody looks, from a plugin's."""
    return re.match(r":[A-Z]+ (ACCEPT|DROP) ", line) is not None


def _without_counters(line: str) -> str:
    return re.sub(r"\s*\[\d+:\d+\]\s*", "", line)


def _processes() -> set[str]:
    """Return the command lines of all other processes; zombies are as good as gone."""
    commands = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command_line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(folder.name) != os.getpid() and command_line:
            commands.add(f"{folder.name} {command_line.strip()}")
    return commands


def _files(own_folder: Path) -> Iterator[str]:
    for top in (Path("/run"), CNI_STATE):
        for path in top.rglob("*"):
            if not path.is_dir() and not _is_ours(path, own_folder):
                yield str(path)


def _is_ours(path: Path, own_folder: Path) -> bool:
    return path.is_relative_to(own_folder) and not path.is_relative_to(own_folder / "status")
