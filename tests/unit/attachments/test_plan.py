"""The plan of a pod's attachments, and the default routes that it asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaplugin.attachments.default_routes import wanted_default_routes, with_default_routes
from metaplugin.attachments.isolation import Isolation
from metaplugin.attachments.plan import (
    Network,
    PlannedAttachment,
    Selection,
    default_attachment,
    interface_names,
    make_plan,
    with_netns_check,
)
from metaplugin.cni.configuration import parse_network_config
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.raw import dump
from metaplugin.cni.result import Result, parse_result
from metaplugin.npwg.selection import parse_networks_annotation


def network(name: str = "a", **plugin: Any) -> Network:
    raw = {"name": name, "plugins": [{"type": "noop", **plugin}]}
    return Network(name=f"default/{name}", config=parse_network_config(raw, where=name))


def selections(text: str, **plugin: Any) -> list[Selection]:
    elements = parse_networks_annotation(text, pod_namespace="default")
    return [Selection(element=e, network=network(e.name, **plugin)) for e in elements]


def planned(text: str, **plugin: Any) -> tuple[PlannedAttachment, ...]:
    default = default_attachment(
        network("d"), ifname="eth0", args=(("A", "1"),), capability_args={}
    )
    return make_plan(default, always=[], selections=selections(text, **plugin), args=(("K", "v"),))


def test_the_default_network_comes_first_and_the_others_in_order() -> None:
    """NPWG-49, MULTUS-5, MULTUS-23."""
    plan = planned("b,a,b")
    assert [(p.name, p.ifname, p.default) for p in plan] == [
        ("default/d", "eth0", True),
        ("default/b", "net1", False),
        ("default/a", "net2", False),
        ("default/b", "net3", False),
    ]


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ([None, None], ("net1", "net2")),
        (["x", None, None], ("x", "net2", "net3")),
        (["net2", None], ("net2", "net3")),
        ([None, "net1"], ("net3", "net1")),
        ([None, "net1", "net4"], ("net5", "net1", "net4")),
    ],
)
def test_generated_names_go_by_position_and_give_way(
    requested: list[str | None], expected: tuple[str, ...]
) -> None:
    """NPWG-36, MULTUS-5."""
    assert expected == interface_names("eth0", requested)


NAMES = st.one_of(st.none(), st.sampled_from(["a", "b", "net1", "net2", "net3", "net4", "net9"]))


@given(st.lists(NAMES, max_size=12))
def test_names_are_unique_and_requested_ones_are_kept(requested: list[str | None]) -> None:
    """NPWG-36, NPWG-37."""
    asked = [name for name in requested if name]
    if len(set(asked)) < len(asked):
        with pytest.raises(InvalidNetworkConfig):
            interface_names("eth0", requested)
        return
    names = interface_names("eth0", requested)
    assert len({"eth0", *names}) == len(requested) + 1
    assert all(want in (None, got) for want, got in zip(requested, names, strict=True))
    assert names == interface_names("eth0", requested)


def test_the_default_networks_name_can_not_be_asked_for() -> None:
    """NPWG-18."""
    with pytest.raises(InvalidNetworkConfig, match="'eth0'"):
        planned("a@eth0")


def test_requests_become_capabilities_and_arguments() -> None:
    """NPWG-10, NPWG-13, MULTUS-8."""
    element = {"name": "a", "ips": ["10.0.0.1/24"], "mac": "02:00:00:00:00:01"}
    plan = planned(json.dumps([element]), capabilities={"ips": True, "mac": True})
    assert plan[1].runtime.capability_args == {
        "ips": ["10.0.0.1/24"],
        "mac": "02:00:00:00:00:01",
    }
    assert plan[1].runtime.args == (
        ("K", "v"),
        ("IP", "10.0.0.1/24"),
        ("MAC", "02:00:00:00:00:01"),
    )


REQUESTS = [
    ("ips", ["10.0.0.1"], "ips"),
    ("mac", "02:00:00:00:00:01", "mac"),
    ("portMappings", [{"hostPort": 1, "containerPort": 2, "protocol": "udp"}], "portMappings"),
    ("bandwidth", {"ingressRate": 1}, "bandwidth"),
    ("infiniband-guid", "02:00:00:00:00:01:02:03", "infinibandGUID"),
]


@pytest.mark.parametrize(("key", "value", "capability"), REQUESTS)
def test_a_request_reaches_the_plugin_that_declares_it(
    key: str, value: object, capability: str
) -> None:
    """NPWG-10, NPWG-13, NPWG-21, NPWG-24, NPWG-31."""
    plan = planned(json.dumps([{"name": "a", key: value}]), capabilities={capability: True})
    assert plan[1].runtime.capability_args == {capability: value}


@pytest.mark.parametrize(("key", "value", "capability"), REQUESTS)
def test_a_request_that_no_plugin_declares_is_refused(
    key: str, value: object, capability: str
) -> None:
    """NPWG-12, NPWG-15, NPWG-23, NPWG-26, NPWG-33."""
    text = json.dumps([{"name": "a", key: value}])
    with pytest.raises(
        InvalidNetworkConfig, match=rf"networks\[0\].*honour {capability}"
    ) as raised:
        planned(text)
    assert f'"capabilities": {{"{capability}": true}}' in raised.value.details
    assert "net-attach-def default/a" in raised.value.details
    assert planned(text, capabilities={capability: True})


def test_requests_that_no_plugin_declares_can_be_let_pass() -> None:
    """NPWG-12, NPWG-15, MULTUS-8: addresses then travel in CNI_ARGS alone, as with Multus."""
    text = json.dumps([{"name": "a", "ips": ["10.0.0.1"], "mac": "02:00:00:00:00:01"}])
    plan = make_plan(
        default_attachment(network("d"), ifname="eth0", args=(), capability_args={}),
        always=[],
        selections=selections(text, capabilities={"mac": True}),
        args=(),
        undeclared="warn",
    )
    assert plan[1].unhonoured == ("ips",)
    assert plan[1].runtime.args == (("IP", "10.0.0.1"), ("MAC", "02:00:00:00:00:01"))


def test_an_interface_that_is_there_already_is_refused() -> None:
    """CNI-ADD-2."""
    with pytest.raises(InvalidNetworkConfig, match="net1"):
        with_netns_check(planned("a"), ["lo", "net1"])
    with_netns_check(planned("a"), ["lo", "net2"])


@pytest.mark.parametrize(
    ("namespace", "allowed"), [("own", True), ("default", True), ("other", False)]
)
def test_networks_of_other_namespaces_are_closed(namespace: str, allowed: bool) -> None:
    """NPWG-56, MULTUS-16."""
    isolation = Isolation()
    if allowed:
        isolation.require(pod_namespace="own", namespace=namespace, where="networks[0]")
        return
    with pytest.raises(InvalidNetworkConfig, match=r"networks\[0\].*'own'.*'other'"):
        isolation.require(pod_namespace="own", namespace=namespace, where="networks[0]")


def test_isolation_can_be_switched_off() -> None:
    Isolation(enabled=False).require(pod_namespace="a", namespace="b", where="networks[0]")


def result(*addresses: str, routes: list[dict[str, Any]], gateway: str = "") -> Result:
    ips = [{"address": address} for address in addresses]
    if gateway:
        ips[0]["gateway"] = gateway
    raw = {"cniVersion": "1.0.0", "ips": ips, "routes": routes}
    return parse_result(dump(raw), configured_version="1.0.0", where="test")


V4 = {"dst": "0.0.0.0/0", "gw": "10.0.0.1"}
V6 = {"dst": "::/0", "gw": "fd00::1"}
OTHER = {"dst": "10.9.0.0/16", "gw": "10.0.0.1"}
DEFAULT_NETWORK = result("10.0.0.2/24", "fd00::2/64", routes=[V4, V6, OTHER])


def routes_after(text: str, second: Result) -> list[list[dict[str, Any]]]:
    plan, results = planned(text), [DEFAULT_NETWORK, second]
    wanted = wanted_default_routes(plan, results)
    return [
        [
            dict(route.raw)
            for route in (with_default_routes(p.ifname, r, wanted).routes if wanted else r.routes)
        ]
        for p, r in zip(plan, results, strict=True)
    ]


def test_the_family_that_is_asked_for_moves_and_the_other_stays() -> None:
    """NPWG-27, NPWG-30."""
    second = result("10.1.0.2/24", routes=[])
    assert routes_after('[{"name": "a", "default-route": ["10.1.0.1"]}]', second) == [
        [V6, OTHER],
        [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
    ]


def test_several_gateways_keep_their_order() -> None:
    """NPWG-27."""
    second = result("10.1.0.2/24", "fd01::2/64", routes=[{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}])
    text = '[{"name": "a", "default-route": ["10.1.0.2", "fd01::1", "10.1.0.1"]}]'
    assert routes_after(text, second) == [
        [OTHER],
        [
            {"dst": "0.0.0.0/0", "gw": "10.1.0.2"},
            {"dst": "0.0.0.0/0", "gw": "10.1.0.1"},
            {"dst": "::/0", "gw": "fd01::1"},
        ],
    ]


def test_an_empty_list_keeps_the_networks_own_gateway() -> None:
    """NPWG-29."""
    second = result("10.1.0.2/24", routes=[{"dst": "0.0.0.0/0"}], gateway="10.1.0.1")
    assert routes_after('[{"name": "a", "default-route": []}]', second) == [
        [V6, OTHER],
        [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
    ]


def test_an_empty_list_keeps_the_networks_own_routes_as_they_are() -> None:
    """NPWG-29: metrics, MTUs and routes without gateway included, in the order of preference."""
    direct = {"dst": "::/0", "mtu": 1300}
    second = result("10.1.0.2/24", routes=[V4 | {"priority": 9}, direct, V4 | {"gw": "10.1.0.7"}])
    assert routes_after('[{"name": "a", "default-route": []}]', second) == [
        [OTHER],
        [V4 | {"gw": "10.1.0.7"}, V4 | {"priority": 9}, direct],
    ]


def test_a_route_without_gateway_goes_by_the_first_address_that_has_one() -> None:
    """NPWG-29: as the plugins set it."""
    raw = {
        "ips": [
            {"address": "10.1.0.2/24", "gateway": "10.1.0.1"},
            {"address": "10.2.0.2/24", "gateway": "10.2.0.1"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    second = parse_result(dump(raw), configured_version="1.0.0", where="test")
    [_, routes] = routes_after('[{"name": "a", "default-route": []}]', second)
    assert routes == [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]


def test_default_routes_of_other_tables_are_nobodys_business() -> None:
    """NPWG-30: source-based routing has its own tables."""
    other_table = {"dst": "0.0.0.0/0", "gw": "10.1.0.1", "table": 100}
    raw = {"ips": [{"address": "10.1.0.2/24"}], "routes": [other_table]}
    second = parse_result(dump(raw), configured_version="1.1.0", where="test")
    assert routes_after('[{"name": "a", "default-route": []}]', second)[1] == [other_table]
    [_, routes] = routes_after('[{"name": "a", "default-route": ["10.1.0.9"]}]', second)
    assert routes == [other_table, {"dst": "0.0.0.0/0", "gw": "10.1.0.9"}]


def test_an_empty_list_without_a_gateway_changes_nothing() -> None:
    """NPWG-29, NPWG-30: a pod is not left without any default route."""
    second = result("10.1.0.2/24", routes=[])
    assert routes_after('[{"name": "a", "default-route": []}]', second) == [[V4, V6, OTHER], []]


def test_without_the_key_nothing_changes() -> None:
    assert routes_after("a", result("10.1.0.2/24", routes=[]))[0] == [V4, V6, OTHER]


def test_a_gateway_of_a_family_without_address_is_refused() -> None:
    second = result("10.1.0.2/24", routes=[])
    with pytest.raises(InvalidNetworkConfig, match="no IPv6 address"):
        routes_after('[{"name": "a", "default-route": ["fd00::9"]}]', second)
