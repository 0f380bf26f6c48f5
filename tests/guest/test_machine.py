"""How the end of a guest is told, with a script in the emulator's place; the initramfs, with
busybox's cpio."""

from __future__ import annotations

import lzma
import subprocess
from pathlib import Path

import pytest

from tests.guest.build import Parts, parts
from tests.guest.initramfs import initramfs
from tests.guest.machine import BOOTS, run_in_guest

FIND_EXCHANGE = """#!/bin/sh
for word; do
    case $word in local,id=exchange,*) word=${word#*path=}; exchange=${word%%,*} ;; esac
done
echo $$ >> CACHE/boots
echo from the kernel > $exchange/console
"""


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """A kernel with one module that needs another; no emulator yet."""
    monkeypatch.setenv("METAPLUGIN_CACHE", str(tmp_path))
    made = parts()
    for folder in (made.emulator.parent, made.root / "boot"):
        folder.mkdir(parents=True)
    (made.root / "boot" / "vmlinuz-6.0").touch()
    (made.modules / "fs").mkdir(parents=True)
    for name in ("fs/9p.ko.xz", "fs/netfs.ko.xz", "fs/other.ko.xz"):
        (made.modules / name).write_bytes(lzma.compress(name.encode()))
    needs = "fs/other.ko.xz:\nfs/9p.ko.xz: fs/netfs.ko.xz\nfs/netfs.ko.xz:\n"
    (made.modules / "modules.dep").write_text(needs)
    return made


def emulate(guest: Parts, script: str) -> None:
    find_exchange = FIND_EXCHANGE.replace("CACHE", str(guest.folder.parent))
    guest.emulator.write_text(find_exchange + script)
    guest.emulator.chmod(0o755)


def boots(guest: Parts) -> list[str]:
    """Return the emulators' process ids."""
    return (guest.folder.parent / "boots").read_text().splitlines()


def test_the_commands_exit_code_is_returned(guest: Parts) -> None:
    emulate(guest, "grep -q \"'a b'\" $exchange/second.sh && echo 7 > $exchange/exit-code")
    assert run_in_guest(["test", "a b"], folder=Path("/tmp"), timeout=30) == 7


def test_a_guest_that_dies_while_it_runs_the_command_is_told(guest: Parts) -> None:
    emulate(guest, "touch $exchange/started; kill -ABRT $$")
    with pytest.raises(ChildProcessError, match="from the kernel"):
        run_in_guest(["true"], folder=Path("/tmp"), timeout=30)
    assert len(boots(guest)) == 1


def test_a_guest_that_dies_before_is_started_again(guest: Parts) -> None:
    emulate(guest, "kill -ABRT $$")
    with pytest.raises(ChildProcessError, match="from the kernel"):
        run_in_guest(["true"], folder=Path("/tmp"), timeout=30)
    assert len(boots(guest)) == BOOTS


def test_a_guest_that_takes_too_long_is_ended(guest: Parts) -> None:
    emulate(guest, "exec sleep 1000")
    with pytest.raises(TimeoutError, match="from the kernel"):
        run_in_guest(["true"], folder=Path("/tmp"), timeout=1)
    (emulator,) = boots(guest)
    assert not Path("/proc", emulator).exists()


def test_no_guest_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAPLUGIN_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="make guest"):
        run_in_guest(["true"], folder=Path("/tmp"), timeout=1)


def test_the_first_root_has_the_modules_in_the_order_of_their_needs(guest: Parts) -> None:
    archive = initramfs(guest.modules, b"#!/bin/sh\n")
    command = ["busybox", "cpio", "-i", "--to-stdout"]
    listed = subprocess.run(
        ["busybox", "cpio", "-t"], input=archive, check=True, capture_output=True
    ).stdout.decode()
    assert [line for line in listed.splitlines() if line.startswith("modules/")] == [
        "modules/00-netfs.ko",
        "modules/01-9p.ko",
    ]
    extract = [*command, "modules/01-9p.ko"]
    module = subprocess.run(extract, input=archive, check=True, capture_output=True).stdout
    assert module == b"fs/9p.ko.xz"
