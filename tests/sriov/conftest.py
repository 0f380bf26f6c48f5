"""One node for all tests: in the guest everything takes ten times as long. What a test leaves
behind on it fails that test."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.build import require_parts
from tests.kubelet.podresources import FakeKubelet
from tests.sriov.ports import Port, VirtualFunction, open_port, ports, wait_until
from tests.system.node import Node, bridge_network, new_root

CACHE_OF_SRIOV_CNI = Path("/var/lib/cni/sriov")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if ports():
        return
    reason = pytest.mark.skip(reason="no card with virtual functions here: make test-sriov")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(reason)


@pytest.fixture(scope="session")
def cards() -> tuple[Port, ...]:
    """The cards' ports, each with its virtual functions switched on."""
    opened = tuple(open_port(name) for name in ports())
    for port in opened:
        subprocess.run(["ip", "link", "set", port.name, "up"], check=True)
    return opened


@pytest.fixture(scope="session")
def kubelet() -> Iterator[FakeKubelet]:
    """The node's kubelet, that is its pod-resources service."""
    root = new_root()
    with FakeKubelet(root) as fake:
        yield fake
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def whole_node(cards: tuple[Port, ...], kubelet: FakeKubelet) -> Iterator[Node]:
    """A serving node with the plugin sriov beside Debian's, and an interface lan0 for others."""
    link = ["ip", "link", "add", "lan0", "type", "veth", "peer", "name", "wire0"]
    subprocess.run(link, check=True)
    for name in ("lan0", "wire0"):
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    root = new_root()
    waits = {"add_wait_ms": 30000, "silence_ms": 60000}
    asked = {"socket": str(kubelet.socket), "checkpoint": str(kubelet.checkpoint)}
    node = Node(
        root,
        bridge_network(root),
        daemon_keys={
            "kubelet": asked | {"timeoutSeconds": 30},
            "deviceInfoDir": str(root / "devinfo"),
        },
        shim_keys=waits | {"device_info_dir": root / "devinfo"},
        patience_s=120,
    )
    node.plugin("noop")
    node.plugin("sriov", require_parts().plugins / "sriov")
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def node(whole_node: Node) -> Iterator[Node]:
    """The node; afterwards it must be as it was before: links, leases, records, locks."""
    node = whole_node
    before = traces(node)
    seen = node.log.stat().st_size
    yield node
    sys.stdout.write(node.log.read_text()[seen:])
    assert traces(node) == before


@pytest.fixture
def userspace(cards: tuple[Port, ...], node: Node) -> Iterator[VirtualFunction]:
    """The second card's last function, which vfio-pci drives."""
    function = cards[1].functions[3]
    function.bind("vfio-pci")
    yield function
    function.bind("igbvf")
    wait_until(lambda: function.is_here)


def traces(node: Node) -> dict[str, list[str]]:
    """Return what an attachment could leave on the node."""
    cache = sorted(path.name for path in CACHE_OF_SRIOV_CNI.glob("*"))
    return {
        "links": sorted(node.host_links()),
        "leases": node.leases(),
        "records": node.records(),
        "locks": node.locks(),
        "sriov-cni": cache,
    }
