"""The translated configuration as text: what a file can't say in comments stands above it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from metaplugin.migrate.translation import Translation

DAEMON_FILE = "daemon.yaml"
CONFLIST_FILE = "00-metaplugin.conflist"
SHIM_FILE = "metaplugin.conf"
PLACES = {
    DAEMON_FILE: "/etc/cni/metaplugin",
    SHIM_FILE: "beside the shim, e.g. /opt/cni/bin; root's alone",
    CONFLIST_FILE: "/etc/cni/net.d, last of all",
}
_WIDTH = 100


def contents(made: Translation) -> dict[str, str]:
    """Return each file's text by its name."""
    daemon = yaml.safe_dump(made.daemon, sort_keys=False)
    shim = "".join(f"{key}={value}\n" for key, value in made.shim.items())
    return {
        DAEMON_FILE: "".join(_comments(made.daemon_notes)) + daemon,
        SHIM_FILE: "".join(_comments(made.shim_notes)) + shim,
        CONFLIST_FILE: json.dumps(made.conflist, indent=2) + "\n",
    }


def printed(made: Translation) -> str:
    """Return all files for reading, each below a line that names it; JSON takes no comments, so the
    list's notes are above it."""
    parts = []
    for name, content in contents(made).items():
        notes = made.conflist_notes if name == CONFLIST_FILE else []
        parts.append(f"# --- {name}: {PLACES[name]}\n" + "".join(_comments(notes)) + content)
    return "\n".join(parts)


def write(made: Translation, folder: Path) -> list[Path]:
    """Write the files to a folder and return their paths; the list's notes go to a file of their
    own. Raise OSError."""
    texts = contents(made)
    texts[f"{CONFLIST_FILE}.notes"] = "".join(_comments(made.conflist_notes))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return [folder / name for name in texts]


def _comments(notes: Iterable[str]) -> Iterator[str]:
    for note in notes:
        lines = textwrap.wrap(ascii(note)[1:-1] if not note.isprintable() else note, _WIDTH - 2)
        yield from (f"# {line}\n" for line in lines)
