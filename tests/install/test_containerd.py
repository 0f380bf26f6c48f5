"""What containerd's own program knows of its folders: distributions build in folders of theirs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaplugin.install.detection import detect

CONFIG = Path("/etc/containerd/config.toml")  # Debian's, in the tests' own mount namespace


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[None]:
    """A configuration that names no folders, in the place of Debian's."""
    own = tmp_path / "config.toml"
    own.write_text("version = 2\n")
    subprocess.run(["mount", "--bind", str(own), str(CONFIG)], check=True)
    yield
    subprocess.run(["umount", str(CONFIG)], check=True)


def test_the_file_comes_before_the_program() -> None:
    places = detect(Path("/"), None, None)
    assert str(places.bin_dir.path) == "/usr/lib/cni"
    assert places.bin_dir.reason == "bin_dir in /etc/containerd/config.toml"


def test_the_program_is_asked_for_what_is_built_in(silent: None) -> None:
    places = detect(Path("/"), None, None)
    assert str(places.bin_dir.path) == "/opt/cni/bin"
    assert places.bin_dir.reason == "bin_dir in `containerd config dump`"


def test_without_the_program_the_default_is_said(
    silent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "containerd's default" in detect(Path("/"), None, None).bin_dir.reason
