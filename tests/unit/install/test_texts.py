"""The texts that the installer writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from metaplugin.cni.configuration import parse_network_config
from metaplugin.daemon.config import ConfigurationError, load_config
from metaplugin.install.conflist import conflist, installed
from metaplugin.install.texts import GENERATED, host_config, shim_conf

CONFIG = Path("/etc/cni/metaplugin/daemon.yaml")


def config_file(folder: Path, text: str) -> Path:
    path = folder / "daemon.yaml"
    path.write_text(text)
    return path


def test_our_configuration_has_the_default_networks_capabilities() -> None:
    """DESIGN 6; MULTUS A7.3: what is declared as false is not declared."""
    plugins = [
        {"type": "calico", "capabilities": {"bandwidth": True, "ips": False}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    raw = {"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": plugins}
    made = json.loads(conflist(parse_network_config(raw, where="file"), "metaplugin"))
    assert made == {
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": "metaplugin",
        "plugins": [
            {
                "type": "metaplugin",
                "capabilities": {
                    "bandwidth": True,
                    "io.kubernetes.cri.pod-annotations": True,
                    "portMappings": True,
                },
            }
        ],
    }


def test_files_are_seen_as_a_runtime_sees_them(tmp_path: Path) -> None:
    for name, kind in (("20-a.conf", "bridge"), ("00-m.conflist", "multus-shim"), ("x.txt", "a")):
        (tmp_path / name).write_text(json.dumps({"type": kind}))
    (tmp_path / "30-own.conflist").write_text('{"plugins": [{"type": "metaplugin"}]}')
    (tmp_path / "40-torn.conf").write_text('{"type": "br')
    (tmp_path / "50-folder.conf").mkdir()
    found = [(each.path.name, each.kind) for each in installed(tmp_path)]
    assert found == [
        ("00-m.conflist", "multus"),
        ("20-a.conf", "network"),
        ("30-own.conflist", "ours"),
        ("40-torn.conf", "unreadable"),
    ]


def test_the_shims_file_names_what_to_start(tmp_path: Path) -> None:
    text = (
        "stateDir: /s\ninstallation: {addWaitMs: 1, delWaitMs: 2, statusWaitMs: 3, "
        "pluginDirs: [/a, /b]}"
    )
    config = load_config(config_file(tmp_path, text))
    made = shim_conf(config, fallback=Path("/s/runtime/1/bin/metaplugin"), config_path=CONFIG)
    assert made == GENERATED + (
        b"run_dir=/run/metaplugin\nstate_dir=/s\nfallback=/s/runtime/1/bin/metaplugin\n"
        b"fallback_config=/etc/cni/metaplugin/daemon.yaml\nplugin_dirs=/a:/b\n"
        b"add_wait_ms=1\ndel_wait_ms=2\nstatus_wait_ms=3\n"
    )


def test_without_a_fallback_the_shim_waits_as_long_as_ever(tmp_path: Path) -> None:
    config = load_config(config_file(tmp_path, "installation: {}"))
    made = shim_conf(config, fallback=None, config_path=CONFIG)
    assert made == GENERATED + b"run_dir=/run/metaplugin\nstate_dir=/var/lib/cni/metaplugin\n"


def test_the_hosts_copy_knows_the_node_and_no_token(tmp_path: Path) -> None:
    """Issue 7: a projected token isn't on the host; standalone goes by what is remembered."""
    text = "# mine\nkubernetes: {}\ninstallation: {fallbackKubeconfig: /etc/k}\n"
    config = load_config(config_file(tmp_path, text))
    made = host_config(text.encode(), config, node_name="n1")
    assert made.startswith(GENERATED)
    assert yaml.safe_load(made)["kubernetes"] == {"nodeName": "n1", "kubeconfig": "/etc/k"}


@pytest.mark.parametrize("text", ["kubernetes: {nodeName: mine}\n", "manifests: null\n", ""])
def test_a_copy_without_anything_to_add_is_literal(text: str, tmp_path: Path) -> None:
    config = load_config(config_file(tmp_path, text))
    assert host_config(text.encode(), config, node_name="n1") == GENERATED + text.encode()


def test_the_runtimes_folder_has_the_default_network_if_nothing_else_is_said(
    tmp_path: Path,
) -> None:
    config = load_config(config_file(tmp_path, "installation: {cniConfDir: /c}"))
    assert config.settings().cluster_network == "/c"
    named = load_config(config_file(tmp_path, "{clusterNetwork: lan, installation: {}}"))
    assert named.settings().cluster_network == "lan"


@pytest.mark.parametrize(
    "text",
    [
        "installation: {cniConfDir: etc}",
        "installation: {fileName: 00-metaplugin.txt}",
        "installation: {fileName: a/b.conflist}",
        "installation: {pluginDirs: ['/a:/b']}",
        "installation: {fallbackKubeconfig: x}",
        "installation: {addWaitMs: -1}",
        "installation: {cniConfdir: /c}",
    ],
)
def test_a_bad_installation_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"installation\."):
        load_config(config_file(tmp_path, text))
