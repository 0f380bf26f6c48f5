"""The two API servers that a daemon is measured against, driven alike: the real one behind its
proxy, and the double."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.apiserver.server import ApiServer
from tests.controlplane.client import path_of
from tests.controlplane.cluster import Cluster
from tests.controlplane.proxy import FaultProxy
from tests.k8s_scale.fleet import as_stored, namespaces

JSONObject = dict[str, Any]


class Upstream(Protocol):
    """An API server: objects in, and what daemons asked of it."""

    def kubeconfig(self, path: Path, *, observed: bool) -> None:
        """Write a kubeconfig, `observed` for where requests are counted and watches can be cut."""

    def create(self, resources: Sequence[JSONObject]) -> None: ...

    def change(self, definitions: Sequence[JSONObject]) -> None:
        """Change definitions that are there, one after the other."""

    def watches(self) -> int:
        """Return how many watches are open."""

    def cut_watches(self) -> None: ...

    def tally(self) -> Counter[str]:
        """Return the requests since the last call, by verb and resource."""


class Double:
    """tests/apiserver."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server

    def kubeconfig(self, path: Path, *, observed: bool) -> None:
        path.write_text(json.dumps(self.server.kubeconfig()))

    def create(self, resources: Sequence[JSONObject]) -> None:
        self.server.put_all(as_stored(each) for each in resources)

    def change(self, definitions: Sequence[JSONObject]) -> None:
        for definition in definitions:
            self.server.put(as_stored(definition))
            time.sleep(0.001)  # else it is a burst

    def watches(self) -> int:
        return len(self.server.open_watches())

    def cut_watches(self) -> None:
        self.server.cut_watches()

    def tally(self) -> Counter[str]:
        counted = self.server.tally()
        self.server.forget_requests()
        return counted


class Real:
    """tests/controlplane."""

    def __init__(self, cluster: Cluster, proxy: FaultProxy) -> None:
        self._cluster, self._proxy = cluster, proxy
        cluster.admin.create_all(namespaces())

    def kubeconfig(self, path: Path, *, observed: bool) -> None:
        url = self._proxy.url if observed else ""
        self._cluster.kubeconfig(path, token=self._cluster.token(), url=url)

    def create(self, resources: Sequence[JSONObject]) -> None:
        self._cluster.admin.create_all(resources)

    def change(self, definitions: Sequence[JSONObject]) -> None:
        patches = [(path_of(each), {"spec": each["spec"]}) for each in definitions]
        self._cluster.admin.patch_all(patches)

    def watches(self) -> int:
        return self._proxy.watches

    def cut_watches(self) -> None:
        self._proxy.cut_watches()

    def tally(self) -> Counter[str]:
        counted = Counter(f"{each.verb} {each.resource}" for each in self._proxy.requests)
        self._proxy.forget()
        return counted
