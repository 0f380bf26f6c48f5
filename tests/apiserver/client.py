"""A client of one connection, an open watch, and objects: what the server's own tests need."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlencode

from tests.apiserver.resources import JSONObject
from tests.apiserver.server import ApiServer

PODS = "/api/v1/pods"
NETWORKS = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
WITHIN_S = 20.0  # for whatever must come; what must not come is never waited for
SHORT_S = 0.2  # a client's patience with what must not come
STATUS_OF_A = "/api/v1/namespaces/default/pods/a/status"


def annotate(**metadata: object) -> JSONObject:
    return {"metadata": {"annotations": {"status": "[]", "old": None}, **metadata}}


def pod(name: str, *, node: str = "here", **metadata: Any) -> JSONObject:
    return {"kind": "Pod", "metadata": {"name": name, **metadata}, "spec": {"nodeName": node}}


def network(name: str, config: str = "{}") -> JSONObject:
    spec = {"config": config}
    return {"kind": "NetworkAttachmentDefinition", "metadata": {"name": name}, "spec": spec}


class Client:
    """One connection, as urllib3 would hold it."""

    def __init__(self, server: ApiServer, *, token: str = "", patience: float = WITHIN_S) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=patience)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def open(
        self, path: str, *, method: str = "GET", body: object = None, **query: object
    ) -> http.client.HTTPResponse:
        headers = dict(self.headers)
        if body is not None:
            patch = method == "PATCH"
            headers["Content-Type"] = f"application/{'merge-patch+' if patch else ''}json"
        address = f"{path}?{urlencode(query)}" if query else path
        data = None if body is None else json.dumps(body)
        self.connection.request(method, address, data, headers)
        return self.connection.getresponse()

    def call(self, path: str, **request: Any) -> tuple[int, JSONObject]:
        response = self.open(path, **request)
        parsed = json.loads(response.read())
        assert isinstance(parsed, dict)
        return response.status, parsed

    def get(self, path: str, **query: object) -> JSONObject:
        code, answer = self.call(path, **query)
        assert code == 200, answer
        return answer

    def close(self) -> None:
        self.connection.close()


class Watch:
    """An open watch, read event by event."""

    def __init__(self, server: ApiServer, path: str, **query: Any) -> None:
        self.client = Client(server)
        self.response = self.client.open(path, watch=1, **query)
        assert self.response.status == 200, self.response.read()

    def line(self) -> bytes:
        return self.response.readline()

    def event(self) -> JSONObject:
        event = json.loads(self.line())
        assert isinstance(event, dict)
        return event

    def told(self) -> str:
        event = self.event()
        metadata = event["object"].get("metadata", {})
        return f"{event['type']} {metadata.get('name') or metadata['resourceVersion']}"

    def close(self) -> None:
        self.client.close()
