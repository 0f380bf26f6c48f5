"""Where runtimes look, by the configuration files that distributions have."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaplugin.install.detection import detect
from metaplugin.install.files import InstallError

DEBIAN = """
version = 2
[plugins]
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"""
CONTAINERD_2 = """
version = 3
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dir = ''
  bin_dirs = ['/opt/plugins', '/opt/cni/bin']
  conf_dir = '/etc/cni/net.d'
"""
VERSION_1 = """
[plugins.cri.cni]
bin_dir = "/usr/libexec/cni"
"""
K3S = """
version = 3
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/var/lib/rancher/k3s/data/cni"]
  conf_dir = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
"""
RKE2 = """
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
"""
MICROK8S = """
version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "${SNAP_DATA}/opt/cni/bin"
  conf_dir = "${SNAP_DATA}/args/cni-network"
"""
TALOS = """
version = 3
imports = ["/etc/cri/conf.d/cri.toml"]
"""
TALOS_IMPORTED = """
version = 3
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"
"""
OPENSHIFT = """
[crio.network]
network_dir = "/etc/kubernetes/cni/net.d/"
plugin_dirs = ["/var/lib/cni/bin", "/usr/libexec/cni"]
"""
CRIO = """
[crio]
[crio.network]
plugin_dirs = ["/usr/libexec/cni/"]
"""

K3S_FILE = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"
CONTAINERD_FILE = "/etc/containerd/config.toml"


def node(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "bin_dir", "conf_dir"),
    [
        ({CONTAINERD_FILE: DEBIAN}, "/usr/lib/cni", "/etc/cni/net.d"),
        ({CONTAINERD_FILE: CONTAINERD_2}, "/opt/plugins", "/etc/cni/net.d"),
        ({CONTAINERD_FILE: VERSION_1}, "/usr/libexec/cni", "/etc/cni/net.d"),
        (
            {K3S_FILE: K3S},
            "/var/lib/rancher/k3s/data/cni",
            "/var/lib/rancher/k3s/agent/etc/cni/net.d",
        ),
        (
            {"/var/lib/rancher/rke2/agent/etc/containerd/config.toml": RKE2},
            "/opt/cni/bin",
            "/etc/cni/net.d",
        ),
        (
            {"/var/snap/microk8s/current/args/containerd.toml": MICROK8S},
            "/var/snap/microk8s/current/opt/cni/bin",
            "/var/snap/microk8s/current/args/cni-network",
        ),
        (
            {"/etc/cri/containerd.toml": TALOS, "/etc/cri/conf.d/cri.toml": TALOS_IMPORTED},
            "/opt/cni/bin",
            "/etc/cni/net.d",
        ),
        (
            {"/etc/crio/crio.conf.d/00-default": OPENSHIFT},
            "/var/lib/cni/bin",
            "/etc/kubernetes/cni/net.d",
        ),
        ({"/etc/crio/crio.conf": CRIO}, "/usr/libexec/cni", "/etc/cni/net.d"),
        (
            {"/etc/crio/crio.conf": CRIO, "/etc/crio/crio.conf.d/10-own.conf": OPENSHIFT},
            "/var/lib/cni/bin",
            "/etc/kubernetes/cni/net.d",
        ),
    ],
    ids=[
        "Debian's containerd",
        "containerd 2",
        "configuration version 1",
        "k3s",
        "RKE2",
        "MicroK8s",
        "Talos",
        "OpenShift",
        "CRI-O",
        "CRI-O with a drop-in",
    ],
)
def test_the_runtimes_own_file_says_where(
    files: dict[str, str], bin_dir: str, conf_dir: str, tmp_path: Path
) -> None:
    places = detect(node(tmp_path, files), None, None)
    assert (str(places.bin_dir.path), str(places.conf_dir.path)) == (bin_dir, conf_dir)


def test_the_reason_names_key_and_file(tmp_path: Path) -> None:
    places = detect(node(tmp_path, {CONTAINERD_FILE: VERSION_1}), None, None)
    assert places.bin_dir.reason == "bin_dir in /etc/containerd/config.toml"
    assert "containerd's default" in places.conf_dir.reason


def test_a_drop_in_of_containerd_wins(tmp_path: Path) -> None:
    files = {
        CONTAINERD_FILE: 'version = 2\nimports = ["conf.d/*.toml"]\n',
        "/etc/containerd/conf.d/a.toml": DEBIAN,
    }
    places = detect(node(tmp_path, files), None, None)
    assert places.bin_dir.reason == "bin_dir in /etc/containerd/conf.d/a.toml"


def test_a_file_that_imports_itself_is_read_once(tmp_path: Path) -> None:
    files = {CONTAINERD_FILE: f'imports = ["{CONTAINERD_FILE}", "conf.d/a.toml"]\n'}
    files["/etc/containerd/conf.d/a.toml"] = f'imports = ["{CONTAINERD_FILE}"]\n'
    places = detect(node(tmp_path, files), None, None)
    assert str(places.bin_dir.path) == "/opt/cni/bin"


def test_what_was_asked_for_is_taken(tmp_path: Path) -> None:
    root = node(tmp_path, {CONTAINERD_FILE: DEBIAN})
    places = detect(root, Path("/here"), None)
    assert str(places.bin_dir.path) == "/here"
    assert places.conf_dir.reason == "conf_dir in /etc/containerd/config.toml"


def test_nothing_to_see_is_said(tmp_path: Path) -> None:
    places = detect(tmp_path, None, None)
    assert str(places.bin_dir.path) == "/opt/cni/bin"
    assert "no container runtime's configuration can be seen" in places.bin_dir.reason


def test_the_runtime_that_runs_decides(tmp_path: Path) -> None:
    root = node(tmp_path, {CONTAINERD_FILE: DEBIAN, K3S_FILE: K3S})
    with pytest.raises(InstallError, match=r"several container runtimes are here .*--bin-dir"):
        detect(root, None, None)
    node(root, {"/run/k3s/containerd/containerd.sock": ""})
    assert str(detect(root, None, None).bin_dir.path) == "/var/lib/rancher/k3s/data/cni"


def test_runtimes_that_agree_are_no_question(tmp_path: Path) -> None:
    files = {CONTAINERD_FILE: TALOS_IMPORTED, "/etc/cri/containerd.toml": TALOS_IMPORTED}
    assert str(detect(node(tmp_path, files), None, None).bin_dir.path) == "/opt/cni/bin"


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    root = node(tmp_path, {CONTAINERD_FILE: "plugins = ["})
    with pytest.raises(InstallError, match="/etc/containerd/config.toml: no TOML"):
        detect(root, None, None)
