"""A file put in the place of another: whole or not at all, whatever ends the installer."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaplugin.install import files
from metaplugin.install.files import InstallError, put, remove

OLD, NEW = b"old" * 10_000, b"new" * 12_000
PUT = """
import sys
from pathlib import Path
from metaplugin.install.files import put
path = Path(sys.argv[1])
put(path, b"new" * 12_000, mode=0o755)
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "metaplugin"
    put(path, OLD, mode=0o755)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with 64 KiB of room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_an_equal_file_is_left_alone(target: Path) -> None:
    before = target.stat()
    assert not put(target, OLD, mode=0o755)
    after = target.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_root_without_capabilities_is_told_whose_folder_it_is(target: Path) -> None:
    """A /opt/cni/bin as kubespray, or a release of the plugins unpacked, leaves it; the init
    container has no CAP_DAC_OVERRIDE."""
    os.chown(target.parent, 1001, 0)
    target.parent.chmod(0o755)
    command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", sys.executable, "-c", PUT]
    done = subprocess.run([*command, str(target)], check=False, capture_output=True, text=True)
    assert "Permission denied: the folder is user 1001's" in done.stderr
    assert "chown root:root" in done.stderr
    assert target.read_bytes() == OLD


def test_mode_and_owner_are_put_right(target: Path) -> None:
    for mode, owner in ((0o777, 0), (0o755, 1)):
        target.chmod(mode)
        os.chown(target, owner, 0)
        assert put(target, OLD, mode=0o755)
        assert (target.stat().st_mode & 0o7777, target.stat().st_uid) == (0o755, 0)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "link"
    elsewhere.write_bytes(OLD)
    link.symlink_to(elsewhere)
    assert put(link, NEW, mode=0o600)
    assert elsewhere.read_bytes() == OLD
    assert not link.is_symlink()


def test_an_executable_is_replaced_while_it_runs(tmp_path: Path) -> None:
    """MULTUS C2: "text file busy"."""
    target = tmp_path / "sleep"
    put(target, Path("/bin/sleep").read_bytes(), mode=0o755)
    with subprocess.Popen([target, "60"]) as process:
        try:
            with pytest.raises(OSError, match="Text file busy"):
                target.write_bytes(NEW)
            assert put(target, NEW, mode=0o755)
            assert process.poll() is None
        finally:
            process.kill()
    assert target.read_bytes() == NEW


@pytest.mark.parametrize("call", ["openat", "write", "fchmod", "fsync", "rename,renameat"])
@pytest.mark.parametrize("moment", ["enter", "fail"])
def test_whatever_ends_it_the_file_is_whole(call: str, moment: str, target: Path) -> None:
    """Killed at, or refused, each system call on the folder; the next one leaves no trace of it."""
    folder = target.parent
    action = "signal=KILL" if moment == "enter" else "error=EIO"
    names = [str(target), str(folder), f"{folder}/.metaplugin.unfinished"]
    paths = [option for each in names for option in ("-P", each)]
    seen = set()
    for when in range(1, 6):
        put(target, OLD, mode=0o755)
        inject = f"inject={call}:{action}:when={when}"
        command = ["strace", "-f", "-qq", "-o", "/dev/null", *paths, "-e", inject]
        done = subprocess.run(
            [*command, sys.executable, "-c", PUT, target], check=False, capture_output=True
        )
        content = target.read_bytes()
        assert content in (OLD, NEW)
        seen.add((done.returncode == 0, content))
        if done.returncode == 0:
            break
        assert put(target, NEW, mode=0o755) == (content == OLD)
        assert [path.name for path in folder.iterdir()] == ["metaplugin"]
    else:
        pytest.fail(f"{call} was never without the fault: {seen}")
    assert len(seen) > 1, f"{call}: no fault had an effect"


def test_a_full_disk_is_told_and_changes_nothing(small_disk: Path) -> None:
    target = small_disk / "metaplugin"
    put(target, OLD, mode=0o755)
    with pytest.raises(InstallError, match=r"metaplugin: can't be written: No space left"):
        put(target, NEW * 2, mode=0o755)
    assert target.read_bytes() == OLD
    assert [path.name for path in small_disk.iterdir()] == ["metaplugin"]


def test_a_read_only_disk_is_told_and_an_equal_file_on_it_is_fine(small_disk: Path) -> None:
    target = small_disk / "metaplugin"
    put(target, OLD, mode=0o755)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert not put(target, OLD, mode=0o755)
    with pytest.raises(InstallError, match="Read-only file system"):
        put(target, NEW, mode=0o755)
    with pytest.raises(InstallError, match=r"can't be removed: Read-only file system"):
        remove(target)
    assert target.read_bytes() == OLD


def test_those_who_write_at_once_take_turns(target: Path) -> None:
    contents = [bytes([65 + i]) * 50_000 for i in range(8)]
    threads = [
        threading.Thread(target=put, args=(target, content), kwargs={"mode": 0o755})
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in contents
    assert [path.name for path in target.parent.iterdir()] == ["metaplugin"]


def test_a_folder_that_somebody_keeps_is_told(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.2)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(InstallError, match="being changed by another installer"):
            put(target, NEW, mode=0o755)
    finally:
        os.close(folder)


def test_removing_is_no_error_where_nothing_is(target: Path) -> None:
    assert remove(target)
    assert not remove(target)
    assert not remove(target.parent / "no folder" / "metaplugin")
