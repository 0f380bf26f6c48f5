"""The image that `make image` builds, and the runtime in it: where nothing else is."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.image import NAME, make_archive
from deploy.runtime_tree import build, digest
from metaplugin import __version__

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = REPOSITORY / "build" / "image"
ARCHIVE = REPOSITORY / "dist" / "metaplugin-image.tar"
CONTAINERFILE = (REPOSITORY / "deploy" / "Containerfile").read_text()
LARGEST = 90 << 20, 34 << 20  # unpacked, and as it is pulled
EVERY_MODULE = """
import importlib, pkgutil, sys
import metaplugin
names = [found.name for found in pkgutil.walk_packages(metaplugin.__path__, "metaplugin.")]
for name in names:
    importlib.import_module(name)
foreign = [file for module in list(sys.modules.values())
           if (file := getattr(module, "__file__", "") or "").startswith("/")
           and not file.startswith(sys.prefix)]
print(len(names), foreign)
"""

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def blob(descriptor: dict[str, Any]) -> bytes:
    with tarfile.open(ARCHIVE) as archive:
        found = archive.extractfile(f"blobs/{descriptor['digest'].replace(':', '/')}")
        assert found
        return found.read()


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    with tarfile.open(ARCHIVE) as archive:
        index = archive.extractfile("index.json")
        assert index
        [entry] = json.load(index)["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == NAME
    parsed: dict[str, Any] = json.loads(blob(entry))
    return parsed


@pytest.fixture(scope="module")
def layer(manifest: dict[str, Any]) -> tarfile.TarFile:
    [descriptor] = manifest["layers"]
    return tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(descriptor))))


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Path]:
    """A root that has the image and /proc, and nothing of this machine."""
    root = tmp_path / "root"
    shutil.copytree(ROOT, root)
    (root / "proc").mkdir()
    for command in (
        ["mount", "--bind", str(root), str(root)],
        ["mount", "-o", "remount,bind,ro", str(root)],
    ):
        subprocess.run(command, check=True)
    yield root
    subprocess.run(["umount", "-R", root], check=True)


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with `root` as the root and an empty environment."""
    script = 'mount -t proc proc "$0/proc" && exec env -i /usr/sbin/chroot "$0" "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, str(root), *command],
        check=False,
        capture_output=True,
        text=True,
    )


def test_its_configuration_is_the_containerfiles(manifest: dict[str, Any]) -> None:
    """Compared by the words of the Containerfile's last stage, whatever deploy/image.py reads."""
    config = json.loads(blob(manifest["config"]))
    stage = CONTAINERFILE.rpartition("\nFROM ")[2]
    assert stage.startswith("scratch\nCOPY --from=build /source/build/image/ /\n")
    said = dict(re.findall(r"^(ENTRYPOINT|CMD|USER) (.*)$", stage, re.MULTILINE))
    assert config["config"] == {
        "Env": re.findall(r"^ENV (.*)$", stage, re.MULTILINE),
        "User": said["USER"],
        "Entrypoint": json.loads(said["ENTRYPOINT"]),
        "Cmd": json.loads(said["CMD"]),
    }
    words = {line.split()[0] for line in stage.splitlines()[1:]}
    assert words == {"COPY", "ENV", "USER", "ENTRYPOINT", "CMD"}


def test_the_containerfile_names_this_version() -> None:
    assert f"-t {NAME} ." in CONTAINERFILE


def test_its_layer_is_the_root_that_the_containerfile_copies(layer: tarfile.TarFile) -> None:
    entries = {entry.name: entry for entry in layer}
    assert set(entries) == {str(path.relative_to(ROOT)) for path in ROOT.rglob("*")}
    for name, entry in entries.items():
        assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 0)
        assert entry.isdir() or entry.isreg(), f"{name} is neither a file nor a folder"
        assert entry.mode == (ROOT / name).stat().st_mode & 0o7777
        assert entry.mode in ({0o755, 0o644} if name != "tmp" else {0o1777})


def test_the_same_root_gives_the_same_archive(tmp_path: Path) -> None:
    make_archive(ROOT, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == ARCHIVE.read_bytes()


def test_the_same_wheels_give_the_same_tree(tmp_path: Path) -> None:
    [wheel] = (REPOSITORY / "dist").glob("*.whl")
    version = build(tmp_path / "again", wheel, REPOSITORY / "build" / "wheels")
    assert digest(tmp_path / "again") == digest(ROOT / "runtime")
    described = json.loads((ROOT / "runtime" / "runtime.json").read_text())
    assert described == {"version": version, "command": ["bin/metaplugin"]}
    assert version.startswith(f"{__version__}-")


def test_it_is_small() -> None:
    unpacked = sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file())
    assert (unpacked <= LARGEST[0], ARCHIVE.stat().st_size <= LARGEST[1]) == (True, True)


def test_nothing_in_it_is_a_shell_or_compiles() -> None:
    programs = [path for path in ROOT.rglob("*") if path.is_file() and os.access(path, os.X_OK)]
    named = {str(path.relative_to(ROOT / "runtime")) for path in programs}
    assert {name for name in named if name.startswith("bin/")} == {
        "bin/metaplugin",
        "bin/python3",
    }
    assert {Path(name).name for name in named if not name.startswith("bin/")} == {
        "metaplugin",  # the shim
        next(path.name for path in (ROOT / "runtime" / "lib").glob("ld-*")),
    }


def test_every_module_loads_from_it_alone(bare: Path) -> None:
    """What has been left out of the standard library and of packages is not needed."""
    [loader] = (ROOT / "runtime" / "lib").glob("ld-*")
    words = f"/runtime/lib/{loader.name} --library-path /runtime/lib /runtime/bin/python3 -I -c"
    done = run(bare, *words.split(), EVERY_MODULE)
    assert done.returncode == 0, done.stderr
    count, foreign = done.stdout.split(maxsplit=1)
    assert int(count) > 90
    assert foreign == "[]\n"


def test_the_client_has_all_that_api_py_asks_of_it(bare: Path) -> None:
    [loader] = (ROOT / "runtime" / "lib").glob("ld-*")
    words = f"/runtime/lib/{loader.name} --library-path /runtime/lib /runtime/bin/python3 -I -c"
    source = "from kubernetes import client; client.ApiClient(client.Configuration()).rest_client"
    assert run(bare, *words.split(), source).returncode == 0


def test_a_copy_of_the_runtime_runs_at_any_place_of_a_node_without_libraries(
    tmp_path: Path,
) -> None:
    place = tmp_path / "node" / "var" / "lib" / "somewhere else" / "runtime"
    shutil.copytree(ROOT / "runtime", place)
    (tmp_path / "node" / "proc").mkdir()
    program = "/" + str((place / "bin" / "metaplugin").relative_to(tmp_path / "node"))
    done = run(tmp_path / "node", program, "--version")
    assert (done.stdout, done.stderr) == (f"metaplugin, version {__version__}\n", "")


def test_the_program_starts_in_the_image(bare: Path) -> None:
    done = run(bare, "/runtime/bin/metaplugin", "daemon", "--config", "/nowhere")
    assert (done.returncode, done.stderr) == (1, "Error: /nowhere: No such file or directory\n")


def test_an_error_has_the_trace_of_our_own_lines(bare: Path) -> None:
    """Sources of metaplugin are in it, for the log of a defect."""
    del bare
    assert list((ROOT / "runtime").rglob("metaplugin/commands/add.py"))
    assert not list((ROOT / "runtime").rglob("pydantic/main.py"))
