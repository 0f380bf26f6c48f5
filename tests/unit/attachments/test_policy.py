"""What the operator lets net-attach-defs hold."""

from __future__ import annotations

from typing import Any

import pytest

from metaplugin.attachments.policy import Policy
from metaplugin.cni.configuration import NetworkConfigList, parse_network_config
from metaplugin.cni.errors import InvalidNetworkConfig

ALLOWED = {"tenant": ["macvlan", "host-local"], "*": ["bridge"], "net-system": ["sriov"]}
ROOT_FILES = ("dataDir", "resolvConf", "logFile", "kubeconfig")


def config(*plugins: dict[str, Any]) -> NetworkConfigList:
    return parse_network_config({"name": "n", "plugins": list(plugins)}, where="n")


def require(policy: Policy, *plugins: dict[str, Any], namespace: str = "tenant") -> None:
    policy.require(config(*plugins), namespace=namespace, where="net-attach-def tenant/n")


def test_without_a_policy_everything_may_be_used() -> None:
    require(Policy(), {"type": "any", "ipam": {"type": "x", "dataDir": "/"}})


@pytest.mark.parametrize(
    ("namespace", "plugin", "named"),
    [
        ("tenant", {"type": "bridge"}, r"plugins\[0\].type: .*'tenant'.*'bridge'"),
        (
            "tenant",
            {"type": "macvlan", "ipam": {"type": "dhcp"}},
            r"\].ipam.type.*'dhcp'",
        ),
        (
            "tenant",
            {"type": "macvlan", "IPAM": {"Type": "dhcp"}},
            r"\].IPAM.Type.*'dhcp'",
        ),
        (
            "tenant",
            {"type": "macvlan", "ipam": {"type": "host-local", "TYPE": "dhcp"}},
            r"ipam.TYPE.*'dhcp'",
        ),
        ("tenant", {"type": "macvlan", "delegate": {"type": "sriov"}}, "delegate.type.*'sriov'"),
        ("tenant", {"type": "macvlan", "delegates": [{"type": "x"}]}, r"delegates\[0\].type.*'x'"),
        ("unnamed", {"type": "macvlan"}, "'unnamed'"),
    ],
)
def test_a_namespace_may_use_its_plugins_alone(
    namespace: str, plugin: dict[str, Any], named: str
) -> None:
    """NPWG-56, ROB-3, ROB-5: those that a plugin would run itself included, in any spelling that
    Go's decoder takes."""
    with pytest.raises(InvalidNetworkConfig, match=named) as raised:
        require(Policy(allowed_plugins=ALLOWED), plugin, namespace=namespace)
    assert "policy.allowedPlugins" in raised.value.details


@pytest.mark.parametrize(
    ("namespace", "plugin"),
    [
        ("tenant", {"type": "macvlan", "ipam": {"type": "host-local"}, "policy": {"type": "k8s"}}),
        ("net-system", {"type": "sriov", "ipam": {}}),
        ("unnamed", {"type": "bridge"}),
    ],
)
def test_what_is_allowed_passes(namespace: str, plugin: dict[str, Any]) -> None:
    require(Policy(allowed_plugins=ALLOWED), plugin, namespace=namespace)


def test_namespaces_that_are_not_named_may_use_all_without_a_star() -> None:
    require(Policy(allowed_plugins={"tenant": []}), {"type": "x"}, namespace="other")
    with pytest.raises(InvalidNetworkConfig, match="'x'") as raised:
        require(Policy(allowed_plugins={"tenant": []}), {"type": "x"})
    assert "none" in raised.value.details


@pytest.mark.parametrize(
    ("plugin", "named"),
    [
        ({"ipam": {"type": "host-local", "dataDir": "/etc"}}, r"plugins\[1\].ipam.dataDir"),
        ({"ipam": {"DATADIR": "/etc"}}, r"plugins\[1\].ipam.DATADIR"),
        ({"re\u017folvConf": "/etc/shadow"}, r"plugins\[1\].re\u017folvConf"),
        ({"x": [{"y": 1}, {"logfile": "/etc/passwd"}]}, r"plugins\[1\].x\[1\].logfile"),
        ({"\u212aubeconfig": "/x"}, r"plugins\[1\]"),
    ],
)
def test_denied_keys_are_found_at_any_depth_and_in_any_spelling(
    plugin: dict[str, Any], named: str
) -> None:
    """ROB-5: Go's decoder also takes the letters that fold to s and k."""
    with pytest.raises(InvalidNetworkConfig, match=named) as raised:
        require(Policy(denied_keys=ROOT_FILES), {"type": "a"}, {"type": "b", **plugin})
    assert "policy.deniedKeys" in raised.value.details


def test_values_and_other_keys_are_no_denied_keys() -> None:
    plugin = {"type": "a", "x": "dataDir", "dataDirs": 1, "ipam": {"type": "static"}}
    require(Policy(denied_keys=ROOT_FILES), plugin)
