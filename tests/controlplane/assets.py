"""Where the control plane's programs are: the test-asset folder, PATH, or a cache outside the tree.

The standard library only: `make control-plane` runs this before there is an environment.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

VERSION = "1.36.3"


def cache_folder() -> Path:
    """Return where what was built once is kept: METAPLUGIN_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("METAPLUGIN_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "metaplugin"


def built_folder() -> Path:
    return cache_folder() / f"kubernetes-{VERSION}"


def find(program: str) -> Path | None:
    """Return the program's path, or None where it has yet to be built."""
    folders = [os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("PATH"), str(built_folder())]
    found = (shutil.which(program, path=path) for path in folders if path)
    return next((Path(path) for path in found if path), None)


def program(name: str) -> Path:
    """Return the program's path; raise FileNotFoundError with the remedy."""
    path = find(name)
    if path is None:
        raise FileNotFoundError(f"{name} is nowhere: run `make control-plane`")
    return path
