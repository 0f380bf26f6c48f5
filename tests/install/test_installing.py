"""`metaplugin install` as a whole, on a host's folders."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metaplugin.install.runtime_tree import remove_trees
from tests.install.host import Host, make_tree
from tests.system.node import REPOSITORY, SHIM

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host", tmp_path / "daemon.yaml", tmp_path / "tree")


def snapshot(host: Host) -> dict[str, tuple[int, int]]:
    paths = (path for path in host.root.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def test_everything_is_put_where_it_belongs(host: Host) -> None:
    done = host.install()
    assert done.code == 0, done.text
    assert (host.bin / "metaplugin").read_bytes() == SHIM.read_bytes()
    assert (host.bin / "metaplugin").stat().st_mode & 0o7777 == 0o755
    program = "/var/lib/cni/metaplugin/runtime/1/bin/metaplugin"
    assert host.shim_keys() == {
        "run_dir": "/run/metaplugin",
        "state_dir": "/var/lib/cni/metaplugin",
        "fallback": program,
        "fallback_config": "/etc/cni/metaplugin/daemon.yaml",
        "add_wait_ms": "10000",
    }
    assert (host.bin / "metaplugin.conf").stat().st_mode & 0o7777 == 0o600
    assert (host.root / program.lstrip("/")).is_file()
    assert "nodeName: node-1" in (host.root / "etc/cni/metaplugin/daemon.yaml").read_text()
    assert [path.name for path in host.net_d.iterdir()] == ["10-calico.conflist"]


def test_the_state_is_roots_alone(host: Host) -> None:
    """ROB-8: the kubelet makes a hostPath's folder for everybody to read."""
    host.state.mkdir(parents=True)
    host.state.chmod(0o755)
    host.install()
    assert host.state.stat().st_mode & 0o7777 == 0o700


def test_what_is_equal_is_not_touched(host: Host) -> None:
    host.install("--configuration")
    before = snapshot(host)
    done = host.install("--configuration")
    assert done.code == 0
    assert "written" not in done.text
    assert snapshot(host) == before


def test_the_shim_takes_the_file_that_was_written(host: Host) -> None:
    """The shim refuses a file that it can't read, and keys that it doesn't know."""
    host.install()
    environment = {"CNI_COMMAND": "VERSION"}
    shim = host.bin / "metaplugin"
    done = subprocess.run([shim], check=False, capture_output=True, input=b"{}", env=environment)
    assert done.returncode == 0, done.stdout


def test_a_shim_that_runs_is_replaced(host: Host) -> None:
    """MULTUS C2."""
    old = host.bin / "metaplugin"
    shutil.copy("/bin/sleep", old)
    with subprocess.Popen([old, "60"]) as process:
        try:
            done = host.install()
            assert done.code == 0, done.text
            assert process.poll() is None
        finally:
            process.kill()
    assert old.read_bytes() == SHIM.read_bytes()


def test_the_configuration_is_made_from_the_default_networks(host: Host) -> None:
    done = host.install("--configuration")
    assert done.code == 0, done.text
    made = json.loads((host.net_d / "00-metaplugin.conflist").read_text())
    capabilities = {"io.kubernetes.cri.pod-annotations": True, "portMappings": True}
    assert made["plugins"] == [{"type": "metaplugin", "capabilities": capabilities}]


def test_it_waits_for_a_default_network(host: Host) -> None:
    calico = host.net_d / "10-calico.conflist"
    content = calico.read_text()
    calico.unlink()
    done = host.install("--configuration", "--wait", "1")
    assert done.code == 1
    assert "no default network can be used" in done.text
    assert done.text.count("waiting for a default network") == 1
    command = [*host.command, "--configuration"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "waiting for a default network" in line:
                calico.write_text(content)
    assert process.returncode == 0
    assert (host.net_d / "00-metaplugin.conflist").exists()


def test_multus_is_not_pushed_aside(host: Host) -> None:
    """Pods that it attached are its to delete, until they have been imported."""
    host.write("00-multus.conf", {"type": "multus-shim", "name": "m"})
    done = host.install("--configuration")
    assert done.code == 1
    assert "metaplugin migrate" in done.text
    assert not (host.bin / "metaplugin").exists()
    host.config.write_text("installation: {besideMultus: true}")
    done = host.install("--configuration")
    assert done.code == 0, done.text
    assert min(path.name for path in host.net_d.iterdir()) == "00-metaplugin.conflist"


@pytest.mark.parametrize(
    ("folder", "option"), [("opt/cni/bin", "--bin-dir"), ("etc/cni/net.d", "--conf-dir")]
)
def test_a_wrong_guess_is_refused(folder: str, option: str, host: Host) -> None:
    shutil.rmtree(host.root / folder)
    done = host.install("--configuration")
    assert done.code == 1
    assert "no such folder" in done.text
    assert option in done.text
    assert not (host.root / folder).exists()


def test_the_daemons_folder_must_be_the_runtimes(host: Host) -> None:
    containerd = host.root / "etc/containerd/config.toml"
    containerd.parent.mkdir()
    containerd.write_text('version = 1\nplugins.cri.cni.conf_dir = "/var/cni"\n')
    done = host.install()
    assert done.code == 1
    assert "conf_dir in /etc/containerd/config.toml" in done.text
    assert host.install("--conf-dir", "/etc/cni/net.d").code == 0


def test_without_a_configuration_the_least_of_one_is_told(host: Host) -> None:
    host.config.unlink()
    done = host.install()
    assert done.code == 1
    assert "installation: {}" in done.text


def test_what_somebody_wrote_by_hand_is_kept(host: Host) -> None:
    conf = host.bin / "metaplugin.conf"
    conf.write_text("plugin_dirs=/mine\n")
    done = host.install()
    assert done.code == 0, done.text
    assert (host.bin / "metaplugin.conf.before-install").read_text() == "plugin_dirs=/mine\n"
    assert "plugin_dirs" not in host.shim_keys()


def test_the_previous_runtime_stays_and_older_ones_go(host: Host) -> None:
    for version in ("1", "2", "3"):
        shutil.rmtree(host.tree)
        make_tree(host.tree, version)
        assert host.install().code == 0
    assert host.versions() == ["2", "3"]
    assert "/runtime/3/" in host.shim_keys()["fallback"]
    host.install()
    assert host.versions() == ["3"]


def test_the_previous_runtime_stays_wherever_the_state_is(host: Host) -> None:
    host.config.write_text("stateDir: /srv/runtime/metaplugin\nkubernetes: {}\n")
    for version in ("1", "2"):
        shutil.rmtree(host.tree)
        make_tree(host.tree, version)
        assert host.install().code == 0
    kept = (host.root / "srv/runtime/metaplugin/runtime").iterdir()
    assert sorted(path.name for path in kept) == ["1", "2"]


def test_a_runtime_that_somebody_runs_stays(host: Host) -> None:
    host.install()
    held = os.open(host.state / "runtime/1", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_SH)
    for version in ("2", "3"):
        shutil.rmtree(host.tree)
        make_tree(host.tree, version)
        assert host.install().code == 0
    assert host.versions() == ["1", "2", "3"]
    os.close(held)
    host.install()
    assert host.versions() == ["3"]


def test_who_runs_from_a_tree_holds_it(host: Host) -> None:
    """What `metaplugin standalone` does first."""
    host.install()
    tree = host.state / "runtime/1"
    shutil.copytree(REPOSITORY / "metaplugin", tree / "lib/metaplugin")
    script = "from metaplugin.install.runtime_tree import *; hold_own_tree(); print(1); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tree / "lib",
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        assert remove_trees(tree.parent, keep=()) == []
        process.communicate(b"\n")
    assert remove_trees(tree.parent, keep=()) == ["1"]


def test_the_command_may_remove_the_tree_that_it_runs_from(host: Host) -> None:
    """A node without an image has no other program to uninstall with."""
    host.install("--configuration")
    tree = host.state / "runtime/1"
    shutil.copytree(REPOSITORY / "metaplugin", tree / "lib/metaplugin")
    done = subprocess.run(
        [sys.executable, "-m", "metaplugin.daemon.cli", "uninstall", "--root", str(host.root)],
        check=False,
        capture_output=True,
        text=True,
        cwd=tree / "lib",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [path.name for path in host.root.rglob("*") if path.is_file()] == ["10-calico.conflist"]


def test_a_damaged_runtime_is_replaced(host: Host) -> None:
    """A power loss may have emptied a file."""
    host.install()
    module = host.state / "runtime/1/lib/module.py"
    module.write_text("")
    assert host.install().code == 0
    assert module.read_text() == "version = '1'\n"
    assert host.versions() == ["1"]


@pytest.mark.parametrize("program", ["exit 3", "exec /no/such/interpreter"])
def test_a_runtime_that_does_not_run_there_is_refused(program: str, host: Host) -> None:
    """As on a disk that is mounted noexec; what the shim starts now stays."""
    host.install()
    before = host.files()
    shutil.rmtree(host.tree)
    make_tree(host.tree, "2", program=program)
    done = host.install()
    assert done.code == 1
    assert "does not run" in done.text
    assert host.files() == before


def test_a_disk_mounted_noexec_is_told(host: Host) -> None:
    host.state.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", str(host.state)]
    subprocess.run(command, check=True)
    try:
        done = host.install()
        assert done.code == 1
        assert "is its disk mounted noexec?" in done.text
        assert not (host.bin / "metaplugin").exists()
        done = host.install("--no-runtime")
        assert done.code == 0, done.text
        assert "no pod starts (no fallback)" in done.text
        assert (host.bin / "metaplugin").exists()
        assert host.shim_keys().keys() == {"run_dir", "state_dir"}
    finally:
        subprocess.run(["umount", str(host.state)], check=True)


def test_a_tree_with_a_link_in_it_is_refused(host: Host) -> None:
    (host.tree / "lib" / "link").symlink_to("/etc/passwd")
    done = host.install()
    assert done.code == 1
    assert "neither a file nor a folder" in done.text


@pytest.mark.parametrize(
    "manifest",
    [
        '{"version": "../1", "command": ["bin/metaplugin"]}',
        '{"version": "1", "command": ["../bin/sh"]}',
        '{"version": "1", "command": ["bin/metaplugin", "x"]}',
        '{"version": "1"}',
        "[]",
        "{",
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(manifest: str, host: Host) -> None:
    (host.tree / "runtime.json").write_text(manifest)
    done = host.install()
    assert done.code == 1
    assert "runtime.json" in done.text
    assert not host.state.exists() or not (host.state / "runtime").exists()


@pytest.fixture
def small_state(host: Host) -> Iterator[Path]:
    host.state.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(host.state)]
    subprocess.run(["mount", *options], check=True)
    yield host.state
    subprocess.run(["umount", str(host.state)], check=True)


def test_a_full_disk_leaves_the_old_version(host: Host, small_state: Path) -> None:
    assert host.install().code == 0
    before = host.files()
    shutil.rmtree(host.tree)
    make_tree(host.tree, "2")
    (host.tree / "lib" / "large").write_bytes(bytes(1 << 20))
    done = host.install()
    assert done.code == 1
    assert "No space left" in done.text
    assert host.files() == before


def test_two_installers_at_once_leave_a_whole_one(host: Host, tmp_path: Path) -> None:
    other = Host(tmp_path / "unused", tmp_path / "other.yaml", tmp_path / "other")
    other.root = host.root
    shutil.rmtree(other.tree)
    make_tree(other.tree, "2")
    processes = [
        subprocess.Popen(each.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for each in (host, other, host, other)
    ]
    for process in processes:
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 0, text
    program = host.root / host.shim_keys()["fallback"].lstrip("/")
    assert subprocess.run([program], check=False, capture_output=True).returncode == 0
    assert list(host.root.rglob(".*")) == []


KILLED_AT = [("rename", 1), *(("renameat", n) for n in range(1, 5))]
KILLED_AT += [*(("fsync", n) for n in range(1, 9)), ("syncfs", 1), ("syncfs", 2), ("mkdir", 4)]


@pytest.mark.parametrize(("call", "when"), KILLED_AT)
def test_killed_anywhere_the_node_has_the_old_or_the_new(call: str, when: int, host: Host) -> None:
    """Issue 7: what the shim's file names is there, whole, and the next installer finishes."""
    host.install("--configuration")
    host.config.write_text("installation: {addWaitMs: 7}\n")
    host.write("10-calico.conflist", {"cniVersion": "1.0.0", "name": "x", "type": "bridge"})
    shutil.rmtree(host.tree)
    make_tree(host.tree, "2")
    old = SHIM.read_bytes() + b"old"
    (host.bin / "metaplugin").write_bytes(old)
    inject = f"inject={call}:signal=KILL:when={when}"
    prefix = ("strace", "-qq", "-o", "/dev/null", "-e", inject)
    done = host.install_under(prefix, "--configuration")
    assert done.code != 0, "not killed"
    named = host.shim_keys()
    assert (host.root / named["fallback"].lstrip("/")).is_file()
    assert named["add_wait_ms"] == ("7" if "/runtime/2/" in named["fallback"] else "10000")
    assert (host.bin / "metaplugin").read_bytes() in (old, SHIM.read_bytes())
    assert json.loads((host.net_d / "00-metaplugin.conflist").read_text())
    assert host.install("--configuration").code == 0
    assert list(host.root.rglob(".*")) == []
    assert "/runtime/2/" in host.shim_keys()["fallback"]
