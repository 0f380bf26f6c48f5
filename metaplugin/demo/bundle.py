"""Where the demo's examples and shim are: as `make` built them in a checkout, or in the wheel."""

from __future__ import annotations

import platform
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parent
_BUNDLED_EXAMPLES = _PACKAGE / "demo" / "examples"

_IN_WHEEL = _BUNDLED_EXAMPLES.is_dir()
EXAMPLES = _BUNDLED_EXAMPLES if _IN_WHEEL else _CHECKOUT / "examples"
SHIM = (
    _PACKAGE / "shim" / "bin" / platform.machine() / "metaplugin"
    if _IN_WHEEL
    else _CHECKOUT / "build" / "metaplugin-shim"
)
