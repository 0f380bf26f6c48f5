"""Hatch's hook for the wheel (`make wheel`): the shim for each architecture, and the examples.

PyPI's ziglang is the cross compiler, with its own musl; a static executable needs nothing of the
node, so one wheel serves both architectures.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ARCHITECTURES = ("x86_64", "aarch64")
FLAGS = ("-std=gnu11", "-Os", "-static", "-ffunction-sections", "-fdata-sections", "-s")


class ShimsHook(BuildHookInterface):  # type: ignore[misc]  # hatchling is there in its build alone
    """Compiles into build/, and adds the executables to the wheel as data of the package."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        for architecture in ARCHITECTURES:
            target = f"metaplugin/shim/bin/{architecture}/metaplugin"
            build_data["force_include"][str(_compile(root, architecture))] = target
        build_data["force_include"][str(root / "examples")] = "metaplugin/demo/examples"


def _compile(root: Path, architecture: str) -> Path:
    shim = root / "build" / "wheel" / architecture / "metaplugin"
    shim.parent.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path) for path in (root / "metaplugin" / "shim").glob("*.c"))
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", f"{architecture}-linux-musl"]
    subprocess.run([*compiler, *FLAGS, "-Wl,--gc-sections", "-o", shim, *sources], check=True)
    return shim
