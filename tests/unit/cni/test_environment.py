"""The environment of a call (CNI section 2): what is accepted, and what each refusal says."""

from __future__ import annotations

import pytest

from metaplugin.cni.environment import (
    CmdArgs,
    Command,
    format_args,
    parse_args,
    parse_environment,
    validate_container_id,
    validate_interface_name,
    validate_network_name,
    validate_plugin_type,
)
from metaplugin.cni.errors import InvalidEnvironment, InvalidNetworkConfig

ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=p",
    "CNI_PATH": "/opt/cni/bin",
}


def test_a_call_is_read_whole() -> None:
    expected = CmdArgs(
        command=Command.ADD,
        container_id="c1",
        netns="/run/netns/c1",
        ifname="eth0",
        args=(("IgnoreUnknown", "1"), ("K8S_POD_NAME", "p")),
        path="/opt/cni/bin",
    )
    assert expected == parse_environment(ADD)


@pytest.mark.parametrize("command", ["", "add", "CMDADD", "ADD\n"])
def test_an_unknown_command_is_refused(command: str) -> None:
    """CNI-ENV-1, CNI-ENV-2."""
    with pytest.raises(InvalidEnvironment, match="CNI_COMMAND"):
        parse_environment(ADD | {"CNI_COMMAND": command})


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("ADD", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("CHECK", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("DEL", ["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("GC", ["CNI_PATH"]),
    ],
)
def test_all_missing_variables_are_named_at_once(command: str, missing: list[str]) -> None:
    """CNI-ENV-3, CNI-ENV-5, CNI-ENV-6, CNI-ENV-7, CNI-ENV-9."""
    with pytest.raises(InvalidEnvironment) as raised:
        parse_environment({"CNI_COMMAND": command})
    assert raised.value.msg == f"{command} needs {', '.join(missing)}"
    assert raised.value.code == 4


@pytest.mark.parametrize("command", ["STATUS", "VERSION"])
def test_commands_about_no_sandbox_need_no_variables(command: str) -> None:
    """CNI-VER-3."""
    assert parse_environment({"CNI_COMMAND": command}).command == command


@pytest.mark.parametrize("container_id", ["a", "0", "a" * 5000, "a_b.c-d", "A9"])
def test_every_valid_container_id_is_accepted(container_id: str) -> None:
    """CNI-ENV-11."""
    validate_container_id(container_id)


BAD_IDENTIFIERS = ["-a", ".", "..", "_a", "a/b", "../a", "a b", "a\n", "é", "a\0b", "a;b", "٣"]


@pytest.mark.parametrize("value", ["", *BAD_IDENTIFIERS], ids=ascii)
def test_a_malformed_container_id_is_refused(value: str) -> None:
    """CNI-ENV-4, ROB-1."""
    with pytest.raises(InvalidEnvironment, match="CNI_CONTAINERID"):
        validate_container_id(value)


@pytest.mark.parametrize("value", ["", *BAD_IDENTIFIERS, "a" * 300], ids=ascii)
def test_a_malformed_network_name_is_refused(value: str) -> None:
    """CNI-IN-4, ROB-3."""
    with pytest.raises(InvalidNetworkConfig, match="^here: network name"):
        validate_network_name(value, where="here")


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\u2003b", "a\0", "a" * 16, "é" * 8, "\ud800"],
    ids=ascii,
)
def test_a_malformed_interface_name_is_refused(value: str) -> None:
    """CNI-ENV-6, NPWG-17."""
    with pytest.raises(InvalidNetworkConfig, match="^here: interface name"):
        validate_interface_name(value, where="here")
    with pytest.raises(InvalidEnvironment, match="CNI_IFNAME"):
        parse_environment(ADD | {"CNI_IFNAME": value})


@pytest.mark.parametrize("value", ["eth0", "a" * 15, "é" * 7, "net1.100", "lo@x"])
def test_whatever_linux_allows_is_an_interface_name(value: str) -> None:
    validate_interface_name(value, where="here")


@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "/bin/sh", "a\0", "a" * 300], ids=ascii)
def test_a_plugin_type_that_is_no_file_name_is_refused(value: str) -> None:
    """CNI-DLG-13, ROB-3."""
    with pytest.raises(InvalidNetworkConfig, match="^here: plugin type"):
        validate_plugin_type(value, where="here")


def test_a_value_in_cni_args_may_hold_an_equals_sign() -> None:
    """CNI-ENV-8."""
    pairs = parse_args("A=1;B=x=y;C=")
    assert pairs == (("A", "1"), ("B", "x=y"), ("C", ""))
    assert format_args(pairs) == "A=1;B=x=y;C="


@pytest.mark.parametrize("text", ["A", "A=1;B", "=1", ";", "A=1;;B=2"])
def test_malformed_cni_args_are_refused(text: str) -> None:
    """CNI-ENV-8."""
    with pytest.raises(InvalidEnvironment, match="CNI_ARGS"):
        parse_environment(ADD | {"CNI_ARGS": text})
