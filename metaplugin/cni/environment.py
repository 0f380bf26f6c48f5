"""The environment of a call (CNI section 2), and the forms of names that are prescribed.

A name that went through its validator here may become part of a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from metaplugin.cni.errors import InvalidEnvironment, InvalidNetworkConfig

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", re.ASCII)
_IDENTIFIER_FORM = "must begin with a letter or digit and go on with these, '_', '.' or '-'"
_MAX_INTERFACE_BYTES = 15  # the kernel's IFNAMSIZ with the ending NUL
_MAX_FILE_NAME_BYTES = 255
_SHOWN = 100  # characters of a bad value that an error shows


class Command(StrEnum):
    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


_REQUIRED = {
    Command.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
    Command.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.GC: ("CNI_PATH",),
    Command.STATUS: (),
    Command.VERSION: (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CmdArgs:
    """The CNI_* variables of a call; `args` are CNI_ARGS in their order."""

    command: Command
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: tuple[tuple[str, str], ...] = ()
    path: str = ""


def parse_environment(env: Mapping[str, str]) -> CmdArgs:
    """Return the call that the environment describes; raise InvalidEnvironment (code 4)."""
    command = _command(env.get("CNI_COMMAND", ""))
    if missing := [name for name in _REQUIRED[command] if not env.get(name)]:
        raise InvalidEnvironment(f"{command} needs {', '.join(missing)}")
    container_id, ifname = env.get("CNI_CONTAINERID", ""), env.get("CNI_IFNAME", "")
    if "CNI_CONTAINERID" in _REQUIRED[command]:
        validate_container_id(container_id)
        if problem := _interface_problem(ifname):
            raise InvalidEnvironment(f"CNI_IFNAME {_shown(ifname)}: {problem}")
    return CmdArgs(
        command=command,
        container_id=container_id,
        netns=env.get("CNI_NETNS", ""),
        ifname=ifname,
        args=parse_args(env.get("CNI_ARGS", "")),
        path=env.get("CNI_PATH", ""),
    )


def _command(text: str) -> Command:
    try:
        return Command(text)
    except ValueError as exc:
        raise InvalidEnvironment(
            f"CNI_COMMAND: unknown command {_shown(text)}" if text else "CNI_COMMAND is not set"
        ) from exc


def parse_args(text: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of `K=V;K=V`; a value may hold `=`. Raise InvalidEnvironment."""
    if not text:
        return ()
    if _has_surrogates(text):
        raise InvalidEnvironment(f"CNI_ARGS: {_shown(text)} is not UTF-8")
    pairs = [item.partition("=") for item in text.split(";")]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise InvalidEnvironment(f"CNI_ARGS: {_shown(key + equals)} is not KEY=VALUE")
    return tuple((key, value) for key, _, value in pairs)


def format_args(pairs: Iterable[tuple[str, str]]) -> str:
    return ";".join(f"{key}={value}" for key, value in pairs)


def validate_container_id(container_id: str) -> None:
    """Raise InvalidEnvironment unless the id has the specification's form; any length will do."""
    if not _IDENTIFIER.fullmatch(container_id):
        raise InvalidEnvironment(f"CNI_CONTAINERID {_shown(container_id)}: {_IDENTIFIER_FORM}")


def validate_interface_name(name: str, *, where: str) -> None:
    """Raise InvalidNetworkConfig unless Linux and the specification allow the name."""
    if problem := _interface_problem(name):
        raise InvalidNetworkConfig(f"{where}: interface name {_shown(name)}: {problem}")


def validate_network_name(name: str, *, where: str) -> None:
    """Raise InvalidNetworkConfig unless the name has a container id's form and fits a file name."""
    if not _IDENTIFIER.fullmatch(name):
        raise InvalidNetworkConfig(f"{where}: network name {_shown(name)}: {_IDENTIFIER_FORM}")
    if len(name) > _MAX_FILE_NAME_BYTES:
        raise InvalidNetworkConfig(
            f"{where}: network name {_shown(name)}: at most {_MAX_FILE_NAME_BYTES} characters"
        )


def validate_plugin_type(name: str, *, where: str) -> None:
    """Raise InvalidNetworkConfig unless the type is a plain file name: it is looked up as one."""
    if not name or name in {".", ".."} or set(name) & {"/", "\0"} or _has_surrogates(name):
        raise InvalidNetworkConfig(
            f"{where}: plugin type {_shown(name)}: must be a plain file name"
        )
    if len(name.encode()) > _MAX_FILE_NAME_BYTES:
        raise InvalidNetworkConfig(
            f"{where}: plugin type {_shown(name)}: at most {_MAX_FILE_NAME_BYTES} bytes"
        )


def _interface_problem(name: str) -> str:
    if not name:
        return "must not be empty"
    if len(name.encode(errors="surrogatepass")) > _MAX_INTERFACE_BYTES:
        return f"at most {_MAX_INTERFACE_BYTES} bytes"
    if name in {".", ".."} or any(c in "/:\0" or c.isspace() for c in name):
        return "must not be '.' or '..', nor hold '/', ':' or blanks"
    return "must be Unicode text" if _has_surrogates(name) else ""


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _shown(value: str) -> str:
    return ascii(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
