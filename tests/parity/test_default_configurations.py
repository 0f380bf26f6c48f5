"""Default networks as the great projects configure them pass through ADD, CHECK and DEL without
loss.

Structure and keys are theirs; the plugins are the recording one under their names.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.node import Node, Pod

pytestmark = pytest.mark.system

CALICO: dict[str, Any] = {
    "cniVersion": "0.3.1",
    "name": "k8s-pod-network",
    "plugins": [
        {
            "type": "calico",
            "log_level": "info",
            "log_file_path": "/var/log/calico/cni/cni.log",
            "datastore_type": "kubernetes",
            "nodename": "node-1",
            "nodename_file_optional": False,
            "mtu": 0,
            "num_queues": 1,
            "container_settings": {"allow_ip_forwarding": False},
            "ipam": {
                "type": "calico-ipam",
                "assign_ipv4": "true",
                "assign_ipv6": "false",
                "ipv4_pools": ["10.48.0.0/16", "pool-of-racks"],
                "ipv6_pools": [],
                "subnet": None,
            },
            "policy": {"type": "k8s", "k8s_api_root": "", "k8s_auth_token": None},
            "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
            "policy_setup_timeout_seconds": 0,
            "feature_control": {"ip_addrs_no_ipam": True, "floating_ips": False},
        },
        {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ],
}
FLANNEL: dict[str, Any] = {
    "cniVersion": "0.3.1",
    "name": "cbr0",
    "plugins": [
        {
            "type": "flannel",
            "subnetFile": "/run/flannel/subnet.env",
            "dataDir": "/var/lib/cni/flannel",
            "delegate": {
                "hairpinMode": True,
                "isDefaultGateway": True,
                "forceAddress": False,
                "mtu": 1450,
            },
            "runtimeConfigPassthrough": None,
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
CILIUM: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "cilium",
    "plugins": [
        {
            "type": "cilium-cni",
            "enable-debug": False,
            "log-file": "/var/run/cilium/cilium-cni.log",
            "chaining-mode": "generic-veth",
            "enable-route-mtu": True,
            "eni": {
                "first-interface-index": 1,
                "security-groups": [],
                "subnet-tags": {"zone": "a", "": "empty key"},
                "disable-prefix-delegation": None,
            },
            "azure": {},
            "ipam": {"type": "", "min-allocate": 8, "pre-allocate": 8.0, "pool": [None, [[], {}]]},
            "args": {"cni": None, "mtu": 1500},
        }
    ],
}
OVN: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "ovn-kubernetes",
    "plugins": [
        {
            "type": "ovn-k8s-cni-overlay",
            "ipam": {},
            "dns": {},
            "topology": "layer3",
            "subnets": "10.128.0.0/14/23,fd01::/48/64",
            "mtu": 1400,
            "netAttachDefName": "default/ovn-kubernetes",
            "logFile": "/var/log/ovn-kubernetes/ovn-k8s-cni-overlay.log",
            "logLevel": "5",
            "logfile-maxsize": 100,
            "physicalNetworkName": "br-ex é 中 \u2028 <&>",
            "allowPersistentIPs": True,
            "vlanID": 18446744073709551617,
            "transport-zone": -9223372036854775809,
            "ratio": 0.1,
            "role": "primary",
        }
    ],
}
DEFAULTS = {"calico": CALICO, "flannel": FLANNEL, "cilium": CILIUM, "ovn": OVN}
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
NOT_PASSED_ON = {"capabilities"}


def installed(node: Node, network: dict[str, Any]) -> dict[str, Any]:
    """Make `network` the default one, its plugins recording; return it as it is on disk."""
    log = str(node.root / "noop.log")
    result = {"cniVersion": network["cniVersion"], "dns": {"domain": "of.the.first"}}
    plugins = [{**plugin, "log": log, "result": result} for plugin in network["plugins"]]
    for plugin in plugins:
        node.plugin(plugin["type"])
    written = {**network, "plugins": plugins}
    (node.root / "default.conflist").write_text(json.dumps(written))
    return written


def expected_input(network: dict[str, Any], plugin: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in plugin.items() if key not in NOT_PASSED_ON}
    given = {"portMappings": PORTS} if "portMappings" in plugin.get("capabilities", {}) else {}
    runtime_config = {"runtimeConfig": given} if given else {}
    return {
        **kept,
        **runtime_config,
        "name": network["name"],
        "cniVersion": network["cniVersion"],
    }


def inputs(node: Node, command: str) -> list[tuple[str, dict[str, Any]]]:
    """Return type and standard input, prevResult excepted, of each call of that command."""
    found = []
    for call in node.noop_calls():
        if call["command"] == command:
            given = json.loads(call["stdin"])
            given.pop("prevResult", None)
            found.append((call["type"], given))
    return found


def request(node: Node, pod: Pod) -> bytes:
    config = json.loads(node.stdin(pod, "1.0.0"))
    config["runtimeConfig"]["portMappings"] = PORTS
    return json.dumps(config).encode()


@pytest.mark.parametrize("daemon", ["there", "away"])
@pytest.mark.parametrize("name", DEFAULTS)
def test_a_default_network_passes_losslessly_through_its_whole_life(
    recording_node: Node, name: str, daemon: str
) -> None:
    """A25.1, CNI-DLG-4, CNI-DLG-18, MULTUS-14: every key, value and null, to ADD, CHECK and DEL,
    also where the shim replays the DEL alone."""
    node = recording_node
    network = installed(node, DEFAULTS[name])
    expected = [(plugin["type"], expected_input(network, plugin)) for plugin in network["plugins"]]
    pod = node.pod("")
    added = node.add(pod, stdin=request(node, pod))
    assert added.exit_code == 0, added.stdout
    assert inputs(node, "ADD") == expected
    (node.root / "default.conflist").write_text("{}")  # what the ADD knew counts
    checked = node.call("CHECK", pod, stdin=request(node, pod))
    assert checked.exit_code == 0, checked.stdout
    assert inputs(node, "CHECK") == ([] if network["cniVersion"] == "0.3.1" else expected)
    if daemon == "away":
        node.kill()
    assert node.delete(pod, stdin=request(node, pod)).exit_code == 0
    assert inputs(node, "DEL") == expected[::-1]
    assert node.records() == []


@pytest.mark.parametrize("name", DEFAULTS)
def test_numbers_keep_their_digits(recording_node: Node, name: str) -> None:
    """CNI-DLG-4: as text, too: no integer becomes a float, and none loses a digit."""
    node = recording_node
    network = installed(node, DEFAULTS[name])
    pod = node.pod("")
    assert node.add(pod).exit_code == 0
    for call in node.noop_calls():
        [plugin] = [plugin for plugin in network["plugins"] if plugin["type"] == call["type"]]
        given = json.loads(call["stdin"], parse_int=str, parse_float=str)
        for key, value in json.loads(json.dumps(plugin), parse_int=str, parse_float=str).items():
            if key not in NOT_PASSED_ON:
                assert given[key] == value
    assert node.delete(pod).exit_code == 0
