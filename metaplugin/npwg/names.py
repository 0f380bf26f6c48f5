"""The forms of Kubernetes' names: a label for namespaces, labels joined by dots for objects (RFC
1123)."""

from __future__ import annotations

import re
from typing import Any

from metaplugin.cni.errors import InvalidNetworkConfig

_PART = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_LABEL = re.compile(_PART, re.ASCII)
_SUBDOMAIN = re.compile(rf"{_PART}(?:\.{_PART})*", re.ASCII)
_MAX_LABEL, _MAX_SUBDOMAIN = 63, 253


def require_label(value: Any, *, where: str) -> str:
    """Return the value if it is a DNS label; raise InvalidNetworkConfig."""
    return _require(value, _LABEL, _MAX_LABEL, where)


def require_subdomain(value: Any, *, where: str) -> str:
    """Return the value if it is a DNS subdomain; raise InvalidNetworkConfig.

    NPWG 3.3 asks for a label; the API server lets definitions have dots, so we do too.
    """
    return _require(value, _SUBDOMAIN, _MAX_SUBDOMAIN, where)


def _require(value: Any, form: re.Pattern[str], longest: int, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidNetworkConfig(f"{where}: is required, as text")
    if len(value) > longest or not form.fullmatch(value):
        shown = ascii(value if len(value) <= 100 else value[:100] + "…")
        raise InvalidNetworkConfig(
            f"{where}: {shown} is no Kubernetes name: lower-case letters, digits and '-' inside, "
            f"at most {longest} characters"
        )
    return value
