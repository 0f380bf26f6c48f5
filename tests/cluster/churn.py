"""Pods with two extra networks that come and go without an end, and what befalls them."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.machine import until
from tests.cluster.objects import bridge, container, pod
from tests.cluster.site import Site
from tests.controlplane import objects

NETWORKS = {"red": "10.71.0", "blue": "10.72.0"}
DEFINITIONS = [
    objects.net_attach_def(name, bridge(name, f"{subnet}.0/24"))
    for name, subnet in NETWORKS.items()
]
# What a pod whose kubelet, runtime or CNI plugin has a problem is told by.
TROUBLE = re.compile(
    "FailedCreatePodSandBox|FailedKillPod|FailedAddingInterface|FailedRemovingInterface"
    "|NoNetworkFound|SandboxChanged|NetworksNotAttached"
)
_PATIENCE_S = 240
_LOOKED = "that is all"
_SHOW = f"ip -o -4 addr; echo {_LOOKED}; trap exit TERM; sleep infinity & wait"


@contextmanager
def churning(site: Site) -> Iterator[Churn]:
    """Pods that come and go until the end."""
    site.apply(*DEFINITIONS)
    churn = Churn(site)
    churn.start()
    try:
        yield churn
    finally:
        churn.end()


class Churn:
    """So many pods at a time, each of which sees its own interfaces. `lived` is how many have come
    and gone as they should, `problems` what became of the others."""

    def __init__(self, site: Site, *, at_once: int = 4) -> None:
        self._site = site
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._one_after_the_other, args=(number,))
            for number in range(at_once)
        ]
        self.lived = 0
        self.problems: list[str] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Return when every pod has gone."""
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def go_on(self) -> None:
        """Return when each of the pods of now has been followed by one that began later."""
        wanted = self.lived + 2 * len(self._threads)
        until(lambda: self.lived >= wanted or bool(self.problems), "pods", seconds=_PATIENCE_S)
        assert not self.problems, self.problems

    def _one_after_the_other(self, number: int) -> None:
        for turn in itertools.count():
            if self._ends.is_set():
                return
            try:
                self._live(f"churn-{number}-{turn}", sorted(NETWORKS, reverse=bool(turn % 2)))
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is for the test to tell
                self.problems.append(f"churn-{number}-{turn}: {exc}")
                return
            self.lived += 1

    def _live(self, name: str, networks: list[str]) -> None:
        """Be a pod for a moment; raise AssertionError where it is in another network."""
        site = self._site
        shows = container() | {"command": ["/bin/sh", "-c", _SHOW]}
        site.apply(pod(name, ",".join(networks), containers=[shows]))
        site.wait_for_pods(name, seconds=_PATIENCE_S)
        found = _interfaces(site, name)
        node = site.pod(name)["spec"]["nodeName"].removeprefix("node")
        expected = {"lo": "127.0.0", "eth0": f"10.244.{node}"}
        expected |= {f"net{n}": NETWORKS[each] for n, each in enumerate(networks, 1)}
        assert found == expected, f"{networks}: {found}"
        site.delete_pods(name)


def _interfaces(site: Site, name: str) -> dict[str, str]:
    """Return the beginning of each interface's address as a pod sees them, once it has looked."""
    seen = ""

    def has_looked() -> bool:
        nonlocal seen
        status, seen = site.admin.raw("GET", f"{objects.pods()}/{name}/log")
        return status == 200 and _LOOKED in seen

    until(has_looked, lambda: f"{name} shows nothing: {seen}")
    return dict(re.findall(r": (\S+)\s+inet (\d+\.\d+\.\d+)\.", seen))


def troubles(site: Site) -> list[str]:
    """Return the events of namespace `default` that tell of a pod's trouble."""
    items = site.admin.get("/api/v1/namespaces/default/events")["items"]
    return [
        f"{each['involvedObject']['name']}: {each['reason']}: {each['message']}"
        for each in items
        if TROUBLE.fullmatch(each["reason"])
    ]
