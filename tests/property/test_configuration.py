"""Configurations and the environment: what is not ours goes through untouched."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from metaplugin.cni.configuration import parse_network_config, plugin_request
from metaplugin.cni.environment import Command, format_args, parse_args, parse_environment
from metaplugin.cni.errors import CNIError, InvalidEnvironment
from metaplugin.cni.raw import load_object
from metaplugin.cni.version import SUPPORTED_VERSIONS
from metaplugin.wire.frames import decode_environment, encode_environment
from tests.property.test_selection import ANY_TEXT, JSON

OURS = {"name", "cniVersion", "capabilities", "runtimeConfig", "prevResult"}
CHECKED = {"type", "ipam", "delegate", "plugins", "cniVersions"}
FOREIGN = st.dictionaries(
    ANY_TEXT.filter(lambda key: key not in OURS | CHECKED and not key.startswith("cni.dev/")),
    JSON,
    max_size=4,
)
TYPES = st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True)
PLUGINS = st.builds(
    lambda kind, foreign, ipam: foreign | {"type": kind, "ipam": ipam},
    TYPES,
    FOREIGN,
    st.builds(lambda kind, foreign: foreign | {"type": kind}, TYPES, FOREIGN),
)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0;"), max_size=10)
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0;="), min_size=1, max_size=10)
PAIRS = st.lists(st.tuples(KEYS, VALUES), max_size=4).map(tuple)


@given(
    st.lists(PLUGINS, min_size=1, max_size=3), FOREIGN, st.sampled_from(SUPPORTED_VERSIONS), FOREIGN
)
def test_a_plugin_gets_all_of_its_configuration_and_no_more(
    plugins: list[dict[str, Any]], foreign: dict[str, Any], version: str, args: dict[str, Any]
) -> None:
    """CNI-DLG-1 to CNI-DLG-4: unknown keys, null and empty values included."""
    reserved = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")
    outer = {key: value for key, value in foreign.items() if key not in reserved}
    raw = outer | {"name": "n", "cniVersion": version, "plugins": plugins}
    config = parse_network_config(raw, where="file")
    assert config.raw == raw
    assert parse_network_config(config.raw, where="file") == config
    for plugin, given_raw in zip(config.plugins, plugins, strict=True):
        stdin = load_object(
            plugin_request(config, plugin, capability_args=args), what="standard input"
        )
        assert stdin == given_raw | {"name": "n", "cniVersion": version}


@given(PLUGINS, st.sampled_from(SUPPORTED_VERSIONS))
def test_a_single_plugin_is_a_list_of_itself(plugin: dict[str, Any], version: str) -> None:
    """CNI-CONF-1."""
    flags = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")
    raw = {key: value for key, value in plugin.items() if key not in flags}
    raw |= {"name": "n", "cniVersion": version}
    config = parse_network_config(raw, where="file")
    [only] = config.plugins
    assert only.raw == raw
    assert parse_network_config(config.raw, where="file") == config


@given(PAIRS)
def test_arguments_come_back_as_they_went(pairs: tuple[tuple[str, str], ...]) -> None:
    """CNI-ENV-6: a value may hold '='."""
    assert parse_args(format_args(pairs)) == pairs


@given(
    st.sampled_from(sorted(Command)),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9]{0,14}", fullmatch=True),
    PAIRS,
    VALUES.filter(bool),
)
def test_a_call_is_read_as_it_was_made(
    command: Command,
    container_id: str,
    ifname: str,
    pairs: tuple[tuple[str, str], ...],
    netns: str,
) -> None:
    """CNI-ENV-1 to CNI-ENV-8, over the wire's form."""
    values = {
        "CNI_COMMAND": command.value,
        "CNI_CONTAINERID": container_id,
        "CNI_IFNAME": ifname,
        "CNI_NETNS": netns,
        "CNI_ARGS": format_args(pairs),
        "CNI_PATH": "/opt/cni/bin",
    }
    args = parse_environment(decode_environment(encode_environment(values)))
    assert (args.command, args.container_id, args.ifname) == (command, container_id, ifname)
    assert (args.netns, args.args, args.path) == (netns, pairs, "/opt/cni/bin")


def check_told(error: CNIError) -> None:
    assert error.code == 4
    assert error.msg.encode()


@given(
    st.dictionaries(
        st.sampled_from(["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"]),
        ANY_TEXT | st.sampled_from(["ADD", "DEL", "GC", "eth0", "A=b"]),
    )
)
def test_no_environment_does_worse_than_a_cni_error(values: dict[str, str]) -> None:
    """ROB-2, CNI-ERR-1."""
    try:
        args = parse_environment(values)
    except InvalidEnvironment as error:
        check_told(error)
        return
    assert parse_args(format_args(args.args)) == args.args
