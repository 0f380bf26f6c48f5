"""Pods that started before metaplugin was in place: which they are, and what is done about them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from metaplugin.attachments.record import Record, StoredRecord
from metaplugin.attachments.runtime_conf import PodReference, Sandbox
from metaplugin.cni.errors import IOFailure
from metaplugin.commands.ports import MIRROR_ANNOTATION, KnownPod, Settings
from metaplugin.commands.unattached import GRACE_S, REFUSED_S, UnattachedPods
from metaplugin.wire.container import DamagedRecord

NETWORKS = "k8s.v1.cni.cncf.io/networks"
CHOSEN_DEFAULT = "v1.multus-cni.io/default-network"
NAME = ("default", "old")
OLD = KnownPod(uid="u", annotations={NETWORKS: "lan, kit/storage"}, attached=True, replaced=True)
LACKING = ("default/lan", "kit/storage")


@dataclass
class Records:
    """What is on disk; an error is raised."""

    found: dict[str, StoredRecord | DamagedRecord] = field(default_factory=dict)
    problem: IOFailure | None = None
    surveys: int = 0

    async def survey(self) -> Mapping[str, StoredRecord | DamagedRecord]:
        self.surveys += 1
        if self.problem:
            raise self.problem
        return self.found


@dataclass
class Told:
    events: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def unattached(self, pod: PodReference, lacking: tuple[str, ...]) -> None:
        self.events.append((str(pod), lacking))


@dataclass
class Server:
    """Evicts but those whose budget doesn't allow it."""

    held: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    async def evict(self, pod: PodReference) -> bool:
        self.asked.append(pod.name)
        return pod.name not in self.held


@dataclass
class Scene:
    """The clock is the test's: `look` goes to a moment."""

    pods: dict[tuple[str, str], KnownPod] = field(default_factory=lambda: {NAME: OLD})
    settings: Settings = field(default_factory=Settings)
    records: Records = field(default_factory=Records)
    told: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        self.watch = UnattachedPods(
            pods=lambda: self.pods,
            settings=self.settings,
            records=self.records,
            events=self.told,
        )

    def look(self, *moments: float) -> list[str]:
        for moment in moments:
            asyncio.run(self.watch.look(moment))
        return [str(each.pod) for each in self.watch.found]


def record(namespace: str, name: str, uid: str) -> StoredRecord:
    pod = PodReference(namespace=namespace, name=name, uid=uid)
    kept = Record(
        generation="g",
        sandbox=Sandbox(container_id="c", netns="/run/netns/c"),
        ifname="eth0",
        network="metaplugin",
        runtime="/usr/bin/containerd",
        pod=pod,
        created=0,
        attachments=(),
    )
    return StoredRecord(record=kept, calls=())


def test_a_pod_from_before_is_told_once_with_what_it_lacks() -> None:
    scene = Scene()
    assert scene.look(0, GRACE_S, GRACE_S + 15, GRACE_S + 30) == ["default/old"]
    assert scene.told.events == [("default/old", LACKING)]


def test_it_is_told_only_after_it_has_been_so_for_a_while() -> None:
    """After a node's crash the API server still says that a pod runs whose sandbox is no more."""
    scene = Scene()
    assert scene.look(0, GRACE_S - 1) == []
    scene.records.found = {"c@eth0": record("default", "old", "u")}
    scene.look(GRACE_S)
    scene.records.found = {}
    assert scene.look(GRACE_S + 1) == []
    assert scene.told.events == []


def test_the_successor_of_a_pod_is_a_pod_of_its_own() -> None:
    scene = Scene()
    scene.look(0, GRACE_S)
    scene.pods = {NAME: replace(OLD, uid="u2")}
    assert scene.look(GRACE_S + 1) == []
    assert scene.look(2 * GRACE_S + 1) == ["default/old"]
    assert len(scene.told.events) == 2


STATUS_OF_MULTUS = json.dumps([{"name": "cbr0", "default": True}, {"name": "default/lan"}])


@pytest.mark.parametrize(
    "pod",
    [
        replace(OLD, attached=False),
        replace(OLD, annotations={}),
        replace(OLD, annotations={NETWORKS: " "}),
        replace(OLD, annotations={NETWORKS: "a//b"}),
        replace(OLD, network_status=STATUS_OF_MULTUS),
    ],
    ids=["not running", "wants none", "blank", "unusable annotation", "attached by Multus"],
)
def test_others_are_not_named_and_cost_no_look_at_the_records(pod: KnownPod) -> None:
    scene = Scene(pods={NAME: pod})
    assert scene.look(0, GRACE_S) == []
    assert scene.records.surveys == 0


@pytest.mark.parametrize("status", ["[]", "", "{", '{"a": 1}', "\ud800"], ids=ascii)
def test_a_status_that_says_nothing_is_none(status: str) -> None:
    scene = Scene(pods={NAME: replace(OLD, network_status=status)})
    assert scene.look(0, GRACE_S) == ["default/old"]


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        (record("default", "old", "u"), False),
        (record("default", "old", ""), False),
        (record("default", "old", "another"), True),
        (record("default", "other", "u"), True),
        (DamagedRecord("half of it"), False),
    ],
    ids=["its own", "no UID", "a pod of that name before", "another pod's", "damaged: anyone's"],
)
def test_a_pod_with_a_record_is_not_named(
    stored: StoredRecord | DamagedRecord, *, named: bool
) -> None:
    """Ours, standalone's, and what `migrate` has imported all have one."""
    scene = Scene(records=Records({"c@eth0": stored}))
    assert scene.look(0, GRACE_S) == (["default/old"] if named else [])


def test_a_static_pods_record_has_the_hash_that_its_mirror_notes() -> None:
    mirror = replace(OLD, annotations={NETWORKS: "lan", MIRROR_ANNOTATION: "hash"})
    scene = Scene(pods={NAME: mirror}, records=Records({"c": record("default", "old", "hash")}))
    assert scene.look(0, GRACE_S) == []


def test_records_that_cant_be_read_say_nothing() -> None:
    scene = Scene(records=Records(problem=IOFailure("the disk is gone")))
    assert scene.look(0, GRACE_S) == []


@pytest.mark.parametrize(
    ("annotations", "settings", "namespace", "lacking"),
    [
        ({}, {"default_networks": ("audit",)}, "default", ("audit",)),
        ({}, {"default_networks": ("audit",)}, "kube-system", ()),
        ({CHOSEN_DEFAULT: "fast"}, {}, "default", ("kube-system/fast",)),
        (
            {NETWORKS: '[{"name": "lan", "namespace": "x"}, {"name": "lan"}]'},
            {"default_networks": ("audit",)},
            "default",
            ("audit", "x/lan", "default/lan"),
        ),
    ],
    ids=["default networks", "not in system namespaces", "another default network", "JSON form"],
)
def test_what_a_pod_lacks(
    annotations: dict[str, str],
    settings: dict[str, Any],
    namespace: str,
    lacking: tuple[str, ...],
) -> None:
    pods = {(namespace, "old"): replace(OLD, annotations=annotations)}
    scene = Scene(pods=pods, settings=Settings(**settings))
    scene.look(0, GRACE_S)
    assert [each.lacking for each in scene.watch.found] == ([lacking] if lacking else [])


def evict(scene: Scene, server: Server, now: float) -> bool | None:
    return asyncio.run(scene.watch.evict_one(server, now))


def test_evictions_go_one_by_one_and_only_where_a_controller_replaces_the_pod() -> None:
    bare = replace(OLD, uid="bare", replaced=False)
    others = {("default", f"p{n}"): replace(OLD, uid=f"p{n}") for n in range(2)}
    scene, server = Scene(pods={("default", "bare"): bare, **others}), Server()
    scene.look(0, GRACE_S)
    assert [evict(scene, server, GRACE_S) for _ in range(3)] == [True, True, None]
    assert server.asked == ["p0", "p1"]


def test_a_pod_that_its_budget_holds_is_tried_again_later_and_holds_up_no_other() -> None:
    others = {("default", f"p{n}"): replace(OLD, uid=f"p{n}") for n in range(2)}
    scene, server = Scene(pods=others), Server(held=frozenset({"p0"}))
    scene.look(0, GRACE_S)
    now = float(GRACE_S)
    assert [evict(scene, server, now) for _ in range(3)] == [False, True, None]
    assert evict(scene, server, now + REFUSED_S) is False
    assert server.asked == ["p0", "p1", "p0"]


def test_evictions_end_where_the_runtime_does_not_use_what_is_installed() -> None:
    """Another folder, or CRI-O's cni_default_network: each successor lacks its networks as well."""
    scene, server = Scene(), Server()
    scene.look(0, GRACE_S)
    assert evict(scene, server, GRACE_S) is True
    scene.pods = {("default", "successor"): replace(OLD, uid="v")}
    later = 2 * GRACE_S
    assert scene.look(later, later + GRACE_S) == ["default/successor"]
    assert evict(scene, server, later + GRACE_S) is None
    scene.watch.interrupted()
    assert evict(scene, server, later + GRACE_S) is True
    assert server.asked == ["old", "successor"]


def test_nothing_is_evicted_before_it_has_been_told() -> None:
    scene, server = Scene(), Server()
    scene.look(0)
    assert evict(scene, server, 0) is None
