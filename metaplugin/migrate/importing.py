"""Multus's pods as our records, so that their DEL and CHECK work after the switch.

A record says what was attached, never more: where Multus's memory isn't enough for a DEL the
container is named with the reason, and left alone. Multus's files are only read, a record that is
there is never replaced, and whatever is imported twice is imported once.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaplugin.attachments.devices import AssignedDevice
from metaplugin.attachments.plan import PlannedAttachment
from metaplugin.attachments.record import MadeAttachment, Record, encode_record
from metaplugin.attachments.runtime_conf import RuntimeConf, Sandbox, pod_reference
from metaplugin.cni.configuration import NetworkConfigList
from metaplugin.cni.errors import CNIError
from metaplugin.cni.raw import dump
from metaplugin.cni.result import Result, parse_result
from metaplugin.migrate.netns import NetnsProblem, netns_identity
from metaplugin.migrate.record_writer import RecordStore, SandboxBusy
from metaplugin.migrate.scratch import (
    CachedAttachment,
    Container,
    Delegate,
    cached_config,
    network_config,
    read_containers,
)

OUTER_INTERFACE = "eth0"  # every CRI runtime's name for a pod's first interface


class Unusable(Exception):
    """A container can't be imported; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a container; `imported` where there is a new record."""

    container_id: str
    imported: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """Imports into a state folder. `network` is the name of the configuration that the runtime
    uses; `gone` takes in sandboxes without a namespace too, which the daemon then releases."""

    store: RecordStore
    network: str
    deadline_s: float
    gone: bool

    def run(self, cache: Path) -> Iterator[Outcome]:
        """Yield what becomes of each container; raise OSError where nothing can be read or
        written."""
        for container in read_containers(cache):
            try:
                text = self._import(container)
                yield Outcome(container_id=container.container_id, imported=True, text=text)
            except (Unusable, SandboxBusy, NetnsProblem) as exc:
                yield Outcome(container_id=container.container_id, imported=False, text=str(exc))
            except CNIError as exc:
                yield Outcome(container_id=container.container_id, imported=False, text=exc.msg)

    def _import(self, container: Container) -> str:
        if container.problem:
            raise Unusable(container.problem)
        if not container.cached:
            raise Unusable(
                "libcni's cache has no attachment of it: its ADD failed, or its DEL has been done"
            )
        if not container.delegates:
            raise Unusable(
                "Multus's own file of it is gone while libcni's cache is not: a DEL was "
                "interrupted; which attachment is the default network's can't be told"
            )
        attachments, notes = _attachments(container)
        sandbox = self._sandbox(container)
        record = self._record(container, sandbox, attachments)
        if (known := self.store.existing(record)) is not None:
            raise Unusable(known)
        content = encode_record(record, deadline_s=self.deadline_s)
        self.store.create(record, content)
        names = ", ".join(f"{made.planned.name} ({made.planned.ifname})" for made in attachments)
        return "; ".join([f"pod {record.pod or '?'}: {names}", *notes])

    def _sandbox(self, container: Container) -> Sandbox:
        paths = {cached.netns for cached in container.cached if cached.netns}
        if len(paths) != 1:
            raise Unusable(f"its attachments name {len(paths)} network namespaces, not one")
        path = paths.pop()
        identity = netns_identity(path)
        if identity is None and not self.gone:
            raise Unusable(
                f"its network namespace {path} is gone: nothing is attached any more. With --gone "
                "it is imported all the same, and the daemon releases what is left, addresses say"
            )
        device, inode = identity or (0, 0)
        return Sandbox(container_id=container.container_id, netns=path, device=device, inode=inode)

    def _record(
        self, container: Container, sandbox: Sandbox, attachments: Sequence[MadeAttachment]
    ) -> Record:
        args = attachments[0].planned.runtime.args
        return Record(
            generation=str(uuid.uuid4()),
            sandbox=sandbox,
            ifname=_outer_interface(container),
            network=self.network,
            runtime="",
            pod=pod_reference(args),
            created=time.time(),
            attachments=tuple(attachments),
            complete=True,
        )


def _outer_interface(container: Container) -> str:
    """Return the runtime's CNI_IFNAME: the default network's interface, unless the pod's annotation
    has named that one."""
    first = container.delegates[0]
    if first.ifname:
        return OUTER_INTERFACE
    config = network_config(first, None) if first.content or first.whole else None
    named = [cached for cached in container.cached if config and cached.network == config.name]
    names = [cached.ifname for cached in named if not cached.ifname.startswith("net")]
    return names[0] if len(names) == 1 else OUTER_INTERFACE


def _attachments(container: Container) -> tuple[list[MadeAttachment], list[str]]:
    """Return the container's attachments, the delegates in their order first, and what has to be
    said of them."""
    outer = _outer_interface(container)
    left = {(cached.network, cached.ifname): cached for cached in container.cached}
    made: list[MadeAttachment] = []
    notes: list[str] = []
    for position, delegate in enumerate(container.delegates):
        ifname = delegate.ifname or (f"net{position}" if position else outer)
        config = network_config(delegate, None)
        cached = left.pop((config.name, ifname), None)
        if cached:
            config = network_config(delegate, cached)
        else:
            notes.append(
                f"{delegate.name or config.name} ({ifname}) has no result in libcni's cache: its "
                "DEL gets no prevResult, and CHECK passes over it"
            )
        fallback = cached or next(iter(container.cached))
        made.append(_made(config, delegate, ifname, cached, fallback, default=not position))
    for (network, ifname), cached in left.items():
        notes.append(f"{network} ({ifname}) was hot-plugged")
        delegate = Delegate(Name=network)
        made.append(_made(cached_config(cached), delegate, ifname, cached, cached, default=False))
    return made, notes


def _made(
    config: NetworkConfigList,
    delegate: Delegate,
    ifname: str,
    cached: CachedAttachment | None,
    known: CachedAttachment,
    *,
    default: bool,
) -> MadeAttachment:
    """Return an attachment; `known` is one of the same pod whose arguments are remembered."""
    runtime = RuntimeConf(
        ifname=ifname,
        args=tuple((key, value) for key, value in known.args or ()),
        capability_args=(cached.capability_args if cached else None) or {},
    )
    planned = PlannedAttachment(
        name=delegate.name or config.name,
        config=config,
        runtime=runtime,
        default=default,
        gateways=None if delegate.gateways is None else tuple(delegate.gateways),
        device=_device(config, runtime),
    )
    result = _result(cached, config)
    # Whether the kernel has an interface of a device isn't noted anywhere; DPDK's have none.
    in_kernel = planned.device is None
    return MadeAttachment(planned=planned, own=result, result=result, in_kernel=in_kernel)


def _device(config: NetworkConfigList, runtime: RuntimeConf) -> AssignedDevice | None:
    """Return the device that Multus handed over: it notes the id, not whose it is."""
    places = [runtime.capability_args, *(plugin.raw for plugin in config.plugins)]
    named = next((place["deviceID"] for place in places if place.get("deviceID")), None)
    return AssignedDevice(id=named) if isinstance(named, str) else None


def _result(cached: CachedAttachment | None, config: NetworkConfigList) -> Result | None:
    if cached is None or not cached.result:
        return None
    where = f"network {config.name}: the result in libcni's cache"
    return parse_result(dump(cached.result), configured_version=config.cni_version, where=where)
