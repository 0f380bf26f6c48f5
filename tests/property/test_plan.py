"""Plans of any valid annotation: unique names, the default network first, the annotation's order;
and records of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from metaplugin.attachments.devices import AssignedDevice
from metaplugin.attachments.plan import (
    Network,
    PlannedAttachment,
    Selection,
    default_attachment,
    make_plan,
    with_device,
)
from metaplugin.attachments.record import (
    MadeAttachment,
    Record,
    decode_stored_record,
    encode_record,
)
from metaplugin.attachments.runtime_conf import PodReference, Sandbox
from metaplugin.cni.configuration import parse_network_config
from metaplugin.cni.errors import InvalidNetworkConfig
from metaplugin.cni.result import parse_result
from metaplugin.npwg.selection import parse_networks_annotation
from tests.property.test_selection import ANY_TEXT, VALID

CAPABILITIES = dict.fromkeys(("ips", "mac", "portMappings", "bandwidth", "infinibandGUID"), True)
ELEMENTS = st.lists(VALID, max_size=5)
SIMPLE = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abc")},
        optional={"interface": st.sampled_from(["net1", "net2", "net3", "net4", "eth0", "x"])},
    ),
    max_size=6,
)


def network(name: str) -> Network:
    plugin = {"type": "noop", "capabilities": CAPABILITIES}
    raw = {"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}
    return Network(name=f"own/{name}", config=parse_network_config(raw, where=name), resource="r")


def planned(
    elements: list[dict[str, Any]], always: list[str]
) -> tuple[PlannedAttachment, ...] | None:
    """Return the plan, None when names collide or default-route is asked for twice."""
    try:
        selected = parse_networks_annotation(json.dumps(elements), pod_namespace="own")
        return make_plan(
            default_attachment(network("d"), ifname="eth0", args=(), capability_args={}),
            always=[network(name) for name in always],
            selections=[Selection(element=e, network=network(e.name)) for e in selected],
            args=(("K8S_POD_NAME", "p"),),
        )
    except InvalidNetworkConfig:
        return None


@given(SIMPLE | ELEMENTS, st.lists(st.sampled_from("yz"), max_size=2))
def test_a_plan_has_the_default_network_first_and_each_name_once(
    elements: list[dict[str, Any]], always: list[str]
) -> None:
    """NPWG-36, NPWG-49, MULTUS-5, MULTUS-23."""
    asked = [e["interface"] for e in elements if "interface" in e]
    plan = planned(elements, always)
    if plan is None:
        routed = sum("default-route" in e for e in elements)
        assert routed > 1 or "eth0" in asked or len(set(asked)) < len(asked)
        return
    names = [f"own/{name}" for name in ["d", *always, *(e["name"] for e in elements)]]
    assert [attachment.name for attachment in plan] == names
    assert [attachment.default for attachment in plan] == [True] + [False] * (len(plan) - 1)
    assert len({attachment.ifname for attachment in plan}) == len(plan)
    for attachment, element in zip(plan[1 + len(always) :], elements, strict=True):
        assert element.get("interface", attachment.ifname) == attachment.ifname
    assert planned(elements, always) == plan


@given(ELEMENTS, st.booleans(), ANY_TEXT)
def test_a_record_of_any_plan_comes_back_with_every_del(
    elements: list[dict[str, Any]], made: bool, status: str
) -> None:
    """ROB-7, CNI-DLG-9: the DEL calls on disk are those of the plan, to the byte."""
    bare = planned(elements, [])
    if bare is None:
        return
    plan = [with_device(p, AssignedDevice(id="0", resource="r") if p.wants else None) for p in bare]
    own = parse_result(b"{}", configured_version="1.0.0", where="test") if made else None
    record = Record(
        generation="g",
        sandbox=Sandbox(container_id="c1", netns="/run/netns/\udcff", device=2**40, inode=7),
        ifname="eth0",
        network="outer",
        runtime="/usr/bin/crio",
        pod=PodReference(namespace="own", name="p"),
        created=0.25,
        attachments=tuple(MadeAttachment(planned=p, own=own, result=own) for p in plan),
        complete=made,
        status=status,
    )
    stored = decode_stored_record(encode_record(record, deadline_s=90))
    assert stored.calls == record.del_calls()
    assert len(stored.calls) == len(plan)
    assert [m.planned for m in stored.record.attachments] == plan
    assert (stored.record.status, stored.record.sandbox) == (status, record.sandbox)
