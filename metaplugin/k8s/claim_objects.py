"""What is kept of ResourceClaims, ResourceSlices and a pod's claims, and where they are on the
server: resource.k8s.io/v1, which Kubernetes has since 1.34."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from metaplugin.cni.raw import JSONObject
from metaplugin.commands.ports import Name
from metaplugin.k8s.cluster import Unanswered
from metaplugin.k8s.objects import quoted

_GROUP = "/apis/resource.k8s.io/v1"

T = TypeVar("T", bound=BaseModel)

DeviceName = tuple[str, str]  # pool, name
Attributes = Mapping[str, str]  # the texts among a device's attributes, by whole names


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A device that a claim was allocated: for which request, `name` or `name/subrequest`; and the
    interface that its driver reports, "" for none. One with `admin_access` may be another pod's to
    use: this claim's pods only look after it."""

    request: str
    interface: str
    admin_access: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim's devices by driver, pool and name; `reserved_for` are UIDs."""

    reserved_for: frozenset[str]
    results: Mapping[tuple[str, str, str], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodClaims:
    """How a pod names its claims, by the claim objects' names; and which extended resource a
    request stands for, by claim, container and request."""

    uid: str
    names: Mapping[str, str]
    extended_resources: Mapping[tuple[str, str, str], str]


def claim_path(name: Name) -> str:
    namespace, claim = map(quoted, name)
    return f"{_GROUP}/namespaces/{namespace}/resourceclaims/{claim}"


def slices_path(name: Name) -> str:
    """Return the list of a driver's slices for a node; "" are those that belong to no single
    one."""
    driver, node = name
    selector = urlencode({"fieldSelector": f"spec.driver={driver},spec.nodeName={node}"})
    return f"{_GROUP}/resourceslices?{selector}"


class _Part(BaseModel):
    """A part of an object; what isn't named here isn't looked at."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class _Device(_Part):
    driver: str
    pool: str
    device: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.driver, self.pool, self.device


class _AllocatedDevice(_Device):
    request: str
    admin_access: bool | None = None


class _NetworkData(_Part):
    interface_name: str = ""


class _DeviceStatus(_Device):
    network_data: _NetworkData | None = None


class _Devices(_Part):
    results: tuple[_AllocatedDevice, ...] = ()


class _Allocation(_Part):
    devices: _Devices = _Devices()


class _Consumer(_Part):
    uid: str


class _ClaimStatus(_Part):
    allocation: _Allocation | None = None
    devices: tuple[_DeviceStatus, ...] = ()
    reserved_for: tuple[_Consumer, ...] = ()


class _Claim(_Part):
    status: _ClaimStatus = _ClaimStatus()


def slim_claim(item: JSONObject) -> Claim:
    """Return what matters of a claim; raise Unanswered for what is none."""
    status = _parsed(_Claim, item).status
    interfaces = {
        each.key: each.network_data.interface_name for each in status.devices if each.network_data
    }
    allocation = status.allocation or _Allocation()
    results: dict[tuple[str, str, str], Result] = {}
    for each in allocation.devices.results:
        found = Result(
            request=each.request,
            interface=interfaces.get(each.key, ""),
            admin_access=bool(each.admin_access),
        )
        if each.key not in results or results[each.key].admin_access:
            results[each.key] = found
    return Claim(
        reserved_for=frozenset(consumer.uid for consumer in status.reserved_for), results=results
    )


class _PodClaim(_Part):
    name: str
    resource_claim_name: str | None = None


class _PodSpec(_Part):
    resource_claims: tuple[_PodClaim, ...] = ()


class _RequestMapping(_Part):
    container_name: str
    resource_name: str
    request_name: str


class _ExtendedResources(_Part):
    resource_claim_name: str
    request_mappings: tuple[_RequestMapping, ...] = ()


class _PodStatus(_Part):
    resource_claim_statuses: tuple[_PodClaim, ...] = ()
    extended_resource_claim_status: _ExtendedResources | None = None


class _PodMetadata(_Part):
    uid: str = ""


class _Pod(_Part):
    metadata: _PodMetadata
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


def slim_pod_claims(item: JSONObject) -> PodClaims:
    """Return what matters of a pod: claims that it names itself, and those made from its templates;
    raise Unanswered for what is none."""
    pod = _parsed(_Pod, item)
    claims = (*pod.spec.resource_claims, *pod.status.resource_claim_statuses)
    extended = pod.status.extended_resource_claim_status
    return PodClaims(
        uid=pod.metadata.uid,
        names={each.resource_claim_name: each.name for each in claims if each.resource_claim_name},
        extended_resources={
            (extended.resource_claim_name, each.container_name, each.request_name): (
                each.resource_name
            )
            for each in extended.request_mappings
        }
        if extended
        else {},
    )


class _Attribute(_Part):
    string: str | None = None


class _SliceDevice(_Part):
    name: str
    attributes: dict[str, _Attribute] = {}


class _Pool(_Part):
    name: str
    generation: int = 0


class _SliceSpec(_Part):
    driver: str
    pool: _Pool
    devices: tuple[_SliceDevice, ...] = ()


class _Slice(_Part):
    spec: _SliceSpec


class _Slices(_Part):
    items: tuple[_Slice, ...] = ()


def slim_slices(item: JSONObject) -> Mapping[DeviceName, Attributes]:
    """Return the devices of a list of slices, of a pool's newest generation alone; raise Unanswered
    for what is none."""
    specs = [each.spec for each in _parsed(_Slices, item).items]
    newest: dict[str, int] = {}
    for spec in specs:
        newest[spec.pool.name] = max(newest.get(spec.pool.name, 0), spec.pool.generation)
    return {
        (spec.pool.name, device.name): {
            key if "/" in key else f"{spec.driver}/{key}": value.string
            for key, value in device.attributes.items()
            if value.string
        }
        for spec in specs
        if spec.pool.generation == newest[spec.pool.name]
        for device in spec.devices
    }


def _parsed(kind: type[T], item: JSONObject) -> T:
    try:
        return kind.model_validate(item)
    except ValidationError as exc:
        raise Unanswered(f"the object is misshapen: {exc.errors()[0]}") from exc
