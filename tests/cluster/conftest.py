"""A cluster of two nodes for the whole run, metaplugin on them as installed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.metaplugin import Metaplugin
from tests.cluster.site import Site, running_site
from tests.controlplane.cluster import CRDS, RBAC


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A cluster, and metaplugin on each of its nodes."""

    site: Site
    metaplugins: tuple[Metaplugin, ...]

    def footprints(self) -> list[dict[str, list[str]]]:
        return [each.footprint() for each in self.metaplugins]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A test leaves it as it was: running, without pods."""
    with running_site(tmp_path_factory.mktemp("site"), nodes=2) as site:
        site.control.apply(*CRDS, RBAC)
        metaplugins = tuple(Metaplugin(site, node) for node in site.nodes)
        for each in metaplugins:
            each.install()
        site.wait_for_nodes()
        yield Installed(site=site, metaplugins=metaplugins)
