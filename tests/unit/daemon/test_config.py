"""What daemon.yaml may say of metrics, pods from before and the startup taint."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaplugin.daemon.config import Address, ConfigurationError, DaemonConfig, load_config


def loaded(folder: Path, text: str) -> DaemonConfig:
    (folder / "daemon.yaml").write_text(text)
    return load_config(folder / "daemon.yaml")


def test_what_holds_where_nothing_is_said(tmp_path: Path) -> None:
    """Nothing is open to a network, evicted or changed on a node that nobody asked for."""
    config = loaded(tmp_path, "kubernetes: {}")
    assert config.metrics.address == Address("127.0.0.1", 9547)
    assert config.kubernetes is not None
    assert (config.kubernetes.on_missing, config.kubernetes.startup_taint) == ("report", "")


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("0.0.0.0:9547", Address("0.0.0.0", 9547)),
        ("[::]:1", Address("::", 1)),
        ("", None),
    ],
)
def test_where_to_listen(tmp_path: Path, listen: str, address: Address | None) -> None:
    config = loaded(tmp_path, f'metrics: {{listen: "{listen}"}}')
    assert config.metrics.address == address
    assert address is None or str(address) == listen


@pytest.mark.parametrize("key", ["metaplugin.io/not-ready", "not-ready", "a.b/C_d.e"])
def test_a_taints_key(tmp_path: Path, key: str) -> None:
    config = loaded(tmp_path, f"kubernetes: {{startupTaint: {key}}}")
    assert config.kubernetes is not None
    assert config.kubernetes.startup_taint == key


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("kubernetes: {onMissing: delete}", "kubernetes.onMissing"),
        ("kubernetes: {startupTaint: 'a=b:NoSchedule'}", "kubernetes.startupTaint"),
        ("kubernetes: {startupTaint: '/x'}", "kubernetes.startupTaint"),
        ("metrics: {listen: 9547}", "metrics.listen"),
        ("installation:", "installation: nothing in it"),
        ("globalNamespaces: a,b", "globalNamespaces: must be a list"),
        ("manifests: /a", "manifests: must hold keys and values"),
        ("metrics: {port: 9547}", "the nearest known one is 'listen'"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_its_place(
    tmp_path: Path, text: str, where: str
) -> None:
    with pytest.raises(ConfigurationError, match=where):
        loaded(tmp_path, text)
