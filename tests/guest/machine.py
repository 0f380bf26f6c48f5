"""Runs a command in a guest: a Debian kernel in an emulator that has network cards with virtual
functions. Its root is this machine's, which it can't change.

The emulation is in software (no /dev/kvm is needed), some ten times slower than the machine.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.guest.build import Parts, require_parts
from tests.guest.initramfs import initramfs

FIRST = Path(__file__).with_name("init.sh")
MEMORY_MIB = 2048
CARDS = 2
BOOTS = 3  # qemu 10.0 at times fails an assertion (iotlb_to_section) when drivers map their devices

# What the kernel loads on demand it gets by modprobe; nothing else here loads a device's driver.
SECOND = """
export PATH=/run/guest:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM=dumb
export METAPLUGIN_CACHE={cache}
mkdir -p /dev/shm /lib/modules /run/guest
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
mount --bind {modules} /lib/modules
ln -s {kmod} /run/guest/modprobe
echo /run/guest/modprobe > /proc/sys/kernel/modprobe
modprobe --all igb igbvf vfio-pci
ip link set lo up
stty -F /dev/ttyS1 raw
cd {folder}
touch /run/machine/started
setsid {command} </dev/null >/dev/ttyS1 2>&1
echo $? > /run/machine/exit-code
sync
busybox poweroff -f
"""


def run_in_guest(command: Sequence[str], *, folder: Path, timeout: float) -> int:
    """Run the command in `folder`, as root, for `timeout` seconds at most; return its exit code.

    What it prints is printed as it appears (it comes by the second serial port). A guest that ends
    without an exit code raises ChildProcessError with the end of its console's output; one that
    takes too long, TimeoutError.
    """
    parts = require_parts()
    deadline = time.monotonic() + timeout
    for _ in range(BOOTS):
        with tempfile.TemporaryDirectory(prefix="guest") as name:
            exchange = Path(name)
            (exchange / "second.sh").write_text(_second(parts, command, folder))
            image = initramfs(parts.modules, FIRST.read_bytes())
            (exchange / "initramfs").write_bytes(image)
            _run_emulator(parts, exchange, deadline)
            code = exchange / "exit-code"
            if code.exists():
                return int(code.read_text())
            problem = f"the guest has died; its console:\n{_console(exchange)}"
            if (exchange / "started").exists():
                break
        sys.stderr.write(f"{problem}\n")
    raise ChildProcessError(problem)


def _run_emulator(parts: Parts, exchange: Path, deadline: float) -> None:
    emulator = subprocess.Popen(
        list(_emulator(parts, exchange)),
        stdin=subprocess.DEVNULL,
        env={"LD_LIBRARY_PATH": ":".join(map(str, parts.libraries))},
    )
    try:
        emulator.wait(deadline - time.monotonic())
    except subprocess.TimeoutExpired as exc:
        message = f"the guest took too long; its console:\n{_console(exchange)}"
        raise TimeoutError(message) from exc
    finally:
        emulator.kill()
        emulator.wait()


def _second(parts: Parts, command: Sequence[str], folder: Path) -> str:
    values = {
        "cache": parts.folder.parent,
        "modules": parts.modules.parent,
        "kmod": parts.kmod,
        "folder": folder,
    }
    quoted = {key: shlex.quote(str(value)) for key, value in values.items()}
    return SECOND.format(command=shlex.join(command), **quoted)


def _console(exchange: Path) -> str:
    console = exchange / "console"
    return console.read_text(errors="replace")[-4000:] if console.exists() else "(nothing)"


def _emulator(parts: Parts, exchange: Path) -> Iterator[str]:
    yield str(parts.emulator)
    for folder in parts.firmware:
        yield from ("-L", str(folder))
    yield from ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
    yield from ("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "Nehalem")
    # One processor: with two, the emulator works half as much again. And none whose vectors glibc
    # would choose: they are slow to emulate.
    yield from ("-smp", "1", "-m", str(MEMORY_MIB))
    yield from ("-kernel", str(parts.kernel), "-initrd", str(exchange / "initramfs"))
    yield from ("-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr")
    yield from ("-serial", f"file:{exchange / 'console'}", "-serial", "stdio")
    # Paths of several file systems lie below root: their inode numbers are told apart.
    yield from ("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap")
    yield from ("-device", "virtio-9p-pci,fsdev=root,mount_tag=root")
    yield from ("-fsdev", f"local,id=exchange,path={exchange},security_model=none")
    yield from ("-device", "virtio-9p-pci,fsdev=exchange,mount_tag=exchange")
    # The IOMMU is what vfio-pci asks for.
    yield from ("-device", "intel-iommu,intremap=off,caching-mode=on")
    for card in range(CARDS):
        yield from ("-device", f"pcie-root-port,id=port{card},slot={card},chassis={card + 1}")
        yield from ("-netdev", f"hubport,id=wire{card},hubid=0")
        mac = f"52:54:00:aa:00:{card + 1:02x}"
        yield from ("-device", f"igb,bus=port{card},netdev=wire{card},mac={mac}")
