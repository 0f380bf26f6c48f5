"""Builds kustomize, which renders deploy/, once, into the cache folder.

    python3 -m tests.manifests.build            # deploy/metaplugin.yaml is what deploy/base renders
    python3 -m tests.manifests.build --only     # only kustomize

Debian's kubectl brings one of 2019. The standard library only: it runs before there is an
environment.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.controlplane.assets import cache_folder
from tests.controlplane.build import Go, alone

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"
RENDERED = ROOT / "deploy" / "metaplugin.yaml"
HEADER = """# What deploy/base renders, in one file. The order of steps, and distributions with
# folders of their own: deploy/README.md. crds/ is no part of it: with a
# definition deleted, everybody's net-attach-defs would go.
#
#   kubectl apply -f ../crds
#   kubectl apply -f metaplugin.yaml
#
# Made by `make manifests`: change deploy/base, not this file.
"""


def kustomize() -> Path:
    """Return where the program is, or will be."""
    return cache_folder() / f"kustomize-{PACKAGE.rpartition('@')[2]}" / "kustomize"


def render(folder: Path) -> str:
    """Return a kustomization's documents, as `kubectl apply -k` takes them; raise
    CalledProcessError where it isn't one."""
    command = [str(kustomize()), "build", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def everything() -> str:
    """Return what deploy/metaplugin.yaml is to be."""
    return HEADER + render(ROOT / "deploy" / "base")


def _build() -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        sys.stderr.write(f"building {PACKAGE}, once: a minute\n")
        Go(GOBIN=folder).run("install", "-ldflags=-s -w", PACKAGE)
        kustomize().parent.mkdir(exist_ok=True)
        (Path(folder) / "kustomize").rename(kustomize())


def main() -> None:
    with alone():
        if not kustomize().exists():
            _build()
    if sys.argv[1:] != ["--only"]:
        RENDERED.write_text(everything())


if __name__ == "__main__":
    main()
