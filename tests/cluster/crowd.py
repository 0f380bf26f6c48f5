"""Many pods at once on one node: when each was Ready, what failed meanwhile, when all were gone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.cluster.machine import until
from tests.cluster.objects import bridge, macvlan, pod
from tests.cluster.site import Site
from tests.controlplane import objects
from tests.controlplane.client import JSONObject

NETWORKS = "lan,storage"
_PODS = objects.pods()
_EVENTS = "/api/v1/namespaces/default/events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Seconds from just before the first pod was created to each one's being Ready, in order."""

    seconds: list[float]
    failures: list[str]  # events of sandboxes that could not be made

    @property
    def all(self) -> float:
        return self.seconds[-1]

    def percentile(self, share: float) -> float:
        return self.seconds[round(share * (len(self.seconds) - 1))]


def extra_networks() -> list[JSONObject]:
    """Return the definitions of `NETWORKS`: a macvlan and a bridge, addresses by host-local."""
    lan = macvlan() | {
        "capabilities": {},
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.65.0.0/16"}]]},
    }
    return [
        objects.net_attach_def("lan", lan),
        objects.net_attach_def("storage", bridge("crowd", "10.69.0.0/16")),
    ]


def start_pods(
    site: Site, count: int, networks: str = "", *, node: str = "", seconds: float = 240
) -> Started:
    """Create pods all at once; return when every one is Ready; raise TimeoutError."""
    names = [f"crowd-{number}" for number in range(count)]
    with _watched(site) as ready:
        began = time.monotonic()
        site.admin.create_all([pod(name, networks, node=node) for name in names])
        until(
            lambda: len(ready) >= count,
            lambda: f"{len(ready)} of {count} are Ready; {_failures(site)}",
            seconds=seconds,
        )
    return Started(
        seconds=sorted(at - began for at in ready.values()),
        failures=_failures(site),
    )


@contextlib.contextmanager
def _watched(site: Site) -> Iterator[dict[str, float]]:
    """Note for each pod when it was first seen Ready."""
    ready: dict[str, float] = {}

    def follow() -> None:
        for event in site.admin.watch(_PODS, timeoutSeconds="600"):
            conditions = event["object"].get("status", {}).get("conditions", ())
            if event["type"] == "DELETED":
                return
            if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
                ready.setdefault(event["object"]["metadata"]["name"], time.monotonic())

    # It ends with the first pod that goes, and what watches nothing more is no hindrance.
    threading.Thread(target=follow, daemon=True).start()
    yield ready


def _failures(site: Site) -> list[str]:
    items = site.admin.get(f"{_EVENTS}?fieldSelector=reason=FailedCreatePodSandBox")["items"]
    return [f"{each['involvedObject']['name']}: {each['message']}" for each in items]


def delete_pods(site: Site, *, seconds: float = 240) -> float:
    """Delete every pod of namespace `default` at once; return the seconds until all are gone."""
    began = time.monotonic()
    names = [each["metadata"]["name"] for each in site.admin.get(_PODS)["items"]]
    site.admin.delete_all([f"{_PODS}/{name}" for name in names], grace_s=1)
    until(lambda: not site.admin.get(_PODS)["items"], "pods stay", seconds=seconds)
    return time.monotonic() - began
