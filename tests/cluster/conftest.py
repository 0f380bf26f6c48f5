"""Clusters for this folder's tests: of two nodes, metaplugin on them as installed by hand; of one,
with the DaemonSet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.deployed import deployed_site
from tests.cluster.metaplugin import Installed, installed_by_hand


@pytest.fixture(scope="package")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A test leaves it as it was: running, without pods."""
    with installed_by_hand(tmp_path_factory.mktemp("site"), nodes=2) as started:
        yield started


@pytest.fixture(scope="package")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A test leaves it as it was: running, without pods of namespace `default`."""
    with deployed_site(tmp_path_factory.mktemp("deployed")) as started:
        yield started
