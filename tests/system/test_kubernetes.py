"""Real daemon and shim, and an API server with faults as the cluster (issue 4)."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.faults import Answer, Silence, Slow, on
from tests.apiserver.server import ApiServer
from tests.kubelet.podresources import Claimed, FakeKubelet
from tests.kubelet.podresources import Pod as Given
from tests.manifests.documents import granted
from tests.system.node import Node, Pod, new_root, noop_network
from tests.system.test_daemon import begin, end, wait_for_calls

pytestmark = pytest.mark.system

STATUS = "k8s.v1.cni.cncf.io/network-status"
NODE = "node-1"
NETWORKS = "network-attachment-definitions"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def node(server: ApiServer) -> Iterator[Node]:
    """A recording node that follows the server; `default/lan` is defined there."""
    root = new_root()
    (root / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
    kubernetes = {"kubeconfig": str(root / "kubeconfig"), "nodeName": NODE}
    node = Node(
        root,
        network(root, "cbr0", "10.1.1.2/24"),
        daemon_keys={"manifests": None, "kubernetes": kubernetes},
    )
    node.plugin("noop")
    define(server, "lan", network(root, "lan", "10.1.1.3/24"))
    node.start()
    synced(server)
    yield node
    sys.stdout.write(node.log.read_text())
    node.close()


def network(root: Any, name: str, address: str, **keys: Any) -> dict[str, Any]:
    result = {"cniVersion": "1.0.0", "ips": [{"address": address}]}
    return noop_network(root, name, result=result, **keys)


def define(server: ApiServer, name: str, config: Any) -> None:
    server.put(
        {
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name},
            "spec": {"config": config if isinstance(config, str) else json.dumps(config)},
        }
    )


def synced(server: ApiServer) -> None:
    server.wait_for(lambda: len(server.open_watches()) == 2)


def deafened(server: ApiServer) -> None:
    """Have the watches told nothing more."""
    server.disturb_watches(Silence())


def create(server: ApiServer, pod: Pod, networks: str = "lan", **annotations: str) -> None:
    """Create the pod's object, its networks in its annotation."""
    server.put(
        {
            "kind": "Pod",
            "metadata": {
                "name": pod.name,
                "uid": pod.uid,
                "annotations": {"k8s.v1.cni.cncf.io/networks": networks, **annotations},
            },
            "spec": {"nodeName": NODE},
        }
    )


def interfaces(server: ApiServer, pod: Pod) -> list[str]:
    """Return the interfaces in the pod's network-status, [] without one."""
    annotations = server.get("Pod", pod.namespace, pod.name)["metadata"]["annotations"]
    return [entry["name"] for entry in json.loads(annotations.get(STATUS, "[]"))]


def published(server: ApiServer, pod: Pod) -> None:
    server.wait_for(lambda: interfaces(server, pod) == ["cbr0", "default/lan"])


def messages(server: ApiServer, pod: Pod) -> Counter[tuple[str, str]]:
    return Counter(
        (event["reason"], event["message"])
        for event in server.objects("Event")
        if event["involvedObject"]["name"] == pod.name
    )


def remembered(node: Node, name: str) -> None:
    """Wait until the daemon has been told of a pod or network, and has written it down."""
    query = "SELECT 1 FROM objects WHERE name = ?"
    deadline = time.monotonic() + 20
    with contextlib.closing(sqlite3.connect(node.root / "state" / "state.db")) as database:
        while not database.execute(query, (name,)).fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def adds(node: Node) -> int:
    return len([call for call in node.noop_calls() if call["command"] == "ADD"])


def test_no_request_lies_before_the_first_delegate_and_one_patch_after_the_last(
    node: Node, server: ApiServer
) -> None:
    """Issue 4; MULTUS-35: only status and events are written, DEL reads and writes nothing."""
    default = network(node.root, "cbr0", "10.1.1.2/24", onADD={"sleep": 1})
    (node.root / "default.conflist").write_text(json.dumps(default))
    pod = node.pod("lan", uid="u")
    create(server, pod)
    before = server.tally()
    process = begin(node, pod)
    wait_for_calls(node, 1)
    assert server.tally() == before
    assert end(process).exit_code == 0
    server.wait_for(lambda: server.count("create", "events") == 2)
    assert server.tally() - before == {"patch pods/status": 1, "create events": 2}
    assert interfaces(server, pod) == ["cbr0", "default/lan"]
    assert messages(server, pod) == {
        ("AddedInterface", "Add eth0 [10.1.1.2/24] from cbr0"): 1,
        ("AddedInterface", "Add net1 [10.1.1.3/24] from default/lan"): 1,
    }
    after = server.tally()
    assert node.delete(pod).exit_code == 0
    assert node.stop() == 0
    assert server.tally() == after


def claim(server: ApiServer, kubelet: FakeKubelet, pod: Pod, device: str) -> None:
    """Allocate a device to a pod by a ResourceClaim, as scheduler, driver and kubelet do."""
    claimed = Claimed(claim="nic", driver="d.example", pool=NODE, device="vf-0")
    names = {"driver": claimed.driver, "pool": claimed.pool, "device": claimed.device}
    create(server, pod, json.dumps([{"name": "lan-of-devices", "claim": "nic"}]))
    made = server.get("Pod", pod.namespace, pod.name)
    made["spec"]["resourceClaims"] = [{"name": "nic", "resourceClaimName": "nic"}]
    server.put(made)
    status = {
        "allocation": {"devices": {"results": [{**names, "request": "r"}]}},
        "reservedFor": [{"resource": "pods", "name": pod.name, "uid": pod.uid}],
    }
    server.put({"kind": "ResourceClaim", "metadata": {"name": "nic"}, "status": status})
    attributes = {"k8s.cni.cncf.io/deviceID": {"string": device}}
    spec = {
        "driver": claimed.driver,
        "nodeName": NODE,
        "pool": {"name": NODE, "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": claimed.device, "attributes": attributes}],
    }
    server.put({"kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": spec})
    given = Given(uid=pod.uid, claims={"app": [claimed]})
    kubelet.admit(pod.namespace, pod.name, given)


def test_the_role_allows_what_is_called_and_nothing_else(
    node: Node, server: ApiServer, kubelet: FakeKubelet
) -> None:
    """Both directions, over a life with everything in it: deploy/base/rbac.yaml is the least."""
    pod, failing, late = (
        node.pod(None, uid="u"),
        node.pod("nowhere", uid="v"),
        node.pod(None, uid="w"),
    )
    for each in (pod, failing):
        create(server, each)
    assert node.add(pod).exit_code == 0
    assert node.add(failing).code == 7
    assert node.delete(failing).exit_code == 0
    deafened(server)
    define(server, "late", network(node.root, "late", "10.1.1.4/24"))
    create(server, late, "late")
    assert node.add(late).exit_code == 0
    server.wait_for(lambda: server.count("create", "events") == 5)
    assert node.delete(late).exit_code == 0
    capability = {"capabilities": {"deviceID": True}}
    define(server, "lan-of-devices", network(node.root, "x", "10.1.1.5/24", **capability))
    node.use(kubelet)
    node.restart()
    server.wait_for(lambda: server.count("list", "pods") == 2)
    assert node.call("STATUS", None, stdin=node.stdin(None, "1.1.0")).exit_code == 0
    assert node.delete(pod).exit_code == 0
    claiming = node.pod(None, uid="x")
    claim(server, kubelet, claiming, "0000:3b:02.0")
    assert node.add(claiming).exit_code == 0
    assert json.loads(node.noop_calls()[-1]["stdin"])["deviceID"] == "0000:3b:02.0"
    called = {
        (request.verb, request.target.resource.group, request.resource)
        for request in server.requests
        if request.target
    }
    assert called == granted()
    others = {request.path for request in server.requests if not request.target}
    assert others <= {"/version"}  # which everyone may read


def test_only_the_namespaces_that_the_file_names_are_followed(
    node: Node, server: ApiServer
) -> None:
    """Issue 4, item 2: `definitionNamespaces`; what lies elsewhere is asked for."""
    node.daemon_keys["kubernetes"]["definitionNamespaces"] = ["elsewhere"]
    server.requests.clear()
    node.restart()
    synced(server)
    listed = {request.path for request in server.requests if request.resource == NETWORKS}
    assert listed == {f"/apis/k8s.cni.cncf.io/v1/namespaces/elsewhere/{NETWORKS}"}
    pod = node.pod("lan", uid="u")
    create(server, pod)
    assert node.add(pod).exit_code == 0
    assert server.count("get", NETWORKS) == 1
    assert node.delete(pod).exit_code == 0


def test_a_failing_pod_says_why(node: Node, server: ApiServer) -> None:
    """MULTUS-24; once for all of the kubelet's tries."""
    broken = network(node.root, "broken", "10.1.1.4/24", onADD={"code": 17, "msg": "no cable"})
    define(server, "broken", broken)
    pod = node.pod(None, uid="u")
    create(server, pod, "broken")
    other = node.pod("nowhere", uid="v")
    for _ in range(3):
        reply = node.add(pod)
        assert reply.code == 17
        assert node.add(other).code == 7
    server.wait_for(lambda: messages(server, pod) and messages(server, other))
    (told,) = messages(server, pod)
    assert told[0] == "FailedAddingInterface"
    for word in ("default/broken", "noop", "no cable"):
        assert word in told[1], told
    (told,) = messages(server, other)
    assert told[0] == "NoNetworkFound"
    for word in ("'nowhere'", "'default'", "create it"):
        assert word in told[1], told
    assert set(messages(server, pod).values()) == {1}


def test_del_goes_by_the_record_whatever_has_changed_since(node: Node, server: ApiServer) -> None:
    """MULTUS-26: definition gone, annotation changed, pod made again, server silent."""
    pod = node.pod(None, uid="u")
    create(server, pod)
    assert node.add(pod).exit_code == 0
    published(server, pod)
    server.delete("NetworkAttachmentDefinition", "default", "lan")
    pod_now = Pod(pod.container_id, pod.netns, name=pod.name, uid="another")
    create(server, pod_now, "other")
    before = server.tally()["patch pods/status"], server.tally()["get pods"]
    server.inject(Silence(), on())
    assert node.delete(pod).exit_code == 0
    done = [call for call in node.noop_calls() if call["command"] == "DEL"]
    assert [json.loads(call["stdin"])["name"] for call in done] == ["lan", "cbr0"]
    assert node.records() == []
    after = server.tally()["patch pods/status"], server.tally()["get pods"]
    assert before == after


def test_a_changed_definition_counts_for_the_next_pod_alone(node: Node, server: ApiServer) -> None:
    """MULTUS-7, MULTUS-26."""
    first, second = node.pod(None, uid="u"), node.pod(None, uid="v")
    create(server, first)
    assert node.add(first).exit_code == 0
    define(server, "lan", network(node.root, "lan", "10.1.1.9/24", mark="new"))
    define(server, "fresh", network(node.root, "fresh", "10.1.1.8/24"))
    remembered(node, "fresh")  # and before it the change, in the order of the watch
    create(server, second, "lan,fresh")
    assert node.add(second).exit_code == 0
    published(server, first)
    server.wait_for(lambda: interfaces(server, second) == ["cbr0", "default/lan", "default/fresh"])
    for pod in (first, second):
        assert node.delete(pod).exit_code == 0
    calls = [json.loads(c["stdin"]) for c in node.noop_calls() if c["command"] == "DEL"]
    marks = [call.get("mark") for call in calls if call["name"] == "lan"]
    assert marks == [None, "new"]


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ("{not json", 6),
        ("[]", 7),
        ("{}", 7),
        ('{"type": "/bin/sh"}', 7),
        ('{"type": "../noop"}', 7),
        (json.dumps({"type": "noop", "x": "y" * (1 << 20)})[:-1], 6),
    ],
    ids=["no JSON", "a list", "no type", "an absolute path", "a path", "1 MiB, cut"],
)
def test_a_malformed_definition_fails_only_the_pod_that_selects_it(
    node: Node, server: ApiServer, config: str, code: int
) -> None:
    """ROB-5, ROB-6."""
    define(server, "bad", config)
    bad, good = node.pod(None, uid="u"), node.pod(None, uid="v")
    create(server, bad, "lan,bad")
    create(server, good)
    reply = node.add(bad)
    assert reply.code == code
    assert "default/bad" in reply.msg
    assert bad.name in reply.msg
    assert adds(node) == 0
    assert node.add(good).exit_code == 0
    assert node.delete(bad).exit_code == 0
    assert node.delete(good).exit_code == 0


def test_a_definition_of_a_mebibyte_is_a_definition(node: Node, server: ApiServer) -> None:
    define(server, "big", network(node.root, "big", "10.1.1.4/24", padding="y" * (1 << 20)))
    pod = node.pod(None, uid="u")
    create(server, pod, "big")
    assert node.add(pod).exit_code == 0
    assert node.delete(pod).exit_code == 0
    assert node.records() == []


def test_a_static_pod_is_attached_by_its_configurations_hash(node: Node, server: ApiServer) -> None:
    """MULTUS-33: its mirror has another UID, and gets the status."""
    pod = node.pod(None, uid="hash")
    mirror = Pod(pod.container_id, pod.netns, name=pod.name, uid="mirror")
    create(server, mirror, "lan", **{"kubernetes.io/config.mirror": "hash"})
    assert node.add(pod).exit_code == 0
    published(server, pod)
    assert node.delete(pod).exit_code == 0


def test_an_outage_is_outlived(node: Node, server: ApiServer) -> None:
    """MULTUS-29, MULTUS-30: pods that are known attach, unknown ones get 11, DEL and STATUS are as
    ever, a daemon that starts meanwhile goes by its disk, and every status is there in the end."""
    known, told, later = node.pod(None, uid="u"), node.pod("lan", uid="v"), node.pod(None, uid="w")
    for pod in (known, told, later):
        create(server, pod)
    for pod in (known, told, later):
        remembered(node, pod.name)
    server.stop()
    assert node.add(known).exit_code == 0
    assert node.add(told).exit_code == 0
    unknown = node.add(node.pod(None, uid="y"))
    assert unknown.code == 11
    assert unknown.took < 3
    node.restart()
    assert node.call("STATUS", None, stdin=node.stdin(None, "1.1.0")).exit_code == 0
    assert node.add(later).exit_code == 0
    assert node.add(node.pod(None, uid="z")).code == 11
    assert node.delete(known).exit_code == 0
    server.start()
    published(server, told)
    published(server, later)
    assert interfaces(server, known) == []
    for pod in (told, later):
        assert node.delete(pod).exit_code == 0
    assert node.records() == []


def test_a_restarted_daemon_writes_what_is_missing_and_nothing_else(
    node: Node, server: ApiServer
) -> None:
    pods = [node.pod(None, uid=f"u{number}") for number in range(4)]
    for pod in pods:
        create(server, pod)
        assert node.add(pod).exit_code == 0
        published(server, pod)
    node.kill()
    create(server, pods[0])  # without the status
    server.forget_requests()
    node.restart()
    published(server, pods[0])
    synced(server)
    assert server.count("patch") == 1
    assert server.count("list") == 2
    for pod in pods:
        assert node.delete(pod).exit_code == 0


def test_a_slow_server_is_waited_for_by_nobody_who_knows(node: Node, server: ApiServer) -> None:
    """MULTUS-31: five seconds a request; a pod that must ask gets its answer."""
    known, asking = node.pod(None, uid="u"), node.pod(None, uid="v")
    create(server, known)
    remembered(node, known.name)
    server.inject(Slow(5), on())
    assert node.add(known).exit_code == 0
    assert interfaces(server, known) == []
    assert server.count("get", "pods") == 0
    deafened(server)
    create(server, asking)
    assert node.add(asking).exit_code == 0
    published(server, known)
    published(server, asking)
    server.clear_faults()
    for pod in (known, asking):
        assert node.delete(pod).exit_code == 0


def test_a_server_in_trouble_costs_no_pod(node: Node, server: ApiServer) -> None:
    """MULTUS-32: requests fail for a while, by 500 and 429; within the 2 s that a look-up is
    tried again, should the watch not have told the pod yet."""
    pod = node.pod(None, uid="u")
    create(server, pod)
    server.inject(Answer(500), lambda r: r.verb in {"patch", "create", "get"}, times=2)
    server.inject(
        Answer(429, retry_after=1), lambda r: r.verb in {"patch", "create", "get"}, times=1
    )
    assert node.add(pod).exit_code == 0
    published(server, pod)
    server.wait_for(lambda: sum(messages(server, pod).values()) == 2)
    assert node.delete(pod).exit_code == 0
