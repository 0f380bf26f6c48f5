"""Runs one Python target under atheris, its arguments libFuzzer's: `python -m tests.fuzz TARGET …`.

atheris is installed by `make fuzz` alone, outside the virtual environment.
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    with atheris.instrument_imports(include=["metaplugin"]):
        from tests.fuzz.targets import TARGETS
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


main()
