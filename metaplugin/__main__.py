"""`python -m metaplugin`: the command line."""

from __future__ import annotations

from metaplugin.daemon.cli import main

if __name__ == "__main__":
    main(prog_name="metaplugin")
