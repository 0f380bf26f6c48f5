"""Multus's configuration as ours: what is printed is what our own loaders take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from metaplugin.commands.outer import parse_outer_config
from metaplugin.daemon.cli import main
from metaplugin.daemon.config import DaemonConfig, load_config
from metaplugin.migrate.translation import DROPPED

THICK_DAEMON = {
    "chrootDir": "/hostroot",
    "cniVersion": "0.3.1",
    "logLevel": "verbose",
    "logToStderr": True,
    "cniConfigDir": "/host/etc/cni/net.d",
    "multusAutoconfigDir": "/host/etc/cni/net.d",
    "multusConfigFile": "auto",
    "socketDir": "/host/run/multus/",
}
THICK = {
    "cniVersion": "0.3.1",
    "name": "multus-cni-network",
    "type": "multus-shim",
    "clusterNetwork": "/host/etc/cni/net.d/10-kindnet.conflist",
    "capabilities": {"portMappings": True},
    "logLevel": "verbose",
    "logToStderr": True,
}
THIN = {
    "cniVersion": "1.0.0",
    "name": "multus-cni-network",
    "plugins": [
        {
            "type": "multus",
            "capabilities": {"bandwidth": True},
            "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig",
            "namespaceIsolation": True,
            "globalNamespaces": " default,shared ",
            "multusNamespace": "network",
            "binDir": "/opt/other/bin",
            "confDir": "/etc/cni/other",
            "retryDeleteOnError": True,
            "surprise": 1,
            "delegates": [{"cniVersion": "1.0.0", "name": "flannel", "type": "flannel"}],
        }
    ],
}


def files(tmp_path: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any], str, str]:
    """Migrate into a folder: daemon.yaml loaded strictly, the list, metaplugin.conf, and all
    notes."""
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["migrate", "--output", str(out), *options])
    assert done.exit_code == 0, done.output
    load_config(out / "daemon.yaml")
    daemon = yaml.safe_load((out / "daemon.yaml").read_text())
    conflist = json.loads((out / "00-metaplugin.conflist").read_text())
    shim = (out / "metaplugin.conf").read_text()
    texts = [(out / "daemon.yaml").read_text(), (out / "00-metaplugin.conflist.notes").read_text()]
    notes = " ".join("".join([*texts, shim]).replace("\n# ", " ").split())
    return daemon, conflist, shim, notes


def written(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_thick_multus_is_taken_over(tmp_path: Path) -> None:
    """MULTUS-19: Multus's own defaults are kept, the container's paths become the node's."""
    conf = written(tmp_path / "00-multus.conf", THICK)
    daemon_config = written(tmp_path / "daemon-config.json", THICK_DAEMON)
    daemon, conflist, shim, notes = files(
        tmp_path, "--cni-config", conf, "--daemon-config", daemon_config
    )
    assert daemon == {
        "kubernetes": {},
        "clusterNetwork": "/etc/cni/net.d/10-kindnet.conflist",
        "namespaceIsolation": False,
        "confDir": "/etc/cni/multus/net.d",
        "undeclaredCapabilities": "warn",
        "logLevel": "info",
        "installation": {"networkName": "multus-cni-network"},
    }
    assert conflist["name"] == "multus-cni-network"
    assert conflist["plugins"] == [
        {
            "type": "metaplugin",
            "capabilities": {"portMappings": True, "io.kubernetes.cri.pod-annotations": True},
        }
    ]
    assert "plugin_dirs=/opt/cni/bin\n" in shim
    for key in ("chrootDir", "logToStderr", "cniConfigDir", "multusConfigFile", "socketDir"):
        assert f"{key}: dropped" in notes


def test_a_thin_multus_is_taken_over(tmp_path: Path) -> None:
    """MULTUS-19: inline delegates stay in the list, isolation and namespaces are kept."""
    conf = written(tmp_path / "00-multus.conflist", THIN)
    daemon, conflist, shim, notes = files(tmp_path, "--cni-config", conf)
    assert daemon["kubernetes"] == {"kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig"}
    assert daemon["namespaceIsolation"] is True
    assert daemon["globalNamespaces"] == ["default", "shared"]
    assert daemon["systemNamespace"] == "network"
    assert daemon["confDir"] == "/etc/cni/other"
    assert not {"clusterNetwork", "installation"} & daemon.keys()
    assert "installation: left out" in notes
    inner = conflist["plugins"][0]["delegates"]
    assert inner == [{"cniVersion": "1.0.0", "name": "flannel", "type": "flannel"}]
    assert "plugin_dirs=/opt/other/bin\n" in shim
    assert "retryDeleteOnError: dropped: always so" in notes
    assert "surprise: dropped: neither Multus nor metaplugin knows it" in notes


def test_keys_count_in_any_case(tmp_path: Path) -> None:
    """MULTUS-19: Multus's decoder takes them so, and `readinessIndicatorFile` is often met."""
    keys = {
        "readinessIndicatorFile": "/run/ready",
        "GlobalNamespaces": "a",
        "auxiliarycnichainname": "v",
    }
    conf = written(tmp_path / "00-multus.conf", THICK | keys)
    daemon, _, _, notes = files(tmp_path, "--cni-config", conf)
    assert daemon["readinessFile"] == "/run/ready"
    assert daemon["globalNamespaces"] == ["a"]
    assert daemon["auxiliaryChain"] == "v"
    assert "neither Multus nor metaplugin knows it" not in notes


def test_an_import_without_a_cache_says_where_it_looked(tmp_path: Path) -> None:
    """MULTUS-19: a missing folder is no traceback and no bare errno."""
    done = CliRunner().invoke(
        main, ["migrate", "--import-cache", "--cni-dir", str(tmp_path / "none")]
    )
    assert done.exit_code == 1
    assert f"{tmp_path}/none: no cache of Multus" in done.output


def test_a_manifest_alone_is_enough(tmp_path: Path) -> None:
    """MULTUS-19: the ConfigMap among a manifest's documents."""
    config_map = {
        "kind": "ConfigMap",
        "metadata": {"name": "multus-daemon-config"},
        "data": {"daemon-config.json": json.dumps(THICK_DAEMON | {"multusMasterCNI": "10-a.conf"})},
    }
    text = yaml.safe_dump_all([{"kind": "ServiceAccount"}, config_map])
    manifest = written(tmp_path / "multus.yaml", text)
    daemon, conflist, _, _ = files(tmp_path, "--manifest", manifest)
    assert daemon["clusterNetwork"] == "/etc/cni/net.d/10-a.conf"
    assert (conflist["name"], conflist["cniVersion"]) == ("multus-cni-network", "0.3.1")


def test_a_list_as_kubectl_prints_it_is_a_manifest_too(tmp_path: Path) -> None:
    """The default network is the node's to look up: this machine's own files are no one's."""
    data = {"daemon-config.json": json.dumps(THICK_DAEMON | {"cniConfigDir": "/host/etc/k3s"})}
    listed = {"kind": "List", "items": [{"kind": "Secret"}, {"kind": "ConfigMap", "data": data}]}
    manifest = written(tmp_path / "multus.yaml", listed)
    daemon, _, _, notes = files(tmp_path, "--manifest", manifest)
    assert daemon["clusterNetwork"] == "/etc/cni/net.d"
    assert daemon["installation"] == {
        "networkName": "multus-cni-network",
        "cniConfDir": "/etc/k3s",
    }
    assert "of a folder its first that is neither Multus's nor ours" in notes


def test_every_key_that_multus_knows_is_kept_or_dropped_with_a_reason(tmp_path: Path) -> None:
    """MULTUS-19: no key goes unmentioned."""
    everything = dict.fromkeys(DROPPED, 1) | {
        "defaultNetworks": ["a"],
        "systemNamespaces": ["kube-system"],
        "readinessindicatorfile": "/run/ready",
        "auxiliaryCNIChainName": "chain",
        "overrideNetworkName": True,
        "multusMasterCNI": "10-a.conf",
        **dict.fromkeys(("cniConfigDir", "multusAutoconfigDir", "multusConfigFile"), "/a"),
    }
    conf = written(tmp_path / "00-multus.conf", THICK | everything)
    daemon, _, _, notes = files(tmp_path, "--cni-config", conf)
    for key in everything:
        assert f"{key}: " in notes
    known = {str(field.alias) for field in DaemonConfig.model_fields.values()}
    assert set(daemon) <= known


def test_what_is_printed_is_the_three_files_with_notes(tmp_path: Path) -> None:
    """MULTUS-19: the runtime's own configuration parses as the shim's caller sends it."""
    conf = written(tmp_path / "00-multus.conf", THICK)
    done = CliRunner().invoke(main, ["migrate", "--cni-config", conf])
    sections = done.output.split("# --- ")[1:]
    assert [section.split(":")[0] for section in sections] == [
        "daemon.yaml",
        "metaplugin.conf",
        "00-metaplugin.conflist",
    ]
    listed = json.loads("{" + sections[2].split("\n{", 1)[1])
    request = {**listed["plugins"][0], "name": listed["name"], "cniVersion": listed["cniVersion"]}
    assert parse_outer_config(json.dumps(request).encode()).name == "multus-cni-network"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "no JSON"),
        ({"type": "bridge", "name": "a"}, "no plugin in it is of type multus"),
        ({"type": "multus", "name": "a"}, "neither clusterNetwork nor delegates"),
        ({"type": "multus", "globalNamespaces": ["a"]}, "globalNamespaces"),
        ({"type": "multus", "name": "../a", "clusterNetwork": "n"}, "network name"),
    ],
    ids=["no JSON", "not Multus", "no default network", "wrong type", "bad name"],
)
def test_what_cannot_be_taken_over_is_said(tmp_path: Path, content: Any, problem: str) -> None:
    conf = written(tmp_path / "00-multus.conf", content)
    done = CliRunner().invoke(main, ["migrate", "--cni-config", conf])
    assert done.exit_code == 1
    assert problem in done.output
