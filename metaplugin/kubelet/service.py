"""The kubelet's pod-resources service (v1) on its unix socket. Whoever imports this imports grpc.

Calls block, so they belong into a thread. grpc's and protobuf's own types and exceptions stay in
here, but for the messages, which have the kubelet's field names.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import grpc
from google.protobuf.message import DecodeError

from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.kubelet.messages import message_classes

LONGEST_ANSWER = 16 << 20  # bytes; 1,000 pods with 64 devices each take 3 MiB
LONGEST_REASON = 300  # characters, for the pod's events

_OPTIONS = [
    ("grpc.max_receive_message_length", LONGEST_ANSWER),
    ("grpc.use_local_subchannel_pool", 1),  # an earlier channel's failure delays no later one
]


class Failure(Enum):
    """Why a call has no answer, as far as it matters what to do next."""

    REFUSED = "refused"  # also by kubelets that are older than the method
    BUSY = "busy"  # the kubelet limits calls, or the answer is too long
    AWAY = "away"
    LATE = "late"
    GARBLED = "garbled"


_FAILURES = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: Failure.BUSY,
    grpc.StatusCode.UNAVAILABLE: Failure.AWAY,
    grpc.StatusCode.DEADLINE_EXCEEDED: Failure.LATE,
}


class Unanswered(Exception):
    """There is no answer; the text says why."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason[:LONGEST_REASON])
        self.failure = failure


class PodResourcesService:
    """A connection that lasts for one question or two: it costs a millisecond, and holds neither
    threads nor the memory of a kubelet that was restarted."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix://{quote(str(socket))}", options=_OPTIONS)
        self._messages = message_classes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()

    def get(self, pod: PodReference, timeout_s: float) -> Any:
        """Return the pod's resources; raise Unanswered: REFUSED for a pod that the kubelet doesn't
        know, and by kubelets to 1.33, whose Get is off if they have one: they say both alike."""
        request = self._messages["GetPodResourcesRequest"](
            pod_name=pod.name, pod_namespace=pod.namespace
        )
        answer = self._call("Get", request.SerializeToString(), timeout_s)
        return answer.pod_resources

    def list(self, timeout_s: float) -> Any:
        """Return the resources of all pods; raise Unanswered."""
        return self._call("List", b"", timeout_s).pod_resources

    def _call(self, method: str, request: bytes, timeout_s: float) -> Any:
        call = self._channel.unary_unary(f"/v1.PodResourcesLister/{method}")
        try:
            content = call(request, timeout=timeout_s)
        except grpc.RpcError as exc:
            code = exc.code()
            failure = _FAILURES.get(code, Failure.REFUSED)
            raise Unanswered(failure, f"{method}: {code.name}: {exc.details()}") from exc
        try:
            return self._messages[f"{method}PodResourcesResponse"].FromString(content)
        except DecodeError as exc:
            text = f"{method}: the answer can't be read ({len(content)} bytes)"
            raise Unanswered(Failure.GARBLED, text) from exc
