"""For each outage: a node in it, and beside it one on a server that is well."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.controlplane.cluster import Cluster, running_cluster
from tests.outage.outages import OUTAGES
from tests.outage.scene import Scene
from tests.outage.sick import Sick, running_scene, sick_scene
from tests.system.node import uplink


@pytest.fixture(scope="package")
def eth1() -> Iterator[None]:
    with uplink():
        yield


@pytest.fixture(scope="package")
def doomed_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The control plane that the outages happen to."""
    with running_cluster(tmp_path_factory.mktemp("doomed-cluster")) as started:
        yield started


@pytest.fixture(scope="package")
def well(cluster: Cluster, eth1: None) -> Iterator[Scene]:
    """A node on another server, which has no outage: how long things take."""
    with running_scene(cluster, cluster.url, "well", 30, spare=40) as scene:
        yield scene
        sys.stdout.write(scene.node.log.read_text())


@pytest.fixture(scope="package", params=OUTAGES, ids=lambda outage: outage.name)
def patient(request: pytest.FixtureRequest, doomed_cluster: Cluster, eth1: None) -> Iterator[Sick]:
    with sick_scene(request.param, doomed_cluster) as sick:
        yield sick
        sys.stdout.write(sick.scene.node.log.read_text())


@pytest.fixture
def sick(patient: Sick) -> Sick:
    """The node while its server is in an outage."""
    patient.begin()
    return patient
