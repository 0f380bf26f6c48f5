"""What the server knows of the Kubernetes API: resources, paths, Status, selectors, patches.

Pure. Where servers differ or the documentation is silent it says what kube-apiserver does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

JSONObject = dict[str, Any]

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",  # "Gone" is what only very old servers say
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True)
class Resource:
    """A kind of object; `group_path` is where the resources of its group and version are."""

    name: str
    kind: str
    api_version: str
    group_path: str
    fields: tuple[str, ...]  # that a field selector may name

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def typed(self) -> bool:
        """Built in: the items of its lists have neither kind nor apiVersion."""
        return not self.group


_METADATA = ("metadata.name", "metadata.namespace")
PODS = Resource("pods", "Pod", "v1", "/api/v1", (*_METADATA, "spec.nodeName", "status.phase"))
EVENTS = Resource(
    "events", "Event", "v1", "/api/v1", (*_METADATA, "involvedObject.name", "involvedObject.uid")
)
NETWORKS = Resource(
    "network-attachment-definitions",
    "NetworkAttachmentDefinition",
    "k8s.cni.cncf.io/v1",
    "/apis/k8s.cni.cncf.io/v1",
    _METADATA,
)
_DRA = ("resource.k8s.io/v1", "/apis/resource.k8s.io/v1")
CLAIMS = Resource("resourceclaims", "ResourceClaim", *_DRA, _METADATA)
SLICES = Resource(  # of no namespace; here they have one, which a list of all doesn't show
    "resourceslices",
    "ResourceSlice",
    *_DRA,
    ("metadata.name", "spec.driver", "spec.nodeName"),
)
RESOURCES = (PODS, EVENTS, NETWORKS, CLAIMS, SLICES)


def resource_of(kind: str) -> Resource:
    """By kind (`Pod`) or by name (`pods`)."""
    for resource in RESOURCES:
        if kind in {resource.kind, resource.name}:
            return resource
    raise LookupError(f"no such resource: {kind}")


@dataclass(frozen=True)
class Target:
    """What a path names; empty strings for what it leaves open."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


_TAIL = re.compile(
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)"
    r"(?:/(?P<name>[^/]+)(?:/(?P<subresource>[^/]+))?)?"
)


def target_of(path: str) -> Target | None:
    for resource in RESOURCES:
        found = _TAIL.fullmatch(path.removeprefix(resource.group_path))
        if not path.startswith(resource.group_path + "/") or not found:
            continue
        if found["plural"] == resource.name and (found["namespace"] or not found["name"]):
            return Target(
                resource,
                found["namespace"] or "",
                found["name"] or "",
                found["subresource"] or "",
            )
    return None


class ApiError(Exception):
    """An error that is answered as a Status object."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or REASONS.get(code, "")
        self.retry_after = retry_after
        self.details = dict(details or {})
        if retry_after is not None:
            self.details["retryAfterSeconds"] = retry_after

    def status(self) -> JSONObject:
        status: JSONObject = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return status


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(
        404,
        f'{_qualified(resource)} "{name}" not found',
        details=_named(resource, name),
    )


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    return ApiError(
        409,
        f'Operation cannot be fulfilled on {_qualified(resource)} "{name}": {why}',
        details=_named(resource, name),
    )


def invalid(kind: str, name: str, field: str, why: str) -> ApiError:
    return ApiError(
        422,
        f'{kind} "{name}" is invalid: {field}: {why}',
        details={
            "name": name,
            "kind": kind,
            "causes": [{"reason": "FieldValueInvalid", "message": why, "field": field}],
        },
    )


def expired(message: str) -> ApiError:
    return ApiError(410, message)


def _qualified(resource: Resource) -> str:
    return f"{resource.name}.{resource.group}" if resource.group else resource.name


def _named(resource: Resource, name: str) -> JSONObject:
    group = {"group": resource.group} if resource.group else {}
    return {"name": name, **group, "kind": resource.name}


@dataclass(frozen=True)
class Requirement:
    """One term of a field selector."""

    field: str
    value: str
    equal: bool

    def matches(self, obj: JSONObject) -> bool:
        at: Any = obj
        for key in self.field.split("."):
            at = at.get(key, "") if isinstance(at, dict) else ""
        return (at == self.value) is self.equal


def field_selector(resource: Resource, text: str) -> tuple[Requirement, ...]:
    """Of `a=b,c!=d`; 400 for a field that the resource doesn't select by."""
    requirements = []
    for term in filter(None, text.split(",")):
        parsed = re.fullmatch(r"([^=!]+)(=|==|!=)([^=!]*)", term)
        if not parsed:
            raise ApiError(400, f"invalid selector: '{term}'; can't understand '{term}'")
        if parsed[1] not in resource.fields:
            raise ApiError(400, f"field label not supported: {parsed[1]}")
        requirements.append(Requirement(parsed[1], parsed[3], parsed[2] != "!="))
    return tuple(requirements)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396; the arguments stay as they are."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
