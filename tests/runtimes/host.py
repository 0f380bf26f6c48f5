"""A machine of its own for a node: network and mount namespaces, with what runtimes keep outside
their folders private to it."""

from __future__ import annotations

import subprocess

_SET_UP = """
for folder in /var/lib/cni /run/netns /run/containerd; do
    mkdir -p $folder
    mount -t tmpfs private $folder
done
mkdir /run/containerd/sys
mount -t sysfs sysfs /run/containerd/sys
mount --rbind /sys/fs/cgroup /run/containerd/sys/fs/cgroup
mount --rbind /run/containerd/sys /sys
ip link set lo up
echo ready
exec sleep infinity
"""  # sysfs shows the network namespace it was mounted in; runc looks for cgroups below it


class Host:
    """A host whose eth1 is plugged into a bridge of the test's namespace."""

    def __init__(self, switch: str, port: str) -> None:
        self._port = port
        command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", _SET_UP]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        pid = str(self._holder.pid)
        self.prefix = ("nsenter", "--target", pid, "--net", "--mount", "--")
        for arguments in (
            ["link", "add", port, "type", "veth", "peer", "name", "eth1", "netns", pid],
            ["link", "set", port, "master", switch, "up"],
        ):
            subprocess.run(["ip", *arguments], check=True)
        subprocess.run([*self.prefix, "ip", "link", "set", "eth1", "up"], check=True)

    def close(self) -> None:
        """End the host; its port first, which the kernel would take away some time later."""
        subprocess.run(["ip", "link", "del", self._port], check=True)
        self._holder.kill()
        self._holder.communicate()
