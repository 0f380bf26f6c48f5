"""Network configurations, and what of them each plugin gets (CNI sections 1 and 4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metaplugin.cni.attachments import Attachment, parse_valid_attachments
from metaplugin.cni.configuration import (
    merge_cni_args,
    parse_network_config,
    parse_open_list,
    parse_plugin,
    plugin_request,
    with_plugins,
    with_top_level,
)
from metaplugin.cni.errors import CNIError, IncompatibleVersion, InvalidNetworkConfig
from metaplugin.cni.version import select_version

LIST: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "net",
    "plugins": [
        {"type": "bridge", "capabilities": {"mac": True, "ips": False}, "ipam": {"type": "x"}},
        {"type": "tuning", "capabilities": {"mac": True}, "sysctl": {"a": "1"}},
    ],
}


def request(raw: dict[str, Any], position: int = 0, **keys: Any) -> dict[str, Any]:
    config = parse_network_config(raw, where="net")
    keys = {"capability_args": {}} | keys
    parsed = json.loads(plugin_request(config, config.plugins[position], **keys))
    assert isinstance(parsed, dict)
    return parsed


def test_a_single_configuration_becomes_a_list_of_one() -> None:
    raw = {"cniVersion": "0.4.0", "name": "net", "type": "bridge", "x": {"y": None}}
    config = parse_network_config(raw, where="net")
    assert (config.name, config.cni_version) == ("net", "0.4.0")
    assert [plugin.type for plugin in config.plugins] == ["bridge"]
    assert raw == request(raw)


def test_a_list_can_be_parsed_again_from_its_raw_form() -> None:
    for raw in (LIST, {"name": "net", "type": "bridge"}):
        config = parse_network_config(raw, where="net")
        assert config == parse_network_config(config.raw, where="net")


def test_a_missing_name_is_filled_in() -> None:
    """NPWG-4."""
    raw = {"cniVersion": "1.0.0", "type": "bridge"}
    config = parse_network_config(raw, where="net", default_name="from-definition")
    assert config.name == "from-definition"
    assert json.loads(plugin_request(config, config.plugins[0], capability_args={}))["name"] == (
        "from-definition"
    )


def test_name_and_version_are_inserted() -> None:
    """CNI-DLG-1, CNI-DLG-2, CNI-DLG-3."""
    assert request(LIST, 1) == {
        "type": "tuning",
        "sysctl": {"a": "1"},
        "name": "net",
        "cniVersion": "1.0.0",
    }


def test_reserved_and_derived_keys_are_not_passed_on() -> None:
    """CNI-DLG-5, CNI-DLG-6."""
    plugin = {
        "type": "bridge",
        "capabilities": {"mac": True},
        "cni.dev/anything": 1,
        "runtimeConfig": {"mac": "from the file"},
        "prevResult": {"from": "the file"},
    }
    got = request(LIST | {"plugins": [plugin]})
    assert got == {"type": "bridge", "name": "net", "cniVersion": "1.0.0"}


def test_runtime_config_holds_what_is_declared_and_given() -> None:
    """CNI-DLG-7."""
    args = {"mac": "02:00:00:00:00:01", "ips": ["10.0.0.1/24"], "io.example/x": 1}
    assert request(LIST, 0, capability_args=args)["runtimeConfig"] == {"mac": args["mac"]}
    unusual = LIST | {"plugins": [{"type": "a", "capabilities": {"io.example/x": True}}]}
    assert request(unusual, capability_args=args)["runtimeConfig"] == {"io.example/x": 1}
    assert "runtimeConfig" not in request(LIST, 0, capability_args={"mac": None})


def test_all_other_keys_pass_unchanged() -> None:
    """CNI-DLG-4."""
    odd: dict[str, Any] = {
        "null": None,
        "float": 1.5,
        "big": 10**40,
        "text": "\u2028\U0001f600",
        "n": [[{}]],
    }
    got = request(LIST | {"plugins": [{"type": "a", **odd}]})
    assert odd == {key: got[key] for key in odd}


def test_prev_result_is_given() -> None:
    assert request(LIST, prev_result={"ips": []})["prevResult"] == {"ips": []}


def test_gc_carries_the_list_under_both_names() -> None:
    """CNI-GC-1, CNI-GC-10."""
    valid = [{"containerID": "c", "ifname": "eth0"}]
    got = request(LIST, valid_attachments=valid)
    assert got["cni.dev/valid-attachments"] == got["cni.dev/attachments"] == valid


@pytest.mark.parametrize(
    ("named", "selected"),
    [
        ({}, "0.1.0"),
        ({"cniVersion": ""}, "0.1.0"),
        ({"cniVersion": "0.4.0"}, "0.4.0"),
        ({"cniVersion": "0.4.0", "cniVersions": ["1.0.0", "9.9.9"]}, "1.0.0"),
        ({"cniVersions": ["0.3.1", "1.1.0", "0.4.0"]}, "1.1.0"),
        ({"cniVersion": "2.0.0", "cniVersions": ["0.3.1"]}, "0.3.1"),
    ],
)
def test_the_highest_supported_version_is_selected(named: dict[str, Any], selected: str) -> None:
    """CNI-SEL-1, CNI-SEL-2, CNI-VER-6."""
    assert selected == select_version(named, where="net")


@pytest.mark.parametrize("version", ["2.0.0", "0.9", "v1.0.0", "latest"])
def test_an_unsupported_version_is_refused(version: str) -> None:
    """CNI-VER-5."""
    with pytest.raises(IncompatibleVersion) as raised:
        parse_network_config(LIST | {"cniVersion": version}, where="net")
    assert raised.value.code == 1


def _plugin(**keys: Any) -> dict[str, Any]:
    return LIST | {"plugins": [{"type": "bridge"}, {"type": "tuning", **keys}]}


BAD = {
    "no name": ({k: v for k, v in LIST.items() if k != "name"}, "net: name: "),
    "name with slash": (LIST | {"name": "a/b"}, "net: name: network name"),
    "name is no text": (LIST | {"name": 7}, "net: name: "),
    "no plugins": ({"name": "net"}, "net: plugins: must hold"),
    "plugins empty": (LIST | {"plugins": []}, "net: plugins: must hold"),
    "plugins no list": (LIST | {"plugins": {}}, "net: plugins: must be a list"),
    "plugin null": (LIST | {"plugins": [None]}, "net: plugins[0]: must be an object"),
    "type missing": (LIST | {"plugins": [{}]}, "net: plugins[0].type: must name"),
    "type is a number": (_plugin(type=1), "net: plugins[1].type: must be text"),
    "type is a path": (_plugin(type="../sh"), "net: plugins[1].type: plugin type"),
    "type with nul": (_plugin(type="a\0"), "net: plugins[1].type: plugin type"),
    "ipam path": (_plugin(ipam={"type": "/x"}), "net: plugins[1].ipam.type: plugin type"),
    "ipam no object": (_plugin(ipam="dhcp"), "net: plugins[1].ipam: must be an object"),
    "delegate path": (_plugin(delegate={"type": "a/b"}), "net: plugins[1].delegate.type"),
    "nested ipam": (
        _plugin(delegate={"ipam": {"type": "a/b"}}),
        "net: plugins[1].delegate.ipam.type",
    ),
    "capabilities list": (_plugin(capabilities=["mac"]), "net: plugins[1].capabilities: "),
    "capability text": (_plugin(capabilities={"mac": "yes"}), "net: plugins[1].capabilities: "),
    "disableCheck": (LIST | {"disableCheck": "perhaps"}, "net: disableCheck: must be"),
    "disableGC": (LIST | {"disableGC": 1}, "net: disableGC: must be"),
    "only inlined": (
        {"name": "net", "loadOnlyInlinedPlugins": True},
        "net: loadOnlyInlinedPlugins: needs",
    ),
    "version number": (LIST | {"cniVersion": 1}, "net: cniVersion must be text"),
    "versions text": (LIST | {"cniVersions": "1.0.0"}, "net: cniVersions must be a list"),
    "single type path": ({"name": "net", "type": "/bin/sh"}, "net: type: plugin type"),
}


@pytest.mark.parametrize(("raw", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_configuration_is_refused_with_its_place(raw: dict[str, Any], message: str) -> None:
    """CNI-IN-9, CNI-DLG-16."""
    with pytest.raises(InvalidNetworkConfig) as raised:
        parse_network_config(raw, where="net")
    assert raised.value.msg.startswith(message)


@pytest.mark.parametrize(("value", "expected"), [(True, True), ("true", True), ("false", False)])
def test_flags_may_be_texts_as_in_libcni(value: object, expected: bool) -> None:
    """CNI-DLG-14, CNI-DLG-15."""
    config = parse_network_config(LIST | {"disableCheck": value, "disableGC": value}, where="net")
    assert (config.disable_check, config.disable_gc) == (expected, expected)


def test_plugins_can_be_appended_to_an_open_list() -> None:
    """CNI-DLG-16."""
    config = parse_open_list({"name": "net"}, where="net")
    grown = with_plugins(config, [parse_plugin({"type": "tuning"}, where="file")])
    assert parse_network_config(grown.raw, where="net").plugins == grown.plugins


def test_the_pods_cni_args_win_in_every_plugin() -> None:
    """NPWG-19, NPWG-20."""
    raw = _plugin(args={"cni": {"a": 1, "b": 2}, "other": 3})
    config = merge_cni_args(parse_network_config(raw, where="net"), {"b": 9})
    assert [plugin.raw["args"] for plugin in config.plugins] == [
        {"cni": {"b": 9}},
        {"cni": {"a": 1, "b": 9}, "other": 3},
    ]
    assert raw["plugins"][1]["args"]["cni"]["b"] == 2


@pytest.mark.parametrize("args", [[], "x", {"cni": []}, {"cni": "x"}])
def test_cni_args_need_an_object_to_go_into(args: object) -> None:
    config = parse_network_config(_plugin(args=args or ["x"]), where="net")
    with pytest.raises(InvalidNetworkConfig, match=r"plugins\[1\]\.args\.cni"):
        merge_cni_args(config, {"a": 1})


def test_top_level_keys_reach_every_plugin_and_the_raw_form() -> None:
    config = with_top_level(parse_network_config(LIST, where="net"), {"deviceID": "0000:01:00.1"})
    assert [p["deviceID"] for p in config.raw["plugins"]] == ["0000:01:00.1"] * 2


def test_valid_attachments_are_read_under_either_name() -> None:
    """CNI-GC-2, CNI-GC-10."""
    items = [{"containerID": "c", "ifname": "eth0"}]
    expected = (Attachment("c", "eth0"),)
    assert expected == parse_valid_attachments({"cni.dev/valid-attachments": items})
    assert expected == parse_valid_attachments({"cni.dev/attachments": items})
    assert parse_valid_attachments({"cni.dev/valid-attachments": []}) == ()
    assert parse_valid_attachments({}) is None


def test_a_null_is_the_empty_list_of_a_caller_in_go_unless_the_other_name_has_one() -> None:
    """CNI-GC-2: a runtime without pods hands libcni a nil slice; one without a list, no key."""
    nothing = {"cni.dev/valid-attachments": None, "cni.dev/attachments": None}
    assert parse_valid_attachments(nothing) == ()
    items = [{"containerID": "c", "ifname": "eth0"}]
    expected = (Attachment("c", "eth0"),)
    assert parse_valid_attachments(nothing | {"cni.dev/attachments": items}) == expected


@pytest.mark.parametrize(
    "items",
    [{}, ["x"], [{}], [{"containerID": "c"}], [{"containerID": "../c", "ifname": "eth0"}]],
    ids=str,
)
def test_a_malformed_list_of_valid_attachments_is_refused(items: object) -> None:
    """CNI-GC-2."""
    with pytest.raises(CNIError, match="cni.dev/valid-attachments|CNI_CONTAINERID"):
        parse_valid_attachments({"cni.dev/valid-attachments": items})
