"""Configurations on the node's disk, found by their network's name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from metaplugin.cni.configuration import NetworkConfigList
from metaplugin.cni.errors import CNIError
from metaplugin.folder.configurations import ConfigurationFiles

SINGLE = {"cniVersion": "1.0.0", "name": "net", "type": "single"}
LIST = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "listed"}]}

OUTPUTS = ("metaplugin", "multus", "multus-shim")


def named(folder: Path, name: str = "net") -> NetworkConfigList | None:
    with ThreadPoolExecutor(1) as disk:
        return asyncio.run(ConfigurationFiles(disk).named(name, folder=str(folder)))


def at(path: Path) -> NetworkConfigList:
    with ThreadPoolExecutor(1) as disk:
        return asyncio.run(ConfigurationFiles(disk).at(str(path), own=OUTPUTS))


@pytest.mark.parametrize("path", ["/" + "a" * 300, "/" + "a/" * 3000], ids=["name", "path"])
def test_a_path_that_is_too_long_is_an_error_by_name(path: str) -> None:
    """MULTUS-18: the runtime's configuration may say any, and it is no defect of ours."""
    with ThreadPoolExecutor(1) as disk:
        files = ConfigurationFiles(disk)
        for look in (files.exists(path), files.at(path, own=OUTPUTS), files.plugins(path)):
            with pytest.raises(CNIError, match="/a"):
                asyncio.run(_wait(look))


async def _wait(look: Awaitable[object]) -> object:
    return await look


def test_a_list_comes_before_a_single_plugins_however_the_files_sort(tmp_path: Path) -> None:
    """NPWG-2."""
    (tmp_path / "00-a.conf").write_text(json.dumps(SINGLE))
    (tmp_path / "99-z.conflist").write_text(json.dumps(LIST))
    found = named(tmp_path)
    assert found is not None
    assert [plugin.type for plugin in found.plugins] == ["listed"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"name": "../x", "type": "a"}', b'{"name": "net"}', b"[" * 9999],
)
def test_a_broken_file_matters_to_no_other(tmp_path: Path, content: bytes) -> None:
    """ROB-5."""
    (tmp_path / "00-broken.conflist").write_bytes(content)
    (tmp_path / "10-good.conf").write_text(json.dumps(SINGLE))
    assert named(tmp_path) is not None
    with pytest.raises(CNIError, match="broken"):
        at(tmp_path / "00-broken.conflist")


def test_plugins_of_the_networks_own_folder_are_appended(tmp_path: Path) -> None:
    """CNI-DLG-16."""
    (tmp_path / "net.conflist").write_text(json.dumps(LIST))
    (tmp_path / "net").mkdir()
    for name in ("20-b.conf", "10-a.conf"):
        (tmp_path / "net" / name).write_text(json.dumps({"type": name[3]}))
    assert [plugin.type for plugin in at(tmp_path / "net.conflist").plugins] == ["listed", "a", "b"]
    alone = LIST | {"loadOnlyInlinedPlugins": True}
    (tmp_path / "net.conflist").write_text(json.dumps(alone))
    assert [plugin.type for plugin in at(tmp_path / "net.conflist").plugins] == ["listed"]


def test_a_folder_that_is_missing_has_no_configurations(tmp_path: Path) -> None:
    assert named(tmp_path / "gone") is None


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("name", ["00-ours.conflist", "00-multus.conf", "zz.json"])
def test_our_own_output_is_no_default_network_whatever_its_name(
    tmp_path: Path, name: str, kind: str
) -> None:
    """MULTUS-13."""
    (tmp_path / name).write_text(json.dumps({"cniVersion": "1.0.0", "name": "m", "type": kind}))
    with pytest.raises(CNIError, match="no network configuration"):
        at(tmp_path)
    (tmp_path / "50-net.conf").write_text(json.dumps(SINGLE))
    assert at(tmp_path).name == "net"


def test_a_link_that_leads_nowhere_from_here_is_no_reason_to_take_the_next(tmp_path: Path) -> None:
    """As from k3s's folder into /etc/cni/net.d: a container has the one and not the other."""
    (tmp_path / "10-a.conflist").symlink_to("/nowhere/10-a.conflist")
    (tmp_path / "20-b.conflist").write_text(json.dumps(LIST))
    with pytest.raises(CNIError, match=r"10-a\.conflist: can't be read") as raised:
        at(tmp_path)
    assert "a link that leads nowhere" in raised.value.details


def test_a_broken_first_file_of_a_folder_is_no_reason_to_take_the_next(tmp_path: Path) -> None:
    """MULTUS-13: pods would be on another network."""
    (tmp_path / "00-net.conflist").write_text("{")
    (tmp_path / "50-net.conf").write_text(json.dumps(SINGLE))
    with pytest.raises(CNIError, match="00-net.conflist"):
        at(tmp_path)
