"""Evictions: the API's own way to have a pod go, which keeps to PodDisruptionBudgets."""

from __future__ import annotations

import logging

from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.k8s.api import ApiAway, ApiRefused
from metaplugin.k8s.calls import Calls
from metaplugin.k8s.events import ApiEvents
from metaplugin.k8s.objects import pod_path

log = logging.getLogger(__name__)

TIMEOUT_S = 10
_GONE = frozenset({404, 409})  # gone already, or another pod of that name


class ApiEvictor:
    """The port Evictor over the API server."""

    def __init__(self, calls: Calls, events: ApiEvents) -> None:
        self._calls = calls
        self._events = events

    async def evict(self, pod: PodReference) -> bool:
        name = (pod.namespace, pod.name)
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": pod.namespace, "name": pod.name},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        path = pod_path(name, "/eviction")
        try:
            await self._calls.call("POST", path, timeout_s=TIMEOUT_S, body=body)
        except ApiRefused as exc:
            if exc.status in _GONE:
                return True
            log.warning("eviction refused", extra={"pod": str(pod), "why": str(exc)})
            return False
        except ApiAway as exc:
            log.warning("not evicted", extra={"pod": str(pod), "why": str(exc)})
            return False
        log.warning("evicted", extra={"pod": str(pod)})
        self._events.evicted(pod)
        return True
