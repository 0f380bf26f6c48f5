"""What is fuzzed in Python: a target takes bytes and raises nothing but for a defect.

A refusal is an error of the kind that the caller expects, with a message that can be told; what is
accepted has to survive everything that is done with it later.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from metaplugin.attachments.calls import add_call, check_calls, gc_calls, status_calls
from metaplugin.attachments.plan import (
    Network,
    PlannedAttachment,
    Selection,
    default_attachment,
    make_plan,
)
from metaplugin.attachments.record import (
    MadeAttachment,
    Record,
    decode_stored_record,
    encode_record,
)
from metaplugin.attachments.runtime_conf import Sandbox, pod_reference, secondary_args
from metaplugin.cni.attachments import parse_valid_attachments
from metaplugin.cni.configuration import NetworkConfigList, parse_network_config
from metaplugin.cni.environment import Command, format_args, parse_args, parse_environment
from metaplugin.cni.errors import CNIError
from metaplugin.cni.raw import JSONObject, dump, load_object
from metaplugin.cni.result import Result, parse_result
from metaplugin.cni.version import SUPPORTED_VERSIONS
from metaplugin.commands.multus_form import parse_multus_form
from metaplugin.commands.outer import parse_outer_config
from metaplugin.commands.ports import Settings
from metaplugin.npwg.definition import definition_from_object, parse_definition_config
from metaplugin.npwg.device_info import parse_device_info
from metaplugin.npwg.selection import NetworkSelectionElement, parse_networks_annotation
from metaplugin.npwg.status import format_status, status_entries
from metaplugin.wire.container import DamagedRecord, record_file_name
from metaplugin.wire.frames import (
    HEADER,
    ProtocolError,
    decode_environment,
    decode_header,
    encode_environment,
)

SANDBOX = Sandbox(container_id="c1", netns="/run/netns/a", device=4, inode=5)
ANYTHING_GOES = dict.fromkeys(("ips", "mac", "portMappings", "bandwidth", "infinibandGUID"), True)


def annotation(data: bytes) -> None:
    """The networks annotation, and the plan and record of what it selects."""
    text = data.decode(errors="surrogateescape")
    try:
        elements = parse_networks_annotation(text, pod_namespace="own")
        selections = [Selection(element=element, network=_network()) for element in elements]
        plan = _plan(*selections)
    except CNIError as exc:
        _check_refusal(exc)
        return
    assert plan[0].default
    assert len({attachment.ifname for attachment in plan}) == len(plan)
    for element in elements:
        _check_arguments(element)
    _check_remembered(plan)


def definition(data: bytes) -> None:
    """A net-attach-def as Kubernetes has it, and all calls of its network."""
    try:
        found = definition_from_object(load_object(data, what="net-attach-def"))
        config = parse_definition_config(found)
    except CNIError as exc:
        _check_refusal(exc)
        return
    _check_calls(config)


def configuration(data: bytes) -> None:
    """A network configuration list, and all calls of it."""
    try:
        config = parse_network_config(load_object(data, what="file"), where="file")
    except CNIError as exc:
        _check_refusal(exc)
        return
    assert parse_network_config(config.raw, where="file") == config
    _check_calls(config)


def standard_input(data: bytes) -> None:
    """What the runtime gives us on standard input; a GC's list of attachments as well."""
    try:
        outer = parse_outer_config(data)
        valid = parse_valid_attachments(outer.raw) or ()
        if form := parse_multus_form(outer.raw):
            form.over(Settings())
    except CNIError as exc:
        _check_refusal(exc)
        return
    for attachment in valid:
        name = record_file_name(attachment.container_id, attachment.ifname)
        assert "/" not in name
        assert len(name.encode()) <= 255


def environment(data: bytes) -> None:
    """The block of CNI_* variables."""
    try:
        values = decode_environment(data)
        args = parse_environment(values)
    except (CNIError, ProtocolError) as exc:
        _check_refusal(exc)
        return
    assert parse_args(format_args(args.args)) == args.args
    assert decode_environment(encode_environment(values)) == values
    pod_reference(args.args)
    secondary_args(args)
    if args.command in {Command.ADD, Command.DEL, Command.CHECK}:
        assert "/" not in record_file_name(args.container_id, args.ifname)


def result(data: bytes) -> None:
    """What a plugin printed for an ADD: conversions, status, routes, the record."""
    try:
        found = parse_result(data, configured_version="1.0.0", where="plugin a: result")
    except CNIError as exc:
        _check_refusal(exc)
        return
    for version in SUPPORTED_VERSIONS:
        converted = dump(found.to_version(version))
        again = parse_result(converted, configured_version=version, where="converted")
        assert again.cni_version == version
        assert len(again.ips) <= len(found.ips)
    entries = status_entries(found, name="own/net", ifname="net1", default=True)
    text = format_status(entries)
    assert len(json.loads(text.encode())) == len(entries) > 0
    assert sum("default" in entry for entry in entries) == 1
    _check_remembered(_plan(), found)


def device_info(data: bytes) -> None:
    """A device information file, and its place in the status."""
    try:
        info = parse_device_info(load_object(data, what="file"), where="file")
    except CNIError as exc:
        _check_refusal(exc)
        return
    empty = parse_result(b"{}", configured_version="1.0.0", where="empty")
    entries = status_entries(empty, name="a/b", ifname="net1", default=False, device_info=info)
    assert json.loads(format_status(entries).encode())


def record(data: bytes) -> None:
    """A record's file, its checksums made right: those a fuzzer can't guess."""
    try:
        stored = decode_stored_record(_mended(data))
    except DamagedRecord as exc:
        _check_refusal(exc)
        return
    # The first writing puts a result's version, which its plugin may have left out, in its place.
    written = decode_stored_record(encode_record(stored.record, deadline_s=9))
    again = decode_stored_record(encode_record(written.record, deadline_s=9))
    assert again.record == written.record


def frames(data: bytes) -> None:
    """Frames of a shim, one after the other."""
    while len(data) >= HEADER.size:
        try:
            kind, length = decode_header(data[: HEADER.size])
            payload = data[HEADER.size : HEADER.size + length]
            frame = kind.decode(payload)
        except ProtocolError as exc:
            _check_refusal(exc)
            return
        assert frame.encode()[HEADER.size :] == payload
        data = data[HEADER.size + length :]


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(annotation, definition, configuration, standard_input, environment),
        *(result, device_info, record, frames),
    )
}


def _check_refusal(error: Exception) -> None:
    assert str(error)
    if isinstance(error, CNIError):
        assert 0 < error.code < 100
        assert json.loads(dump(error.to_json("1.0.0")))["msg"].encode()


def _check_arguments(element: NetworkSelectionElement) -> None:
    """Check that an element's values can't become other variables of CNI_ARGS."""
    [_, attachment] = _plan(Selection(element=element, network=_network()))
    assert parse_args(format_args(attachment.runtime.args)) == attachment.runtime.args


def _check_calls(config: NetworkConfigList) -> None:
    attachment = _plan(network=Network(name="own/net", config=config))[0]
    for plugin in config.plugins:
        stdin = load_object(_sent(add_call(attachment, plugin, SANDBOX, None)), what="stdin")
        assert (stdin["name"], stdin["cniVersion"]) == (config.name, config.cni_version)
        passed = {key: value for key, value in plugin.raw.items() if not _is_ours(key)}
        assert {key: stdin[key] for key in passed} == passed
    made = parse_result(b"{}", configured_version=config.cni_version, where="made")
    for call in (
        *check_calls(attachment, SANDBOX, made),
        *gc_calls(config, []),
        *status_calls(config),
    ):
        _sent(call)
    _check_remembered((attachment,), made)


def _is_ours(key: str) -> bool:
    derived = ("capabilities", "runtimeConfig", "prevResult", "name", "cniVersion")
    return key in derived or key.startswith("cni.dev/")


def _sent(call: Any) -> bytes:
    frame = call.to_exec(9)
    assert type(frame).decode(frame.encode()[HEADER.size :]) == frame
    stdin: bytes = frame.stdin
    return stdin


def _check_remembered(plan: tuple[PlannedAttachment, ...], own: Result | None = None) -> None:
    """Check that a record comes back from its file, and with it every DEL."""
    written = Record(
        generation="g",
        sandbox=SANDBOX,
        ifname="eth0",
        network="outer",
        runtime="",
        pod=None,
        created=1.5,
        attachments=tuple(MadeAttachment(planned=p, own=own, result=own) for p in plan),
    )
    stored = decode_stored_record(encode_record(written, deadline_s=9))
    assert stored.calls == written.del_calls()
    assert stored.record.file_name == written.file_name
    kept = [replace(planned, mistyped=(), wants=None) for planned in plan]  # for the ADD alone
    assert [made.planned for made in stored.record.attachments] == kept


def _network() -> Network:
    raw: JSONObject = {"name": "net", "type": "noop", "capabilities": ANYTHING_GOES}
    return Network(name="own/net", config=parse_network_config(raw, where="net"))


def _plan(*selections: Selection, network: Network | None = None) -> tuple[PlannedAttachment, ...]:
    first = default_attachment(
        network or _network(), ifname="eth0", args=(("A", "b"),), capability_args={}
    )
    return make_plan(first, always=[], selections=selections, args=(("K", "v"),))


def _mended(data: bytes) -> bytes:
    parts, at = [], 0
    while len(data) - at >= 12:
        length = min(int.from_bytes(data[at + 4 : at + 8], "big"), len(data) - at - 12)
        payload = data[at + 12 : at + 12 + length]
        checksum = zlib.crc32(payload).to_bytes(4, "big")
        parts += [b"MPR1", length.to_bytes(4, "big"), checksum, payload]
        at += 12 + length
    return b"".join(parts)
