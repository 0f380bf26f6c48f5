"""`metaplugin check --all` on a node of real plugins."""

from __future__ import annotations

import subprocess

import pytest

from tests.system.node import Node

pytestmark = pytest.mark.system


def test_what_is_as_it_should_be_and_what_has_changed_is_told_by_pod(node: Node) -> None:
    whole, changed = node.pod("macvlan"), node.pod("macvlan")
    for pod in (whole, changed):
        assert node.add(pod).exit_code == 0
    assert node.check_all().returncode == 0
    subprocess.run(["ip", "-n", changed.netns.name, "link", "del", "net1"], check=True)
    done = node.check_all()
    lines = {line.split()[1]: line for line in done.stdout.splitlines()[:-1]}
    assert done.returncode == 1, done.stdout
    assert "as it should be" in lines["default/pod1:"]
    assert "net1" in lines["default/pod2:"]
    assert "2 attached, 1 not as they should be" in done.stdout


def test_a_damaged_record_is_told(node: Node) -> None:
    assert node.add(node.pod()).exit_code == 0
    [name] = node.records()
    path = node.root / "state" / "attachments" / name
    path.write_bytes(path.read_bytes()[:20])
    done = node.check_all()
    assert done.returncode == 1
    assert f"{name} -: the record is damaged" in done.stdout
