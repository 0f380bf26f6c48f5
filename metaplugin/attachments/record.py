"""What is remembered of a sandbox's attachments, from before the first delegate runs until the last
DEL.

A record holds the plan, each attachment's result once there is one, and the DEL calls as ready
bytes in the order in which to run them: a program that understands nothing else can carry them out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from metaplugin.attachments.calls import PluginCall, del_calls
from metaplugin.attachments.default_routes import DefaultRoutes
from metaplugin.attachments.devices import AssignedDevice
from metaplugin.attachments.plan import PlannedAttachment
from metaplugin.attachments.runtime_conf import PodReference, RuntimeConf, Sandbox
from metaplugin.cni.configuration import (
    NetworkConfigList,
    parse_network_config,
    with_plugin_version,
)
from metaplugin.cni.errors import CNIError
from metaplugin.cni.raw import RECORD_NESTING, JSONObject, dump, load_object
from metaplugin.cni.result import Result, parse_result
from metaplugin.cni.version import SUPPORTED_VERSIONS
from metaplugin.wire.container import (
    DamagedRecord,
    Section,
    decode_record,
    encode_section,
    record_file_name,
)
from metaplugin.wire.frames import Exec, Netns

SCHEMA = 1
HOT_PLUG_NETWORK = "metaplugin-hot-plug"  # the outer configuration's name in such requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The error that a plugin reported in ADD, by its place in the list."""

    place: int
    code: int
    msg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A DEL that doesn't succeed: since when, and with what error.

    `given_up` says that the runtime was told success all the same, so that the pod could go: what
    is left is the clean-up's alone.
    """

    since: float
    error: str
    given_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeAttachment:
    """A planned attachment and what became of it.

    `own` is the result of its plugins, which its DEL gets; `result` is the same corrected for what
    the pod's other attachments did to its routes: CHECK, status and the runtime get that one.
    `in_kernel` is False where the interface that its result names is none of the kernel's: a
    device's for DPDK, say. `refusal` is how its ADD ended where a plugin refused it.
    """

    planned: PlannedAttachment
    own: Result | None = None
    result: Result | None = None
    in_kernel: bool = True
    refusal: Refusal | None = None

    @property
    def interfaces(self) -> frozenset[str]:
        """Return the names that it has, or may have, inside the sandbox."""
        told = self.own.interfaces if self.own else ()
        inside = {interface.name for interface in told if interface.sandbox}
        return frozenset(inside | {self.planned.ifname})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One outer attachment (container id, interface) and all that it consists of.

    `complete` says that an ADD got to its end; `status` is the network-status annotation's text,
    empty where that isn't ours to write; `runtime` is the program that called, `network` the outer
    configuration's name.
    """

    generation: str
    sandbox: Sandbox
    ifname: str
    network: str
    runtime: str
    pod: PodReference | None
    created: float
    attachments: tuple[MadeAttachment, ...]
    default_routes: DefaultRoutes | None = None
    complete: bool = False
    status: str = ""
    failing: Failing | None = None

    @property
    def given_up(self) -> bool:
        """Say whether it outlived its pod, since it can't be released."""
        return self.failing is not None and self.failing.given_up

    @property
    def file_name(self) -> str:
        return record_file_name(self.sandbox.container_id, self.ifname)

    @property
    def hot_plugged(self) -> bool:
        """Say whether it came to a running sandbox by hot-plug: no runtime knows of it, so it goes
        with the sandbox's own record."""
        return self.network == HOT_PLUG_NETWORK

    def del_calls(self) -> tuple[PluginCall, ...]:
        """Return the DEL calls of all attachments, the last one first."""
        return tuple(
            call
            for made in reversed(self.attachments)
            for call in del_calls(made.planned, self.sandbox, made.own)
        )

    def del_places(self) -> tuple[tuple[int, int], ...]:
        """Return of each DEL call which attachment's it is, and the plugin's place in its list."""
        return tuple(
            (position, place)
            for position in reversed(range(len(self.attachments)))
            for place in reversed(range(len(self.attachments[position].planned.config.plugins)))
        )

    def with_refusal(self, position: int, refusal: Refusal) -> Record:
        """Return the record with how the ADD of the attachment at a position ended."""
        made = list(self.attachments)
        made[position] = replace(made[position], refusal=refusal)
        return replace(self, attachments=tuple(made))

    def without(self, released: Collection[int]) -> Record:
        """Return the record without the attachments at these positions."""
        left = tuple(
            made for position, made in enumerate(self.attachments) if position not in released
        )
        routes = self.default_routes
        if routes and routes.ifname not in [made.planned.ifname for made in left]:
            routes = None  # they went with the interface
        return replace(self, attachments=left, default_routes=routes)

    def with_version(self, position: int, place: int, version: str) -> Record:
        """Return the record with the plugin at a place of the attachment at a position run in
        another version than its list's."""
        made = list(self.attachments)
        planned = made[position].planned
        config = with_plugin_version(planned.config, place, version)
        made[position] = replace(made[position], planned=replace(planned, config=config))
        return replace(self, attachments=tuple(made))

    def with_results(self, results: Mapping[int, Result]) -> Record:
        """Return the record with the plugins' results by position."""
        made = (
            replace(attachment, own=results.get(position), result=results.get(position))
            for position, attachment in enumerate(self.attachments)
        )
        return replace(self, attachments=tuple(made))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record as it was read: `calls` are the bytes on disk, which a DEL runs as they are."""

    record: Record
    calls: tuple[PluginCall, ...]

    def without(self, released: Collection[int]) -> StoredRecord:
        """Return it without the attachments at these positions, the calls of the others as they
        are."""
        places = zip(self.calls, self.record.del_places(), strict=True)
        left = tuple(call for call, (position, _) in places if position not in released)
        return StoredRecord(record=self.record.without(released), calls=left)


def device_info_name(record_name: str, ifname: str) -> str:
    """Return the name of an attachment's file of device information. The shim removes a record's
    by what they begin with; no interface's name has a colon."""
    return f"{record_name}:{ifname}"


def encode_record(record: Record, *, deadline_s: float) -> bytes:
    """Return the record as one section of its file."""
    return encode_stored(
        StoredRecord(record=record, calls=record.del_calls()), deadline_s=deadline_s
    )


def encode_stored(stored: StoredRecord, *, deadline_s: float) -> bytes:
    """Return the record as one section of its file, with the calls that it has."""
    record, sandbox = stored.record, stored.record.sandbox
    return encode_section(
        Section(
            note=dump(_note(record)),
            netns=Netns(
                sandbox.netns.encode(errors="surrogateescape"), sandbox.device, sandbox.inode
            ),
            calls=tuple(call.to_exec(deadline_s) for call in stored.calls),
        )
    )


def decode_stored_record(content: bytes) -> StoredRecord:
    """Return what a record's file holds; raise DamagedRecord."""
    section = decode_record(content)
    try:
        note = load_object(section.note, what="the record's note", nesting=RECORD_NESTING)
        record = _record(note, section.netns)
        calls = _named_calls(record, section.calls)
    except (CNIError, AttributeError, KeyError, TypeError, ValueError) as exc:
        raise DamagedRecord(f"the record's note can't be used: {exc}") from exc
    return StoredRecord(record=record, calls=calls)


def _named_calls(record: Record, frames: tuple[Exec, ...]) -> tuple[PluginCall, ...]:
    planned = [
        made.planned for made in reversed(record.attachments) for _ in made.planned.config.plugins
    ]
    return tuple(
        PluginCall(
            type=frame.type.decode(),
            environment=frame.environment,
            stdin=frame.stdin,
            network=attachment.name,
            ifname=attachment.ifname,
        )
        for frame, attachment in zip(frames, planned, strict=True)
    )


def _note(record: Record) -> JSONObject:
    pod, wanted = record.pod, record.default_routes
    return {
        "schema": SCHEMA,
        "generation": record.generation,
        "containerID": record.sandbox.container_id,
        "ifname": record.ifname,
        "network": record.network,
        "runtime": record.runtime,
        "created": record.created,
        "complete": record.complete,
        "status": record.status,
        "pod": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid} if pod else None,
        "defaultRoutes": _default_routes_note(wanted) if wanted else None,
        **({"failing": asdict(record.failing)} if record.failing else {}),
        "attachments": [_attachment_note(made) for made in record.attachments],
    }


def _default_routes_note(wanted: DefaultRoutes) -> JSONObject:
    gateways = {str(family): list(found) for family, found in wanted.gateways.items()}
    return {"ifname": wanted.ifname, "gateways": gateways}


def _attachment_note(made: MadeAttachment) -> JSONObject:
    planned = made.planned
    versions = [plugin.cni_version for plugin in planned.config.plugins]
    return {
        "name": planned.name,
        "ifname": planned.ifname,
        "default": planned.default,
        **({"auxiliary": True} if planned.auxiliary else {}),
        "config": planned.config.raw,
        **({"versions": versions} if any(versions) else {}),
        **({"device": asdict(planned.device)} if planned.device else {}),
        **({} if made.in_kernel else {"inKernel": False}),
        **({"refusal": asdict(made.refusal)} if made.refusal else {}),
        "args": [list(pair) for pair in planned.runtime.args],
        "capabilityArgs": dict(planned.runtime.capability_args),
        "gateways": None if planned.gateways is None else list(planned.gateways),
        "own": _result_note(made.own),
        "result": None if made.result == made.own else _result_note(made.result),
    }


def _result_note(result: Result | None) -> JSONObject | None:
    return None if result is None else {"cniVersion": result.cni_version, **result.raw}


def _record(note: JSONObject, netns: Netns) -> Record:
    if note["schema"] != SCHEMA:
        raise ValueError(f"its schema is {note['schema']}, this release reads {SCHEMA}")
    pod, wanted = note["pod"], note["defaultRoutes"]
    failing = note.get("failing")
    return Record(
        generation=note["generation"],
        sandbox=Sandbox(
            container_id=note["containerID"],
            netns=netns.path.decode(errors="surrogateescape"),
            device=netns.device,
            inode=netns.inode,
        ),
        ifname=note["ifname"],
        network=note["network"],
        runtime=note["runtime"],
        pod=PodReference(**pod) if pod else None,
        created=note["created"],
        attachments=tuple(_made(attachment) for attachment in note["attachments"]),
        default_routes=_default_routes(wanted) if wanted else None,
        complete=note["complete"],
        status=note["status"],
        failing=Failing(**failing) if failing else None,
    )


def _default_routes(note: JSONObject) -> DefaultRoutes:
    gateways = {int(family): tuple(found) for family, found in note["gateways"].items()}
    return DefaultRoutes(ifname=note["ifname"], gateways=gateways)


def _made(note: Mapping[str, Any]) -> MadeAttachment:
    runtime = RuntimeConf(
        ifname=note["ifname"],
        args=tuple((key, value) for key, value in note["args"]),
        capability_args=note["capabilityArgs"],
    )
    gateways, device = note["gateways"], note.get("device")
    planned = PlannedAttachment(
        name=note["name"],
        config=_config(note),
        runtime=runtime,
        default=note["default"],
        auxiliary=note.get("auxiliary", False),
        gateways=None if gateways is None else tuple(gateways),
        device=AssignedDevice(**device) if device else None,
    )
    own = _result(note["own"], planned)
    result = own if note["result"] is None else _result(note["result"], planned)
    refusal = note.get("refusal")
    return MadeAttachment(
        planned=planned,
        own=own,
        result=result,
        in_kernel=note.get("inKernel", True),
        refusal=Refusal(**refusal) if refusal else None,
    )


def _config(note: Mapping[str, Any]) -> NetworkConfigList:
    config = parse_network_config(note["config"], where="record")
    versions = note.get("versions") or [None] * len(config.plugins)
    for place, (version, _) in enumerate(zip(versions, config.plugins, strict=True)):
        if version not in (None, *SUPPORTED_VERSIONS):
            raise ValueError(f"plugin {place}: version {version!r}")
        config = with_plugin_version(config, place, version)
    return config


def _result(note: JSONObject | None, planned: PlannedAttachment) -> Result | None:
    if note is None:
        return None
    return parse_result(dump(note), configured_version=planned.config.cni_version, where="record")
