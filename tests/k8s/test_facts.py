"""Pods and definitions for ADD: the watch's copy, else a live one, else the last known, else 11."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metaplugin.cni.errors import (
    CNIError,
    ErrorCode,
    InvalidNetworkConfig,
    NetworkNotFound,
    TryAgainLater,
)
from metaplugin.commands.facts import pod_annotations, selected_elements
from metaplugin.commands.networks import default_networks, selected_network
from metaplugin.commands.outer import OuterConfig
from metaplugin.commands.ports import KnownPod, Node, Settings
from metaplugin.folder.configurations import ConfigurationFiles
from metaplugin.k8s import calls
from metaplugin.k8s.api import Api, ApiUnconfigured
from metaplugin.k8s.cluster import LiveLookUp
from metaplugin.npwg.definition import NetworkAttachmentDefinition
from metaplugin.npwg.selection import parse_networks_annotation
from tests.apiserver.faults import Answer, Cut, Fault, Garbage, Reset, Silence, Slow, on
from tests.apiserver.server import ApiServer
from tests.k8s.conftest import Sides
from tests.k8s.side import NETWORKS, Memory, Side, definition, pod, record, reference

POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
GETS = on(verb="get")
OUTER = OuterConfig(raw={}, name="outer", cni_version="1.0.0", runtime_config={})


def deafen(server: ApiServer) -> None:
    """Have the watches told nothing more: they lag."""
    server.wait_for(lambda: len(server.open_watches()) == 2)
    server.disturb_watches(Silence())


async def answered(look_up: LiveLookUp[Any], name: str) -> None:
    """Wait for an answer that nobody waits for any more."""
    await asyncio.wait({look_up._asked["default", name]})


def node(side: Side) -> Node:
    nothing: Any = None
    return Node(
        settings=Settings(),
        cluster=side.connection.cluster,
        recall=side.connection.recall,
        configurations=nothing,
        records=nothing,
        status=side.connection.status,
        events=side.connection.events,
        device_info=nothing,
    )


def networks(
    side: Side, name: str, uid: str = "", runtime_config: dict[str, Any] | None = None
) -> list[str]:
    """Return the names that ADD would attach the pod to."""
    outer = replace(OUTER, runtime_config=runtime_config or {})
    annotations = side.run(pod_annotations(reference(name, uid), outer, node(side)))
    elements = selected_elements(reference(name, uid), annotations)
    return [element.name for element in elements]


def attached(side: Side, name: str) -> str:
    """Return the type of the plugin that a pod's selection of this network would run."""
    (element,) = parse_networks_annotation(name, pod_namespace="default")
    network = side.run(selected_network(element, reference("a"), OUTER, node(side)))
    return network.config.plugins[0].type


def known_pod(uid: str, annotation: str = "remembered") -> KnownPod:
    return KnownPod(uid=uid, annotations={"k8s.v1.cni.cncf.io/networks": annotation})


def remembering(*, uid: str = "u") -> Memory:
    memory = Memory()
    memory.pods["default", "a"] = known_pod(uid)
    memory.definitions["default", "lan"] = NetworkAttachmentDefinition(
        namespace="default", name="lan", config='{"type": "remembered"}'
    )
    return memory


# --- all well ---------------------------------------------------------------------------------


def test_the_runtimes_annotations_are_taken_as_they_are(server: ApiServer, side: Side) -> None:
    """DESIGN 3.2: they win over the API's, and null says authoritatively that there are none."""
    server.put(pod("a", uid="u", networks="other"))
    side.memory.wait_for(lambda: side.memory.pods)
    server.wait_for(lambda: len(server.open_watches()) == 2)
    before = server.tally()
    given = {POD_ANNOTATIONS: {"k8s.v1.cni.cncf.io/networks": "lan"}}
    assert networks(side, "a", "u", given) == ["lan"]
    assert networks(side, "a", "u", {POD_ANNOTATIONS: None}) == []
    assert networks(side, "unknown", "x", given) == ["lan"]
    assert networks(side, "a", "u") == ["other"]
    assert server.tally() == before


def test_what_is_watched_costs_no_request(server: ApiServer, side: Side) -> None:
    """MULTUS-35."""
    server.put(pod("a", uid="u", networks="lan"))
    server.put(definition("lan"))
    side.memory.wait_for(lambda: side.memory.pods and side.memory.definitions)
    for _ in range(3):
        assert networks(side, "a", "u") == ["lan"]
        assert attached(side, "lan") == "noop"
    assert server.count("get") == 0


def test_a_changed_annotation_counts_for_the_next_sandbox(server: ApiServer, side: Side) -> None:
    """MULTUS-6, MULTUS-7."""
    for name in ("one", "two"):
        server.put(pod("a", uid="u", networks=name))
        fresh = known_pod("u", name)
        side.memory.wait_for(lambda fresh=fresh: fresh in side.memory.pods.values())  # type: ignore[misc] # a default of a lambda
        assert networks(side, "a", "u") == [name]


# --- the watch lags ---------------------------------------------------------------------------


def test_a_pod_that_the_watch_has_not_told_is_asked_for(server: ApiServer, side: Side) -> None:
    """MULTUS-7, MULTUS-29: a lagging watch is bridged by a live look-up."""
    deafen(server)
    server.put(pod("a", uid="u", networks="lan"))
    server.put(definition("lan"))
    assert networks(side, "a", "u") == ["lan"]
    assert attached(side, "lan") == "noop"
    assert networks(side, "a", "u") == ["lan"]
    assert attached(side, "lan") == "noop"
    assert server.count("get", "pods") == 1
    assert server.count("get", NETWORKS) == 1


def test_a_pod_made_again_under_its_name_is_asked_for(server: ApiServer, side: Side) -> None:
    """MULTUS-33."""
    server.put(pod("a", uid="old", networks="old"))
    side.memory.wait_for(lambda: side.memory.knows_pod("a", "old"))
    deafen(server)
    server.put(pod("a", uid="new", networks="new"))
    assert networks(side, "a", "new") == ["new"]
    assert server.count("get", "pods") == 1


def test_another_pods_annotations_are_never_used(server: ApiServer, side: Side) -> None:
    """MULTUS-33, MULTUS-34: the runtime asks for a pod that is no more."""
    server.put(pod("a", uid="new", networks="new"))
    side.memory.wait_for(lambda: side.memory.knows_pod("a", "new"))
    with pytest.raises(TryAgainLater, match="has UID new, the runtime asks for UID old"):
        networks(side, "a", "old")


def test_without_a_uid_the_pod_of_that_name_is_meant(server: ApiServer, side: Side) -> None:
    """MULTUS-33: no UID given means no check."""
    server.put(pod("a", uid="u", networks="lan"))
    side.memory.wait_for(lambda: side.memory.knows_pod("a", "u"))
    assert networks(side, "a") == ["lan"]


def test_a_static_pod_is_known_by_its_configurations_hash(server: ApiServer, side: Side) -> None:
    """MULTUS-33: the runtime's K8S_POD_UID is the hash that the mirror pod's annotation names."""
    mirror = pod("a", uid="api-uid", networks="lan", **{"kubernetes.io/config.mirror": "hash"})
    server.put(mirror)
    side.memory.wait_for(lambda: side.memory.knows_pod("a", "api-uid"))
    assert networks(side, "a", "hash") == ["lan"]
    assert server.count("get") == 0


def test_a_pod_that_is_not_there_is_worth_another_try(server: ApiServer, side: Side) -> None:
    """MULTUS-34: no made-up success."""
    with pytest.raises(TryAgainLater, match="default/a is not known to the cluster"):
        networks(side, "a", "u")


def test_a_network_that_is_not_there_is_an_error_that_says_so(side: Side) -> None:
    with pytest.raises(NetworkNotFound, match="no net-attach-def 'lan' in namespace 'default'"):
        attached(side, "lan")


def test_a_cluster_without_the_definitions_resource_has_no_networks(
    server: ApiServer, connect: Sides
) -> None:
    absent = server.inject(Answer(404, text="404 page not found\n"), on(resource=NETWORKS))
    side = connect()
    with pytest.raises(NetworkNotFound):
        attached(side, "lan")
    absent.clear()
    server.put(definition("lan"))
    side.synced()
    assert attached(side, "lan") == "noop"


def test_before_the_first_list_everything_is_asked_for_live(
    server: ApiServer, connect: Sides
) -> None:
    """What state.db remembers may be old: the server's word comes first."""
    server.inject(Silence(), on(verb="list"))
    server.put(pod("a", uid="u", networks="lan"))
    server.put(definition("lan", {"type": "fresh"}))
    side = connect(memory=remembering())
    assert networks(side, "a", "u") == ["lan"]
    assert attached(side, "lan") == "fresh"


def test_those_who_ask_for_the_same_ask_together(server: ApiServer, side: Side) -> None:
    """MULTUS-35: a hundred pods of one network cost one look-up."""
    deafen(server)
    server.put(definition("lan"))
    server.inject(Slow(0.3), on(verb="get"), times=1)
    waiting = [side.begin(side.connection.cluster.definition("default", "lan")) for _ in range(100)]
    assert all(wait() is not None for wait in waiting)
    assert server.count("get", NETWORKS) == 1


# --- what is kept safer, for it is used ---------------------------------------------------------


def test_what_is_used_is_learnt_with_every_use(server: ApiServer, side: Side) -> None:
    """Issue 7: watched or asked for; what is only there isn't."""
    for name in ("lan", "other"):
        server.put(definition(name))
    side.memory.wait_for(lambda: len(side.memory.definitions) == 2)
    attached(side, "lan")
    assert list(side.memory.used) == [("default", "lan")]
    deafen(server)
    server.put(definition("late"))
    attached(side, "late")
    assert ("default", "late") in side.memory.used


def test_what_is_remembered_is_learnt_when_it_is_used(
    server: ApiServer, connect: Sides, impatient: None
) -> None:
    """An older release's state.db may be all that there is."""
    server.stop()
    side = connect(memory=remembering())
    attached(side, "lan")
    assert ("default", "lan") in side.memory.used


def test_what_is_used_no_more_in_vain_is_dropped(server: ApiServer, side: Side) -> None:
    side.memory.used["default", "lan"] = remembering().definitions["default", "lan"]
    with pytest.raises(NetworkNotFound):
        attached(side, "lan")
    assert side.memory.used == {}


def test_a_daemons_start_brings_what_is_used_up_to_date(server: ApiServer, connect: Sides) -> None:
    """What pods use that an older release attached, too; what has been deleted meanwhile goes; what
    is of a namespace that isn't followed is asked for."""
    memory, old = Memory(), remembering().definitions["default", "lan"]
    for name in (("default", "gone"), ("elsewhere", "far"), ("elsewhere", "gone")):
        memory.used[name] = replace(old, namespace=name[0], name=name[1])
    server.put(definition("lan"))
    server.put(definition("far", namespace="elsewhere"))
    connect(memory=memory, records=[record("a", "u")], namespaces=("default",))
    names = {("default", "lan"), ("elsewhere", "far")}
    memory.wait_for(lambda: set(memory.used) == names)
    memory.wait_for(lambda: all("noop" in each.config for each in memory.used.values()))


# --- the server is away, slow or in trouble ------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [Answer(500), Answer(503), Answer(504), Answer(429), Reset(), Cut(5), Garbage()],
    ids=repr,
)
def test_a_single_failure_does_not_fail_the_pod(
    server: ApiServer, side: Side, fault: Fault
) -> None:
    """MULTUS-32."""
    deafen(server)
    server.put(pod("a", uid="u", networks="lan"))
    server.inject(fault, GETS, times=1)
    assert networks(side, "a", "u") == ["lan"]
    assert server.count("get", "pods") == 2


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"kind": "Pod"}', b'{"metadata": []}'])
def test_an_answer_that_is_no_object_is_no_answer(
    server: ApiServer, side: Side, body: bytes
) -> None:
    side.connection.cluster.live_pods.timeout_s = 0.5
    server.put(pod("b"))
    deafen(server)
    server.inject(Garbage(body), GETS)
    server.put(pod("a", uid="u"))
    with pytest.raises(TryAgainLater, match="is not known"):
        networks(side, "a", "u")


def test_a_refusal_is_told_with_the_servers_words(server: ApiServer, side: Side) -> None:
    server.inject(Answer(403, message="no right to get pods"), GETS)
    with pytest.raises(TryAgainLater, match="403: no right to get pods"):
        networks(side, "a", "u")


def test_known_pods_attach_while_the_server_is_away(server: ApiServer, side: Side) -> None:
    """MULTUS-30."""
    server.put(pod("a", uid="u", networks="lan"))
    server.put(definition("lan"))
    side.memory.wait_for(lambda: side.memory.pods and side.memory.definitions)
    server.stop()
    assert networks(side, "a", "u") == ["lan"]
    assert attached(side, "lan") == "noop"


def test_a_cold_start_without_a_server_goes_by_what_is_remembered(
    server: ApiServer, connect: Sides, impatient: None
) -> None:
    """MULTUS-30, and the cluster's own return: nobody but the disk is needed."""
    server.stop()
    side = connect(memory=remembering())
    assert networks(side, "a", "u") == ["remembered"]
    assert attached(side, "lan") == "remembered"


def named_default(side: Side, folder: Path, reference: str) -> str:
    """Return the type of the plugin that clusterNetwork, with a file of its name, would run."""
    (folder / "a.conf").write_text('{"cniVersion": "1.0.0", "name": "lan", "type": "of-a-file"}')
    with ThreadPoolExecutor(1) as disk:
        here = replace(
            node(side),
            settings=Settings(cluster_network=reference, conf_dir=str(folder)),
            configurations=ConfigurationFiles(disk),
        )
        (network,) = side.run(default_networks(OUTER, here))
    return network.config.plugins[0].type


def test_a_default_network_in_a_file_needs_no_server(
    server: ApiServer, connect: Sides, impatient: None, tmp_path: Path
) -> None:
    """The API server itself may be waiting for it. A net-attach-def that is known comes first."""
    server.stop()
    side = connect()
    assert named_default(side, tmp_path, "lan") == "of-a-file"
    with pytest.raises(TryAgainLater):
        named_default(side, tmp_path, "kube-system/lan")
    with pytest.raises(TryAgainLater):
        named_default(side, tmp_path, "wan")
    side.memory.definitions["kube-system", "lan"] = NetworkAttachmentDefinition(
        namespace="kube-system", name="lan", config='{"type": "remembered"}'
    )
    assert named_default(side, tmp_path, "lan") == "remembered"


def test_a_remembered_pod_of_another_uid_is_not_used(
    server: ApiServer, connect: Sides, impatient: None
) -> None:
    server.stop()
    side = connect(memory=remembering(uid="old"))
    with pytest.raises(TryAgainLater, match="is not known: the Kubernetes API is away"):
        networks(side, "a", "new")


def test_what_nobody_knows_is_code_11_at_once_while_the_server_is_away(
    server: ApiServer, side: Side, impatient: None
) -> None:
    """MULTUS-29: breaker open, 11 within 3 s; nothing is asked by the pods."""
    server.stop()
    side.run(side.connection._calls.gone.wait())
    started = time.monotonic()
    for _ in range(100):
        with pytest.raises(TryAgainLater, match="is not known: the Kubernetes API is away") as told:
            networks(side, "a", "u")
        assert told.value.code == ErrorCode.TRY_AGAIN_LATER
        with pytest.raises(TryAgainLater, match="net-attach-def default/lan is not known"):
            attached(side, "lan")
    assert time.monotonic() - started < 3


def test_after_an_outage_pods_attach_again(server: ApiServer, side: Side) -> None:
    """MULTUS-29: operation recovers by itself."""
    server.stop()
    side.run(side.connection._calls.gone.wait())
    server.put(pod("a", uid="u", networks="lan"))
    server.start()
    side.run(side.connection._calls.here.wait())
    assert networks(side, "a", "u") == ["lan"]


def test_a_slow_servers_answer_is_waited_for_where_nothing_is_known(
    server: ApiServer, side: Side, impatient: None
) -> None:
    """MULTUS-31."""
    deafen(server)
    server.put(pod("a", uid="u", networks="lan"))
    server.inject(Slow(1), GETS)
    assert networks(side, "a", "u") == ["lan"]


def test_a_slow_servers_answer_is_not_waited_for_where_a_copy_is_known(
    server: ApiServer, connect: Sides, impatient: None
) -> None:
    """The server's word serves the next look-up; and one more copy waits for nothing at all."""
    server.inject(Silence(), on(verb="list"))
    server.put(pod("a", uid="u", networks="fresh"))
    server.inject(Slow(1), GETS)
    side = connect(memory=remembering())
    assert networks(side, "a", "u") == ["remembered"]
    side.run(answered(side.connection.cluster.live_pods, "a"))
    assert networks(side, "a", "u") == ["fresh"]


def test_an_answer_that_came_too_late_serves_the_retry(
    server: ApiServer, side: Side, impatient: None
) -> None:
    """DESIGN 3.4: the look-up goes on when the ADD has given up."""
    deafen(server)
    server.put(pod("a", uid="u", networks="lan"))
    server.inject(Slow(1), GETS)
    with pytest.raises(TimeoutError):
        side.run(asyncio.wait_for(side.connection.cluster.pod(reference("a", "u")), 0.3))
    side.run(answered(side.connection.cluster.live_pods, "a"))
    assert networks(side, "a", "u") == ["lan"]
    assert server.count("get", "pods") == 1


def test_a_server_whose_packets_are_lost_is_found_to_be_away(
    server: ApiServer, side: Side, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that isn't answered has others look whether the server is there at all."""
    monkeypatch.setattr(calls, "PROBE_TIMEOUT_S", 0.3)
    server.inject(Silence(), lambda request: request.verb != "watch")
    with pytest.raises(TryAgainLater, match="has not answered"):
        networks(side, "a", "u")
    with pytest.raises(TryAgainLater, match="the Kubernetes API is away"):
        networks(side, "b", "u")
    assert server.count("get", "pods") == 1


# --- deleted, and late words of it ---------------------------------------------------------------


def test_a_deleted_network_does_not_come_back_by_a_late_answer(
    server: ApiServer, side: Side, impatient: None
) -> None:
    """What is kept for one retry may be older than what the watch has told since."""
    deafen(server)
    server.put(definition("lan"))
    slow = server.inject(Slow(1), GETS)
    with pytest.raises(TimeoutError):
        side.run(asyncio.wait_for(side.connection.cluster.definition("default", "lan"), 0.3))
    side.run(answered(side.connection.cluster.live_definitions, "lan"))
    slow.clear()
    server.delete("NetworkAttachmentDefinition", "default", "lan")
    server.put(definition("after"))
    server.cut_watches()
    side.memory.wait_for(lambda: ("default", "after") in side.memory.definitions)
    assert side.definition("lan") is not None
    assert side.definition("lan") is None


# --- hostile definitions ---------------------------------------------------------------------

MALFORMED: dict[str, tuple[dict[str, Any], int]] = {
    "non-JSON": ({"config": "{not json"}, ErrorCode.DECODING_FAILURE),
    "a list": ({"config": "[]"}, ErrorCode.INVALID_NETWORK_CONFIG),
    "text": ({"config": '"text"'}, ErrorCode.INVALID_NETWORK_CONFIG),
    "no text at all": ({"config": {"type": "noop"}}, ErrorCode.INVALID_NETWORK_CONFIG),
    "a number": ({"config": 7}, ErrorCode.INVALID_NETWORK_CONFIG),
    "without type": ({"config": "{}"}, ErrorCode.INVALID_NETWORK_CONFIG),
    "a type of the wrong type": ({"config": '{"type": 7}'}, ErrorCode.INVALID_NETWORK_CONFIG),
    "a path as type": ({"config": '{"type": "../sh"}'}, ErrorCode.INVALID_NETWORK_CONFIG),
    "an absolute path": ({"config": '{"type": "/bin/sh"}'}, ErrorCode.INVALID_NETWORK_CONFIG),
    "plugins no list": ({"config": '{"plugins": {}}'}, ErrorCode.INVALID_NETWORK_CONFIG),
    "nested too deep": ({"config": "[" * 100_000}, ErrorCode.DECODING_FAILURE),
    "1 MiB of nothing": (
        {"config": json.dumps({"x": "y" * (1 << 20)})},
        ErrorCode.INVALID_NETWORK_CONFIG,
    ),
}


@pytest.mark.parametrize(("spec", "code"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_definition_hurts_only_who_selects_it(
    server: ApiServer, side: Side, spec: dict[str, Any], code: int
) -> None:
    """ROB-5; the error names the network (ROB-6)."""
    server.put_all([definition("bad") | {"spec": spec}, definition("good")])
    side.memory.wait_for(lambda: ("default", "good") in side.memory.definitions)
    for _ in range(2):
        with pytest.raises(CNIError, match="default/bad") as told:
            attached(side, "bad")
        assert told.value.code == code
        assert len(told.value.msg) < 500
    assert attached(side, "good") == "noop"
    assert server.count("get") == 0


@pytest.mark.parametrize("spec", [{}, {"config": ""}, None, [], "text"], ids=repr)
def test_a_definition_without_configuration_hurts_nobody_else(
    server: ApiServer, side: Side, spec: Any
) -> None:
    server.put_all([definition("empty") | {"spec": spec}, definition("good")])
    side.memory.wait_for(lambda: ("default", "good") in side.memory.definitions)
    assert attached(side, "good") == "noop"


def test_a_definition_that_became_malformed_is_not_remembered_as_it_was(
    server: ApiServer, side: Side
) -> None:
    server.put(definition("lan"))
    side.memory.wait_for(lambda: side.memory.definitions)
    server.put(definition("lan") | {"spec": {"config": 7}})
    side.memory.wait_for(lambda: not side.memory.definitions)
    for _ in range(2):
        with pytest.raises(InvalidNetworkConfig, match="spec.config must be text"):
            attached(side, "lan")


@pytest.mark.parametrize("name", ["..", ".", "a/../../secrets", "a?watch=1", "%2e%2e", "ä"])
def test_a_hostile_pod_name_asks_for_no_other_path(
    server: ApiServer, side: Side, name: str
) -> None:
    """ROB-3: CNI_ARGS aren't ours."""
    with pytest.raises(TryAgainLater):
        networks(side, name, "u")
    assert all(
        request.path.startswith(("/api/v1/", "/apis/", "/version")) for request in server.requests
    )
    assert server.count("get") in (0, 1)
    assert server.count("list") == 2


# --- credentials ------------------------------------------------------------------------------


def test_a_rotated_token_is_read_again(tmp_path: Path) -> None:
    """Neither the watch nor a look-up is lost by it."""
    with ApiServer(token="old") as server:
        token = tmp_path / "token"
        token.write_text("old")
        kubeconfig = server.kubeconfig()
        kubeconfig["users"][0]["user"] = {"tokenFile": str(token)}
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(kubeconfig))
        with Side(path) as side:
            side.synced()
            deafen(server)
            server.put(pod("a", uid="u", networks="lan"))
            token.write_text("new")
            server.rotate_token("new")
            assert networks(side, "a", "u") == ["lan"]
            assert server.count("get", "pods") == 2
            server.cut_watches()
            server.put(pod("b", uid="u"))
            side.memory.wait_for(lambda: side.memory.knows_pod("b", "u"))
            assert server.count("list") == 2


def test_a_token_that_is_not_accepted_is_tried_until_it_is(tmp_path: Path) -> None:
    with ApiServer(token="right") as server:
        token = tmp_path / "token"
        token.write_text("wrong")
        kubeconfig = server.kubeconfig()
        kubeconfig["users"][0]["user"] = {"tokenFile": str(token)}
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(kubeconfig))
        with Side(path) as side:
            with pytest.raises(TryAgainLater, match="401"):
                networks(side, "a", "u")
            token.write_text("right")
            side.synced()


def test_certificates_that_do_not_fit_are_read_again(server: ApiServer, tmp_path: Path) -> None:
    """The server's may have been rotated, and the kubeconfig with it: nobody restarts us for it."""
    kubeconfig = server.kubeconfig()
    path = tmp_path / "kubeconfig"
    authority = tmp_path / "ca.crt"
    authority.write_text("no certificate")
    expired = server.kubeconfig()
    expired["clusters"][0]["cluster"] = {
        "server": server.url.replace("http://", "https://"),
        "certificate-authority": str(authority),
    }
    path.write_text(json.dumps(expired))
    with Side(path) as side:
        side.run(side.connection._calls.gone.wait())
        path.write_text("{half a file")
        with pytest.raises(TryAgainLater, match="the Kubernetes API is away"):
            networks(side, "a", "u")
        path.write_text(json.dumps(kubeconfig))
        side.synced()


@pytest.mark.parametrize("text", ["", "{half", "[]", "text", "{}", '{"users": 7}', "\x00"])
def test_a_kubeconfig_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ApiUnconfigured, match=str(path)):
        Api(path)
