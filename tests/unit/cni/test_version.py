"""Which version a plugin is run in that doesn't speak its network's."""

from __future__ import annotations

from typing import Any

import pytest

from metaplugin.cni.raw import dump
from metaplugin.cni.result import Result, parse_result, restored
from metaplugin.cni.version import nearest_version


@pytest.mark.parametrize(
    ("supported", "wanted", "expected"),
    [
        (["0.3.1", "0.4.0", "1.0.0"], "0.4.0", "0.4.0"),
        (["0.1.0", "0.2.0", "0.3.0", "0.3.1"], "1.1.0", "0.3.1"),
        (["0.4.0", "1.0.0", "1.1.0"], "0.3.1", "0.4.0"),
        (["0.2.0", "1.0.0"], "0.4.0", "1.0.0"),
        (["0.1.0", "0.2.0"], "1.0.0", None),
        (["2.0.0", "9.9.9"], "1.1.0", None),
        ([], "1.1.0", None),
    ],
)
def test_the_nearest_version_is_the_highest_below_else_the_lowest_above(
    supported: list[str], wanted: str, expected: str | None
) -> None:
    """CNI-SEL-1, CNI-SEL-2; here of those that have interfaces."""
    assert nearest_version(supported, wanted, minimum="0.3.0") == expected


def result(version: str, **raw: Any) -> Result:
    return parse_result(dump(raw), configured_version=version, where="test")


PREVIOUS = result(
    "1.1.0",
    interfaces=[
        {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/n", "mtu": 1400},
        {"name": "veth1", "socketPath": "/s"},
    ],
    routes=[{"dst": "10.0.0.0/8", "priority": 3}, {"dst": "10.0.0.0/8", "gw": "10.1.0.1"}],
)


def test_what_an_older_version_can_not_say_is_as_the_previous_plugin_said_it() -> None:
    """CNI-VER-8."""
    old = result("0.3.1", **{k: v for k, v in PREVIOUS.to_version("0.3.1").items() if v})
    assert "mtu" not in old.raw["interfaces"][0]
    assert restored(old, PREVIOUS, "1.1.0").raw == PREVIOUS.to_version("1.1.0")


def test_what_the_plugin_changed_is_as_it_says() -> None:
    """CNI-VER-8: an interface with another address is another one, and nothing comes back."""
    changed = {"name": "eth0", "mac": "02:00:00:00:00:99", "sandbox": "/n"}
    found = restored(result("0.4.0", interfaces=[changed]), PREVIOUS, "1.1.0")
    assert found.raw == {"cniVersion": "1.1.0", "interfaces": [changed]}


def test_without_a_previous_result_it_is_converted_alone() -> None:
    """CNI-VER-7, CNI-VER-10."""
    found = restored(result("0.2.0", ip4={"ip": "10.0.0.2/24"}), None, "1.0.0")
    assert found.raw == {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]}
    kept = result("0.3.1", dns={"domain": "x"})
    assert restored(kept, PREVIOUS, "0.2.0") is kept
