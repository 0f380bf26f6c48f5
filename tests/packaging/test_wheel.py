"""The wheel that `make wheel` builds, installed where nothing else is."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def wheel() -> Path:
    [found] = (REPOSITORY / "dist").glob("*.whl")
    return found


def test_the_demo_works_from_the_wheel_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    # The tests' namespaces have no network: `make wheel` has fetched what the wheel depends on.
    wheels = ["--no-index", "--find-links", str(REPOSITORY / "build" / "wheels")]
    subprocess.run([environment / "bin" / "pip", "install", *wheels, wheel], check=True)
    done = subprocess.run(
        [environment / "bin" / "metaplugin", "demo"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_shim_of_each_architecture_answers(
    wheel: Path, tmp_path: Path, architecture: str
) -> None:
    """CNI-VER-1; a foreign architecture's runs under qemu's user emulation."""
    shim = tmp_path / "metaplugin"
    with zipfile.ZipFile(wheel) as archive:
        shim.write_bytes(archive.read(f"metaplugin/shim/bin/{architecture}/metaplugin"))
    shim.chmod(0o755)
    emulation = [] if platform.machine() == architecture else [f"qemu-{architecture}"]
    done = subprocess.run(
        [*emulation, shim],
        check=True,
        capture_output=True,
        env={"CNI_COMMAND": "VERSION", "PATH": "/usr/bin:/bin"},
        input=b'{"cniVersion": "1.1.0"}',
    )
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]
