"""The API's verbs upon the store: requests in, bytes or ApiError out. No network, no lock."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.apiserver.faults import Answer
from tests.apiserver.resources import (
    EVENTS,
    ApiError,
    JSONObject,
    Resource,
    Target,
    expired,
    field_selector,
    invalid,
)
from tests.apiserver.store import Scope, Store, encode, joined
from tests.apiserver.watches import Watch
from tests.apiserver.wire import Request

MERGE_PATCH = "application/merge-patch+json"
INITIAL_EVENTS = "sendInitialEvents"
PROGRESS_MISSING = (
    "a watch stream was requested by the client but the required storage feature "
    "RequestWatchProgress is disabled"
)
PLAIN_PATHS = {"/healthz": b"ok", "/livez": b"ok", "/readyz": b"ok"}  # open to everyone


@dataclass
class Api:
    store: Store = field(default_factory=Store)
    token: str = ""  # the only bearer token accepted; empty: no authentication
    # What sendInitialEvents gets: service; the 422 of older servers; or the ERROR event of new
    # ones whose etcd is old, as Debian 12's is.
    watch_list: Literal["served", "refused", "failing"] = "served"
    gone_in_stream: bool = True  # a watch from too old a version: an ERROR event, else HTTP 410
    uid_mismatch: Literal[409, 422] = 422  # the code for a patch with another pod's uid

    def answer(self, request: Request) -> tuple[int, bytes]:
        """Code and body for everything but a watch."""
        if request.path in PLAIN_PATHS and "authorization" not in request.headers:
            return 200, PLAIN_PATHS[request.path]
        self.authenticate(request)
        if request.path in PLAIN_PATHS:
            return 200, PLAIN_PATHS[request.path]
        target = target_in(request)
        verbs: dict[tuple[str, str], Callable[[Request, Target], tuple[int, bytes]]] = {
            ("list", target.resource.name): self._list,
            ("get", target.resource.name): self._get,
            ("patch", "pods/status"): self._patch,
            ("create", "events"): self._create_event,
        }
        verb = verbs.get((request.verb, request.resource))
        if not verb:
            raise ApiError(405, f"{request.verb} is not supported on {request.resource} here")
        return verb(request, target)

    def authenticate(self, request: Request) -> None:
        """401 without the token."""
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            raise ApiError(401, "Unauthorized")

    def watch(self, request: Request, watch: Watch) -> None:
        """Tells a new watch what it has to know first."""
        since = _number(request, "resourceVersion")
        initial = request.query.get(INITIAL_EVENTS)
        if initial is not None:
            self._check_initial_events(request)
        if initial == "true" and self.watch_list == "failing":
            watch.tell(Answer(500, message=PROGRESS_MISSING))
            return
        if since and initial != "true":
            self._tell_since(since, watch)
            return
        if initial == "false":
            return
        for stored in self.store.current(watch.scope):
            watch.tell_event("ADDED", stored.raw)
        if initial == "true":
            watch.tell_bookmark(self.store.version, initial_end=True)

    def _tell_since(self, since: int, watch: Watch) -> None:
        try:
            watch.tell_changes(list(self.store.changes(since)))
        except ApiError as error:
            if not self.gone_in_stream:
                raise
            watch.tell(Answer(error.code, error.reason, error.message))

    def _check_initial_events(self, request: Request) -> None:
        if self.watch_list == "refused":
            raise _options_invalid(
                INITIAL_EVENTS,
                "sendInitialEvents is forbidden for watch unless the WatchList feature gate "
                "is enabled",
            )
        if request.query.get("resourceVersionMatch") != "NotOlderThan":
            raise _options_invalid(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )

    def _get(self, _: Request, target: Target) -> tuple[int, bytes]:
        return 200, self.store.get(target).raw

    def _list(self, request: Request, target: Target) -> tuple[int, bytes]:
        scope = scope_of(request)
        limit = _number(request, "limit")
        if token := request.query.get("continue"):
            if request.query.get("resourceVersion", "") not in {"", "0"}:
                raise ApiError(
                    400, "specifying resource version is not allowed when using continue"
                )
            page = self.store.next_page(token, limit)
        else:
            self._check_version(request)
            # From the watch cache (version 0) a list comes whole, whatever its limit.
            from_cache = request.query.get("resourceVersion") == "0"
            page = self.store.first_page(scope, 0 if from_cache else limit)
        metadata: JSONObject = {"resourceVersion": str(page.version)}
        if page.next or not target.resource.typed:
            metadata["continue"] = page.next  # custom ones have it, empty, on the last page too
        if page.next and not scope.selector:
            metadata["remainingItemCount"] = page.remaining
        return 200, _list_body(target.resource, metadata, page.items)

    def _check_version(self, request: Request) -> None:
        asked = _number(request, "resourceVersion")
        if asked > self.store.version:
            raise ApiError(
                504,
                f"Timeout: Too large resource version: {asked}, current: {self.store.version}",
                details={
                    "causes": [
                        {
                            "reason": "ResourceVersionTooLarge",
                            "message": "Too large resource version",
                        }
                    ]
                },
                retry_after=1,
            )
        if request.query.get("resourceVersionMatch") == "Exact" and asked != self.store.version:
            raise expired("The resourceVersion for the provided list is too old.")

    def _patch(self, request: Request, target: Target) -> tuple[int, bytes]:
        if request.headers.get("content-type", "").partition(";")[0] != MERGE_PATCH:
            raise ApiError(415, f"the body of the request must be {MERGE_PATCH} here")
        if not isinstance(request.body, dict):
            raise ApiError(400, "the body of the request is no JSON object")
        return 200, self.store.patch_pod_status(target, request.body, self.uid_mismatch).raw

    def _create_event(self, request: Request, target: Target) -> tuple[int, bytes]:
        if not isinstance(request.body, dict):
            raise ApiError(400, "the body of the request is no JSON object")
        event = copy.deepcopy(request.body)
        metadata = event.setdefault("metadata", {})
        if prefix := metadata.get("generateName"):
            metadata.setdefault("name", f"{prefix}{uuid.uuid4().hex[:5]}")
        name = metadata.setdefault("name", "")
        if not name:
            raise invalid("Event", "", "metadata.name", "name or generateName is required")
        if metadata.setdefault("namespace", target.namespace) != target.namespace:
            raise ApiError(
                400, "the namespace of the provided object does not match the one of the request"
            )
        # Events on what has no namespace are in `default`.
        if (event.get("involvedObject", {}).get("namespace") or "default") != target.namespace:
            raise invalid(
                "Event", name, "involvedObject.namespace", "does not match event.namespace"
            )
        if (EVENTS.name, target.namespace, name) in self.store.objects:
            raise ApiError(409, f'events "{name}" already exists', reason="AlreadyExists")
        event |= {"kind": EVENTS.kind, "apiVersion": EVENTS.api_version}
        return 201, self.store.put(event).raw


def target_in(request: Request) -> Target:
    """What the path names; 404 if nothing."""
    if not (target := request.target):
        raise ApiError(404, "the server could not find the requested resource")
    return target


def scope_of(request: Request) -> Scope:
    target = target_in(request)
    if request.query.get("labelSelector"):
        raise ApiError(400, "label selectors are not supported here")
    selector = field_selector(target.resource, request.query.get("fieldSelector", ""))
    return Scope(target.resource, target.namespace, selector)


def _number(request: Request, name: str) -> int:
    text = request.query.get(name, "") or "0"
    if not text.isdecimal():
        raise ApiError(400, f'{name}: Invalid value: "{text}": invalid syntax')
    return int(text)


def _list_body(resource: Resource, metadata: JSONObject, items: list[bytes]) -> bytes:
    """With its keys in a real server's order: metadata comes last in lists of custom objects."""
    head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
    ends = encode({**head, "metadata": metadata}), b',"items":' + joined(items) + b"}"
    if resource.typed:
        return ends[0][:-1] + ends[1]
    return encode(head)[:-1] + ends[1][:-1] + b',"metadata":' + encode(metadata) + b"}"


def _options_invalid(field_: str, why: str) -> ApiError:
    error = invalid("ListOptions.meta.k8s.io", "", field_, f"Forbidden: {why}")
    error.details |= {"group": "meta.k8s.io", "kind": "ListOptions"}
    error.details["causes"][0]["reason"] = "FieldValueForbidden"
    return error
