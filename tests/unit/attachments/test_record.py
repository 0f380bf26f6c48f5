"""What is remembered of a sandbox, and the DEL calls in it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from metaplugin.attachments.calls import check_calls, in_version
from metaplugin.attachments.devices import AssignedDevice
from metaplugin.attachments.plan import PlannedAttachment
from metaplugin.attachments.record import (
    Failing,
    MadeAttachment,
    Record,
    Refusal,
    decode_stored_record,
    encode_record,
    encode_stored,
)
from metaplugin.attachments.runtime_conf import PodReference, RuntimeConf, Sandbox
from metaplugin.cni.configuration import parse_network_config
from metaplugin.cni.raw import dump
from metaplugin.cni.result import Result, parse_result
from metaplugin.wire.container import DamagedRecord, Section, decode_record, encode_section
from metaplugin.wire.frames import Netns, decode_environment

CHAIN = {
    "cniVersion": "1.0.0",
    "name": "chain",
    "plugins": [{"type": "a", "capabilities": {"mac": True}, "x": None}, {"type": "b"}],
}


def some_result(version: str = "1.0.0") -> Result:
    raw = {"cniVersion": version, "dns": {"domain": "x"}}
    return parse_result(dump(raw), configured_version=version, where="test")


def some_record(own: Result | None = None) -> Record:
    chain = PlannedAttachment(
        name="default/chain",
        config=parse_network_config(CHAIN, where="chain"),
        runtime=RuntimeConf(
            ifname="net1", args=(("A", "1"),), capability_args={"mac": "02:00:00:00:00:01"}
        ),
        gateways=("10.0.0.1",),
        device=AssignedDevice(id="0000:03:10.0", resource="example.com/vf", container="app"),
    )
    single = PlannedAttachment(
        name="d",
        config=parse_network_config({"name": "d", "type": "c"}, where="d"),
        runtime=RuntimeConf(ifname="eth0"),
        default=True,
    )
    return Record(
        generation="g",
        sandbox=Sandbox(container_id="c1", netns="/run/netns/a", device=4, inode=5),
        ifname="eth0",
        network="outer",
        runtime="/usr/bin/containerd",
        pod=PodReference(namespace="default", name="p", uid="u"),
        created=12.5,
        attachments=(
            MadeAttachment(planned=single, own=own, result=own),
            MadeAttachment(planned=chain, own=own, result=own, in_kernel=own is None),
        ),
        complete=own is not None,
        status="[]",
    )


@pytest.mark.parametrize("own", [None, some_result()], ids=["before", "after"])
def test_a_record_comes_back_as_it_was_written(own: Result | None) -> None:
    record = some_record(own)
    stored = decode_stored_record(encode_record(record, deadline_s=90))
    assert record == stored.record
    assert record.del_calls() == stored.calls


def test_del_calls_are_all_there_the_last_attachment_first() -> None:
    """CNI-DLG-9, CNI-DLG-18, CNI-DLG-19, NPWG-53."""
    calls = some_record().del_calls()
    assert [(call.type, call.ifname) for call in calls] == [
        ("b", "net1"),
        ("a", "net1"),
        ("c", "eth0"),
    ]
    assert json.loads(calls[1].stdin) == {
        "type": "a",
        "x": None,
        "name": "chain",
        "cniVersion": "1.0.0",
        "runtimeConfig": {"mac": "02:00:00:00:00:01"},
    }
    assert decode_environment(calls[1].environment) == {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/a",
        "CNI_IFNAME": "net1",
        "CNI_ARGS": "IgnoreUnknown=true;A=1",
    }


def test_a_del_gets_its_own_result_from_0_4_0_on() -> None:
    """CNI-DLG-10."""
    requests = [json.loads(call.stdin) for call in some_record(some_result()).del_calls()]
    assert [request.get("prevResult") for request in requests] == [
        {"cniVersion": "1.0.0", "dns": {"domain": "x"}},
        {"cniVersion": "1.0.0", "dns": {"domain": "x"}},
        None,  # cniVersion 0.1.0
    ]


def test_a_plugin_in_another_version_than_its_lists_comes_back_so() -> None:
    """CNI-SEL-1, CNI-DLG-10, CNI-VER-9: with its DEL, its CHECK and the results that they get."""
    made = some_result("1.0.0")
    record = some_record(made).with_version(1, 1, "0.3.1").with_version(1, 0, "0.4.0")
    stored = decode_stored_record(encode_record(record, deadline_s=90))
    assert record == stored.record
    assert record.del_calls() == stored.calls
    requests = [json.loads(call.stdin) for call in stored.calls]
    assert [request["cniVersion"] for request in requests] == ["0.3.1", "0.4.0", "0.1.0"]
    assert [request.get("prevResult", {}).get("cniVersion") for request in requests] == [
        None,
        "0.4.0",
        None,
    ]
    checks = check_calls(stored.record.attachments[1].planned, record.sandbox, made)
    assert [call.type for call in checks] == ["a"]


@pytest.mark.parametrize("versions", [["1.0.0"], ["0.9.0", None], [None, 1], "x"], ids=str)
def test_versions_that_can_not_be_are_damage(versions: object) -> None:
    """ROB-7."""
    section = decode_record(encode_record(some_record(), deadline_s=90))
    note = json.loads(section.note)
    note["attachments"][1]["versions"] = versions
    with pytest.raises(DamagedRecord):
        decode_stored_record(encode_section(replace(section, note=dump(note))))


def test_a_call_can_be_repeated_in_another_version() -> None:
    """CNI-SEL-1, CNI-VER-9: prevResult converted, or left out of a DEL that has none."""
    call = some_record(some_result()).del_calls()[1]
    younger, older = in_version(call, "1.1.0"), in_version(call, "0.3.1")
    assert younger is not None
    assert older is not None
    request = json.loads(younger.stdin)
    assert request["prevResult"]["cniVersion"] == request["cniVersion"] == "1.1.0"
    assert "prevResult" not in json.loads(older.stdin)
    assert (older.type, older.environment) == (call.type, call.environment)
    check = replace(call, environment=call.environment.replace(b"=DEL", b"=CHECK"))
    assert in_version(check, "0.3.1") is None


def test_a_call_can_be_moved_to_where_the_namespace_is_now() -> None:
    call = some_record().del_calls()[0].in_netns("")
    assert decode_environment(call.environment)["CNI_NETNS"] == ""


def test_how_add_and_del_failed_comes_back() -> None:
    record = some_record().with_refusal(1, Refusal(place=0, code=7, msg="no"))
    record = replace(record, failing=Failing(since=2.5, error="stuck", given_up=True))
    assert decode_stored_record(encode_record(record, deadline_s=90)).record == record
    assert record.given_up


def test_a_record_goes_on_without_what_has_been_released() -> None:
    """With the calls that it has, which a later release might make otherwise."""
    stored = decode_stored_record(encode_record(some_record(some_result()), deadline_s=90))
    places = stored.record.del_places()
    assert len(places) == len(stored.calls)
    odd = tuple(replace(call, stdin=b'{"odd": 1}') for call in stored.calls)
    left = replace(stored, calls=odd).without([0])
    kept = decode_stored_record(encode_stored(left, deadline_s=90))
    assert kept.record.attachments == stored.record.attachments[1:]
    assert {call.stdin for call in kept.calls} == {b'{"odd": 1}'}
    assert len(kept.calls) == sum(position != 0 for position, _ in places)


@pytest.mark.parametrize("note", [b"{}", b'{"schema": 2}', b"[]", b"x"])
def test_a_note_that_can_not_be_used_is_damage(note: bytes) -> None:
    content = encode_section(Section(note=note, netns=Netns(b"", 0, 0), calls=()))
    with pytest.raises(DamagedRecord):
        decode_stored_record(content)
