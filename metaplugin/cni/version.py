"""Versions of the specification, and which of them a configuration selects (CNI section 1)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from metaplugin.cni.errors import IncompatibleVersion, InvalidNetworkConfig

SUPPORTED_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_UNSTATED = "0.1.0"  # configurations before 0.2.0 had no cniVersion


def select_version(raw: dict[str, Any], *, where: str) -> str:
    """Return the highest version that `cniVersion` and `cniVersions` name and we support.

    Neither there, or empty, is 0.1.0. Raise IncompatibleVersion when we support none of them.
    """
    named = _named_versions(raw, where=where)
    known = [version for version in SUPPORTED_VERSIONS if version in named]
    if known:
        return known[-1]
    if named:
        raise IncompatibleVersion(
            f"{where}: cniVersion {', '.join(named)[:100]} is not supported",
            details=f"supported: {', '.join(SUPPORTED_VERSIONS)}",
        )
    return _UNSTATED


def nearest_version(
    supported: Collection[str], wanted: str, *, minimum: str = SUPPORTED_VERSIONS[0]
) -> str | None:
    """Return the version in which to run a plugin that supports these: `wanted`, else the highest
    below it, else the lowest above; None when none of `minimum` or later is shared."""
    known = SUPPORTED_VERSIONS[SUPPORTED_VERSIONS.index(minimum) :]
    shared = [version for version in known if version in supported]
    below = [version for version in shared if at_least(wanted, version)]
    return below[-1] if below else next(iter(shared), None)


def at_least(version: str, minimum: str) -> bool:
    """Say whether a supported version is `minimum` or later."""
    return SUPPORTED_VERSIONS.index(version) >= SUPPORTED_VERSIONS.index(minimum)


def _named_versions(raw: dict[str, Any], *, where: str) -> list[str]:
    single, several = raw.get("cniVersion"), raw.get("cniVersions")
    if not isinstance(single, str | None):
        raise InvalidNetworkConfig(f"{where}: cniVersion must be text")
    if not isinstance(several, list | None) or not all(isinstance(v, str) for v in several or []):
        raise InvalidNetworkConfig(f"{where}: cniVersions must be a list of texts")
    return [version for version in (single, *(several or [])) if version]
