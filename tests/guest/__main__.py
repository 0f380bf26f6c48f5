"""Runs a command in a guest that has SR-IOV: python -m tests.guest COMMAND..."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.guest.machine import run_in_guest

TIMEOUT_S = 900.0  # CI has 90 minutes for everything

if __name__ == "__main__":
    try:
        sys.exit(run_in_guest(sys.argv[1:], folder=Path.cwd(), timeout=TIMEOUT_S))
    except (OSError, TimeoutError) as exc:
        sys.exit(str(exc))
