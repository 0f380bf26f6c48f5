"""A cluster of two nodes for the whole run, metaplugin on them as installed by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.metaplugin import Installed, installed_by_hand


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A test leaves it as it was: running, without pods."""
    with installed_by_hand(tmp_path_factory.mktemp("site"), nodes=2) as started:
        yield started
