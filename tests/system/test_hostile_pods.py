"""Generated annotations and net-attach-defs through real shim and daemon, to a recording plugin
(issue 5): a pod is refused before any delegate runs, or each delegate of it runs and is undone."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from metaplugin.cni.errors import TryAgainLater
from tests.property.test_selection import ANY_TEXT, JSON, KEYS, VALID
from tests.system.node import Node, Pod, noop_network

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

FAR = settings(max_examples=50, suppress_health_check=list(HealthCheck))
ALL = dict.fromkeys(("ips", "mac", "portMappings", "bandwidth", "infinibandGUID"), True)
REFUSALS = {
    1,
    2,
    4,
    6,
    7,
    TryAgainLater.CODE,  # an element asks for a device, and there is no kubelet
    50,
}  # never 100 and on: no delegate fails here, and no defect is asked for
PARTS = (
    *("cniVersion", "name", "type", "ipam", "capabilities", "plugins", "delegate", "args"),
    *("runtimeConfig", "prevResult", "disableCheck", "disableGC", "cniVersions", "dns", "foreign"),
)
ODD = JSON | st.sampled_from(["noop", "../noop", "/bin/sh", "1.1.0", "9.9.9", [], {}, [[]], [{}]])
LEFT_OUT = ("namespace", "default-route")  # known, and its interface there: neither is so here
ELEMENTS = st.builds(
    lambda valid, odd: (
        {k: v for k, v in valid.items() if k not in LEFT_OUT} | {"name": "lan"} | odd
    ),
    VALID,
    st.just({}) | st.dictionaries(st.sampled_from(KEYS), ODD, max_size=1),
)
ANNOTATIONS = (
    st.lists(ELEMENTS, max_size=3).map(json.dumps) | ANY_TEXT | st.text("lan/@, .-[{", max_size=9)
)
CONFIGS = st.dictionaries(st.sampled_from(PARTS), ODD, min_size=1, max_size=2)


class Sandboxes:
    """One namespace after another pod's; recording plugins make no interface in it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._pod = node.pod(None)
        self._numbers = itertools.count()

    def next(self, annotation: str) -> Pod:
        name = f"hostile-{next(self._numbers)}"
        return replace(self._pod, container_id=name, name=name, annotation=annotation)

    def attach_and_detach(self, pod: Pod) -> None:
        node = self.node
        (node.root / "noop.log").unlink(missing_ok=True)
        added = node.add(pod)
        calls = Counter(call["command"] for call in node.noop_calls())
        if added.exit_code:
            event(f"refused with {added.code}")
            assert added.code in REFUSALS, added.stdout
            assert calls == {}, added.stdout
        else:
            event("attached")
            assert calls["ADD"] == calls.total() > 0
            assert node.call("CHECK", pod).code in (0, 101)  # the plugin's interface isn't there
        assert node.delete(pod).exit_code == 0
        undone = Counter(call["command"] for call in node.noop_calls())
        if added.code != TryAgainLater.CODE:  # else all but the device's network is tried
            assert undone["DEL"] == calls["ADD"]
        assert (node.records(), node.locks()) == ([], [])


@pytest.fixture
def sandboxes(recording_node: Node) -> Iterator[Sandboxes]:
    yield Sandboxes(recording_node)
    assert recording_node.daemon is not None
    assert recording_node.daemon.poll() is None
    assert "Traceback" not in recording_node.log.read_text()


@FAR
@given(ANNOTATIONS)
def test_no_annotation_reaches_a_delegate_half_checked(
    sandboxes: Sandboxes, annotation: str
) -> None:
    """ROB-2, ROB-4."""
    node = sandboxes.node
    node.define("lan", noop_network(node.root, "lan", capabilities=ALL))
    sandboxes.attach_and_detach(sandboxes.next(annotation))


@FAR
@given(CONFIGS, st.booleans())
def test_no_net_attach_def_reaches_a_delegate_half_checked(
    sandboxes: Sandboxes, odd: dict[str, Any], listed: bool
) -> None:
    """ROB-2, ROB-4: as one plugin, or as the second of a list."""
    node = sandboxes.node
    good = noop_network(node.root, "lan")
    config = good | odd
    if listed:
        config = {"cniVersion": "1.0.0", "name": "lan", "plugins": [good, good | odd]}
    node.define("lan", json.dumps(config))
    sandboxes.attach_and_detach(sandboxes.next("lan"))
