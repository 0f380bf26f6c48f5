"""Multus's keys on standard input, over the daemon's own settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaplugin.attachments.isolation import Isolation
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.commands.multus_form import parse_multus_form
from metaplugin.commands.ports import Settings

STANDARD = {"cniVersion": "1.0.0", "name": "n", "type": "metaplugin", "capabilities": {"x": True}}


def over(keys: dict[str, Any], settings: Settings | None = None) -> Settings:
    form = parse_multus_form(STANDARD | keys)
    assert form is not None
    return form.over(settings or Settings())


def test_a_configuration_without_multus_keys_is_ours() -> None:
    """MULTUS-19: our own form keeps our defaults."""
    own = {"ipam": {}, "dns": {}, "runtimeConfig": {}, "prevResult": {}, "tomorrow": 1}
    assert parse_multus_form(STANDARD | own) is None
    assert Settings().isolation.enabled


def test_every_key_of_multus_has_its_meaning() -> None:
    """MULTUS-12, MULTUS-13, MULTUS-15, MULTUS-16, MULTUS-17, MULTUS-19."""
    keys = {
        "clusterNetwork": "calico",
        "defaultNetworks": ["a", "ns/b"],
        "systemNamespaces": ["kube-system", "infra"],
        "multusNamespace": "networks",
        "namespaceIsolation": True,
        "globalNamespaces": " foo,bar ,default",
        "readinessindicatorfile": "/run/ready",
        "confDir": "/etc/elsewhere",
        "auxiliaryCNIChainName": "vendor",
    }
    expected = Settings(
        cluster_network="calico",
        default_networks=("a", "ns/b"),
        system_namespaces=("kube-system", "infra"),
        system_namespace="networks",
        isolation=Isolation(enabled=True, global_namespaces=("foo", "bar", "default")),
        readiness_file="/run/ready",
        conf_dir="/etc/elsewhere",
        auxiliary_chain="vendor",
        undeclared_capabilities="warn",
    )
    assert over(keys) == expected


def test_keys_count_in_any_case() -> None:
    """MULTUS-19: as Multus's decoder takes them; the exact spelling wins."""
    keys = {"readinessIndicatorFile": "/run/ready", "CLUSTERNETWORK": "a", "clusterNetwork": "b"}
    settings = over(keys)
    assert (settings.readiness_file, settings.cluster_network) == ("/run/ready", "b")


def test_multus_defaults_hold_in_its_form_but_for_what_the_daemons_file_says() -> None:
    """MULTUS-16, MULTUS-19."""
    plain = over({"clusterNetwork": "/x"})
    assert not plain.isolation.enabled
    assert plain.conf_dir == "/etc/cni/multus/net.d"
    ours = Settings(conf_dir="/own", stated=frozenset({"conf_dir", "namespace_isolation"}))
    kept = over({"clusterNetwork": "/x"}, ours)
    assert (kept.isolation.enabled, kept.conf_dir) == (True, "/own")
    said = over({"namespaceIsolation": False, "confDir": ""}, ours)
    assert (said.isolation.enabled, said.conf_dir) == (False, "/own")


def test_default_networks_count_only_beside_a_cluster_network() -> None:
    """MULTUS-13: as with Multus; the daemon's own stay."""
    own = replace(Settings(), default_networks=("ours",))
    keys = {"delegates": [{}], "defaultNetworks": ["a"]}
    assert over(keys, own).default_networks == ("ours",)
    form = parse_multus_form(keys)
    assert form is not None
    assert form.unused == ("defaultNetworks",)


def test_keys_that_mean_nothing_here_are_listed() -> None:
    """MULTUS-19: for one line in the log."""
    keys = {"logFile": "/x", "cniDir": "/y", "retryDeleteOnError": True, "binDir": "/opt/cni/bin"}
    form = parse_multus_form(keys | {"kubeconfig": "/k", "delegates": []})
    assert form is not None
    assert set(form.unused) == {"logFile", "cniDir", "retryDeleteOnError"}
    assert form.kubeconfig == "/k"


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"clusterNetwork": 1}, "clusterNetwork"),
        ({"clusterNetwork": "a\0"}, "clusterNetwork"),
        ({"defaultNetworks": "a"}, "defaultNetworks"),
        ({"defaultNetworks": ["a", 2]}, r"defaultNetworks\[1\]"),
        ({"delegates": {}}, "delegates"),
        ({"systemNamespaces": [None]}, r"systemNamespaces\[0\]"),
        ({"multusNamespace": "../x"}, "multusNamespace"),
        ({"namespaceIsolation": "yes"}, "namespaceIsolation"),
        ({"globalNamespaces": ["a"]}, "globalNamespaces"),
        ({"readinessindicatorfile": "ready"}, "readinessindicatorfile"),
        ({"confDir": "net.d"}, "confDir"),
        ({"auxiliaryCNIChainName": "../x"}, "auxiliaryCNIChainName"),
        ({"binDir": 1}, "binDir"),
        ({"logOptions": []}, "logOptions"),
        ({"retryDeleteOnError": 1}, "retryDeleteOnError"),
    ],
)
def test_a_key_of_the_wrong_type_is_named(keys: dict[str, Any], where: str) -> None:
    """MULTUS-19."""
    with pytest.raises(InvalidNetworkConfig, match=rf"^{where}"):
        parse_multus_form(STANDARD | keys)


KEYS = ("clusterNetwork", "defaultNetworks", "globalNamespaces", "confDir", "binDir", "delegates")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_whatever_a_configuration_holds_is_understood_or_refused(keys: dict[str, Any]) -> None:
    """ROB-5."""
    try:
        form = parse_multus_form(keys)
    except InvalidNetworkConfig:
        return
    if form:
        assert isinstance(form.over(Settings()), Settings)
