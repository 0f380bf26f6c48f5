"""Where a node's container runtime looks for plugins and for its CNI configuration, by its own
configuration files.

Only what can be seen is a reason: in a container that has single folders of the host there is none,
and the manifests say where they are.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from metaplugin.install.files import InstallError

DEFAULT_BIN_DIR = Path("/opt/cni/bin")
DEFAULT_CONF_DIR = Path("/etc/cni/net.d")
DUMP_S = 10
UNSEEN = "the default; no container runtime's configuration can be seen here"
_SNAP_DATA = "/var/snap/microk8s/current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A folder of the host, and why it was chosen."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where plugins and the runtime's CNI configuration are."""

    bin_dir: Choice
    conf_dir: Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A container runtime that a node may have: its configuration, of which later files win, and
    the socket that it has while it runs."""

    name: str
    patterns: tuple[str, ...]
    socket: str
    keys: Callable[[Mapping[str, Any]], Iterator[tuple[str, str, Any]]]
    dump: tuple[str, ...] = ()  # prints the configuration with what is built in


def detect(root: Path, bin_dir: Path | None, conf_dir: Path | None) -> Places:
    """Return the folders of the runtime below `root`; what is given is taken.

    Raise InstallError where runtimes disagree, or a configuration can't be read.
    """
    asked = {"bin": bin_dir, "conf": conf_dir}
    chosen = {k: Choice(path=path, reason="as was asked for") for k, path in asked.items() if path}
    if len(chosen) < len(asked):
        chosen = _by_default(UNSEEN) | _of_the_one(list(_installed(root)), root) | chosen
    return Places(bin_dir=chosen["bin"], conf_dir=chosen["conf"])


def below(root: Path, path: Path | str) -> Path:
    """Return where the host's path is seen."""
    return root / str(path).lstrip("/")


def _by_default(reason: str) -> dict[str, Choice]:
    paths = {"bin": DEFAULT_BIN_DIR, "conf": DEFAULT_CONF_DIR}
    return {key: Choice(path=path, reason=reason) for key, path in paths.items()}


def _installed(root: Path) -> Iterator[tuple[Runtime, dict[str, Choice]]]:
    for runtime in RUNTIMES:
        files = [file for pattern in runtime.patterns for file in _matching(root, pattern)]
        if files:
            chosen = _by_default(f"{runtime.name}'s default: {', '.join(files)} has no other")
            said = _said(root, files, runtime)
            if len(said) < len(chosen) and root == Path("/") and runtime.dump:
                chosen |= _built_in(runtime)
            yield runtime, chosen | said


def _built_in(runtime: Runtime) -> dict[str, Choice]:
    """Return what the runtime's own program says, for distributions build in folders of theirs; {}
    where it isn't there."""
    told = " ".join(runtime.dump)
    try:
        done = subprocess.run(runtime.dump, check=True, capture_output=True, timeout=DUMP_S)
        raw = tomllib.loads(done.stdout.decode())
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return _choices(raw, runtime, f"`{told}`")


def _matching(root: Path, pattern: str) -> list[str]:
    return [f"/{path.relative_to(root)}" for path in sorted(root.glob(pattern.lstrip("/")))]


def _said(root: Path, files: list[str], runtime: Runtime) -> dict[str, Choice]:
    """Return what the files say, and those that they import, each after the one that names it."""
    chosen: dict[str, Choice] = {}
    to_read, seen = list(files), set()
    while to_read:
        name = to_read.pop(0)
        if name in seen:
            continue
        seen.add(name)
        raw = _load(below(root, name), name)
        chosen |= _choices(raw, runtime, name)
        imports = raw.get("imports")
        patterns = [str(each) for each in imports] if isinstance(imports, list) else []
        places = [os.path.join(os.path.dirname(name), pattern) for pattern in patterns]
        to_read[:0] = [imported for place in places for imported in _matching(root, place)]
    return chosen


def _choices(raw: Mapping[str, Any], runtime: Runtime, source: str) -> dict[str, Choice]:
    return {
        key: Choice(path=Path(os.path.normpath(value)), reason=f"{word} in {source}")
        for key, word, value in runtime.keys(raw)
        if isinstance(value, str) and value
    }


def _of_the_one(found: list[tuple[Runtime, dict[str, Choice]]], root: Path) -> dict[str, Choice]:
    """Return the folders of the runtime that runs; of those that are installed where none does."""
    running = [each for each in found if below(root, each[0].socket).exists()]
    candidates = running or found
    if len({(chosen["bin"].path, chosen["conf"].path) for _, chosen in candidates}) > 1:
        names = ", ".join(
            f"{runtime.name}: {chosen['bin'].path} and {chosen['conf'].path}"
            for runtime, chosen in candidates
        )
        raise InstallError(
            f"several container runtimes are here ({names}): say which by --bin-dir and --conf-dir"
        )
    return candidates[0][1] if candidates else {}


def _load(path: Path, name: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as exc:
        raise InstallError(f"{name}: can't be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise InstallError(f"{name}: no TOML: {exc}") from exc


# By the version of the configuration: 1, 2, 3.
_CRI = ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")


def _containerd(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for plugin in _CRI:
        cni = _section(raw, "plugins", plugin, "cni")
        for key, word in (("bin", "bin_dir"), ("bin", "bin_dirs"), ("conf", "conf_dir")):
            yield key, word, _expanded(_first(cni.get(word)))


def _expanded(value: Any) -> Any:
    """Return the path with the variable that MicroK8s's file has."""
    return Template(value).safe_substitute(SNAP_DATA=_SNAP_DATA) if isinstance(value, str) else None


def _crio(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    network = _section(raw, "crio", "network")
    for key, word in (("bin", "plugin_dir"), ("bin", "plugin_dirs"), ("conf", "network_dir")):
        yield key, word, _first(network.get(word))


def _first(value: Any) -> Any:
    """Return the first folder of a list: plugins are looked for there first."""
    return next(iter(value), None) if isinstance(value, list) else value


def _section(raw: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    found: Any = raw
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


_K3S_SOCKET = "/run/k3s/containerd/containerd.sock"  # RKE2's as well
_CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

RUNTIMES = (
    Runtime(
        name="k3s",
        patterns=("/var/lib/rancher/k3s/agent/etc/containerd/config.toml",),
        socket=_K3S_SOCKET,
        keys=_containerd,
    ),
    Runtime(
        name="RKE2",
        patterns=("/var/lib/rancher/rke2/agent/etc/containerd/config.toml",),
        socket=_K3S_SOCKET,
        keys=_containerd,
    ),
    Runtime(
        name="MicroK8s",
        patterns=(f"{_SNAP_DATA}/args/containerd.toml",),
        socket="/var/snap/microk8s/common/run/containerd.sock",
        keys=_containerd,
    ),
    Runtime(
        name="Talos's containerd",
        patterns=("/etc/cri/containerd.toml",),
        socket=_CONTAINERD_SOCKET,
        keys=_containerd,
    ),
    Runtime(
        name="containerd",
        patterns=("/etc/containerd/config.toml",),
        socket=_CONTAINERD_SOCKET,
        keys=_containerd,
        dump=("containerd", "config", "dump"),
    ),
    Runtime(
        name="CRI-O",  # OpenShift's too
        patterns=("/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*"),
        socket="/run/crio/crio.sock",
        keys=_crio,
    ),
)
