"""Where the control plane's programs are looked for, and what the build would make."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.controlplane import assets, build


def make_program(folder: Path, name: str = "etcd") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders in the order of their precedence, all empty."""
    folders = [tmp_path / "assets", tmp_path / "bin", tmp_path / "cache"]
    for variable, folder in zip(("KUBEBUILDER_ASSETS", "PATH"), folders, strict=False):
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.setenv("METAPLUGIN_CACHE", str(folders[2]))
    return [folders[0], folders[1], assets.built_folder()]


@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_asset_folder_comes_before_path_and_path_before_the_cache(
    places: list[Path], first: int
) -> None:
    programs = [make_program(place) for place in places[first:]]
    assert assets.find("etcd") == programs[0]


def test_a_missing_program_names_the_remedy(places: list[Path]) -> None:
    with pytest.raises(FileNotFoundError, match="make control-plane"):
        assets.program("etcd")


def test_nothing_is_built_where_all_is_found(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(places[0])
    monkeypatch.setattr("sys.argv", ["build", "etcd"])
    build.main()
    assert not assets.cache_folder().exists()


def test_the_cache_is_the_users_and_outside_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METAPLUGIN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/cache")
    assert assets.cache_folder() == Path("/somewhere/cache/metaplugin")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert assets.cache_folder() == Path.home() / ".cache" / "metaplugin"
