"""A machine of its own for a node: namespaces, and folders at their standard paths on a disk that
survives a loss of power.

/etc, /opt and /var are the host's with the machine's own changes over them, /run is empty after
each boot, and all else is the host's. What a machine writes at other places stays there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.controlplane.cluster import Program
from tests.runtimes.cgroups import remove_cgroups

_CGROUPS = Path("/sys/fs/cgroup")

# Process 1 reaps what containers' shims leave. sysfs shows the network namespace it was mounted in;
# runc looks for cgroups below it. The settings are those which a kubelet would else change for the
# whole host: it finds them as it wants them.
_BOOT = """
hostname "$1"; disk=$2
for folder in etc opt var; do
    mkdir -p $disk/$folder $disk/.overlay/$folder
    layers=lowerdir=/$folder,upperdir=$disk/$folder,workdir=$disk/.overlay/$folder
    mount -t overlay -o $layers $folder /$folder
done
if ! test -e $disk/booted; then
    rm -rf /etc/{cni,containerd} /opt/cni /var/lib/{cni,containerd,kubelet} /var/log/pods
    mkdir -p /etc/cni/net.d /opt/cni/bin /etc/containerd /etc/kubernetes/manifests
    mkdir -p /var/lib/{cni,containerd,kubelet} /var/log/{pods,containers} $disk/containerd
    touch $disk/booted
fi
mount --bind $disk/containerd /var/lib/containerd
mount -t tmpfs -o mode=0755 run /run
mkdir -p /run/netns /run/lock /run/sys /run/settings
mount -t sysfs sysfs /run/sys
mount --rbind /sys/fs/cgroup /run/sys/fs/cgroup
mount --rbind /run/sys /sys
while read -r name value; do
    if test -e /proc/sys/$name; then
        echo $value >/run/settings/${name##*/}
        mount --bind /run/settings/${name##*/} /proc/sys/$name
    fi
done <<SETTINGS
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SETTINGS
mount --make-rshared /
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo ready
sleep infinity &
while :; do wait; done
"""


def until(
    condition: Callable[[], bool], what: str | Callable[[], str], *, seconds: float = 60
) -> None:
    """Return when the condition holds; raise TimeoutError that says what didn't."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what if isinstance(what, str) else what())
        time.sleep(0.05)


class Service(Program):
    """A program in a machine's namespaces; signals reach the program, not what entered them."""

    def start(self) -> None:
        super().start()
        self._program = _child_of(super().pid)

    @property
    def pid(self) -> int:
        """The program's process, as the tests' own namespace numbers it."""
        return self._program


class Machine:
    """A machine with an interface on each of `wires`, bridges of the tests' namespace."""

    def __init__(self, name: str, disk: Path, wires: Sequence[str]) -> None:
        disk.mkdir(parents=True, exist_ok=True)
        self.name, self.disk, self._wires = name, disk, wires
        self.logs = disk.parent / f"{disk.name}-logs"
        self.logs.mkdir(exist_ok=True)
        self.cgroup = f"/metaplugin-tests-{os.urandom(4).hex()}-{name}"  # the host's, not ours
        self._namespaces: subprocess.Popen[bytes] | None = None
        self._first = 0
        self._services: list[Service] = []

    @property
    def running(self) -> bool:
        return self._namespaces is not None

    @property
    def pid(self) -> int:
        """The machine's process 1, as the tests' own namespace numbers it."""
        assert self._namespaces is not None, f"{self.name} is off"
        return self._first

    @property
    def prefix(self) -> tuple[str, ...]:
        """The command that runs another one on this machine."""
        return ("nsenter", "--target", str(self.pid), *_ALL, "--")

    def path(self, path: str) -> Path:
        """Return where a file of the machine is for the tests."""
        return Path(f"/proc/{self.pid}/root{path}")

    def boot(self) -> None:
        assert not self.running
        self._make_cgroups()
        command = ["unshare", *_ALL, "--fork", "--kill-child", "--mount-proc"]
        shell = ["--propagation", "private", "bash", "-euc", _BOOT, "boot"]
        with (self.logs / "boot.log").open("ab") as log:
            self._namespaces = subprocess.Popen(
                [*command, *shell, self.name, str(self.disk)], stdout=subprocess.PIPE, stderr=log
            )
        assert self._namespaces.stdout is not None
        self._first = _child_of(self._namespaces.pid)
        assert self._namespaces.stdout.readline() == b"ready\n", f"see {self.logs}"
        for number, wire in enumerate(self._wires):
            port = self._port(number)
            ends = ["type", "veth", "peer", "name", f"eth{number}", "netns", str(self.pid)]
            ip("link", "add", port, *ends)
            ip("link", "set", port, "master", wire, "up")
            self.run("ip", "link", "set", f"eth{number}", "up")

    def _port(self, number: int) -> str:
        return f"{self._wires[number]}-{self.name}"

    def _make_cgroups(self) -> None:
        """Make the machine's cgroup in every hierarchy: a kubelet wants its root to be there."""
        for hierarchy in (path for path in _CGROUPS.iterdir() if path.is_dir()):
            group = hierarchy / self.cgroup[1:]
            if not group.exists() and not hierarchy.is_symlink():
                group.mkdir()
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / setting).exists():
                    (group / setting).write_text((hierarchy / setting).read_text())

    def lose_power(self) -> None:
        """Kill everything at once; the disk is as it is at that moment."""
        if self._namespaces is None:
            return
        for number in range(len(self._wires)):
            # The kernel would do so some time later; there is none where the boot failed.
            delete = ["ip", "link", "del", self._port(number)]
            subprocess.run(delete, check=False, capture_output=True)
        if self._first:
            os.kill(self._first, signal.SIGKILL)
        self._namespaces.communicate()  # the last of its processes has ended
        for service in self._services:
            service.kill()
        self._services.clear()
        self._namespaces, self._first = None, 0
        remove_cgroups(self.cgroup[1:])

    def run(self, *command: str | Path, text: str | None = None) -> str:
        """Run a command; return its output; raise RuntimeError with it where it fails."""
        done = subprocess.run(
            [*self.prefix, *command], check=False, capture_output=True, text=True, input=text
        )
        if done.returncode:
            raise RuntimeError(f"{command} on {self.name}: {done.stdout}{done.stderr}")
        return done.stdout

    def serve(self, name: str, *command: str | Path) -> Service:
        """Start a service; its log is in the machine's folder of logs."""
        service = Service([*self.prefix, *command], self.logs / f"{name}.log")
        service.start()
        self._services.append(service)
        return service

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the machine, by rename in its folder as an installer would."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.new")
        temporary.write_text(text)
        temporary.chmod(mode)
        temporary.rename(file)


_ALL = ("--mount", "--net", "--pid", "--uts", "--ipc")


def ip(*arguments: str) -> None:
    """Run `ip` outside of all machines; raise CalledProcessError."""
    subprocess.run(["ip", *arguments], check=True)


def _child_of(pid: int) -> int:
    """Return the only child of a process that forked once, as soon as it has."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    until(lambda: bool(children.read_text().split()), f"process {pid} starts nothing", seconds=10)
    return int(children.read_text().split()[0])
