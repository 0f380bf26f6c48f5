"""A small API client for tests: raw JSON in and out, paths as the API has them."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlencode, urlsplit

JSONObject = dict[str, Any]

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
_CONNECTIONS = 4
_PLURALS = {
    "NetworkAttachmentDefinition": "network-attachment-definitions",
    "IPAMClaim": "ipamclaims",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}


class ApiError(Exception):
    """An answer of 400 or more."""

    def __init__(self, status: int, text: str, headers: http.client.HTTPMessage) -> None:
        super().__init__(f"{status} {text}")
        self.status, self.text, self.headers = status, text, headers


class Client:
    """One user of one API server. A connection a request, so threads may share it."""

    def __init__(self, url: str, tls: ssl.SSLContext, token: str, *, timeout: float = 10) -> None:
        self._address = urlsplit(url).netloc
        self._tls, self._timeout = tls, timeout
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._address, context=self._tls, timeout=self._timeout)

    def raw(self, method: str, path: str) -> tuple[int, str]:
        """Return status and text of an answer, whatever they are."""
        try:
            return 200, self._text(method, path, None, "application/json")
        except ApiError as error:
            return error.status, error.text

    def _text(self, method: str, path: str, body: object, content_type: str) -> str:
        data = None if body is None else json.dumps(body)
        headers = self._headers | {"Content-Type": content_type}
        with closing(self._connect()) as connection:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read().decode()
            if response.status >= 400:
                raise ApiError(response.status, text, response.headers)
            return text

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
    ) -> JSONObject:
        """Return the answer's object; raise ApiError."""
        answer: JSONObject = json.loads(self._text(method, path, body, content_type))
        return answer

    def get(self, path: str) -> JSONObject:
        return self.request("GET", path)

    def create(self, resource: JSONObject) -> JSONObject:
        return self.request("POST", collection(resource), resource)

    def create_all(self, resources: Sequence[JSONObject]) -> None:
        """Create many objects: some connections side by side, kept open."""
        self._send_all([("POST", collection(each), each) for each in resources])

    def patch_all(self, patches: Sequence[tuple[str, JSONObject]]) -> None:
        """Change many objects, each by its path, as `create_all` creates them."""
        self._send_all([("PATCH", path, changes) for path, changes in patches])

    def delete_all(self, paths: Sequence[str], *, grace_s: int = 0) -> None:
        """Delete many objects, each by its path, as `create_all` creates them."""
        self._send_all([("DELETE", path, {"gracePeriodSeconds": grace_s}) for path in paths])

    def _send_all(self, requests: Sequence[tuple[str, str, JSONObject]]) -> None:
        shares = [requests[start::_CONNECTIONS] for start in range(_CONNECTIONS)]
        with ThreadPoolExecutor(_CONNECTIONS) as threads:
            for done in [threads.submit(self._send_share, share) for share in shares]:
                done.result()

    def _send_share(self, requests: Sequence[tuple[str, str, JSONObject]]) -> None:
        with closing(self._connect()) as connection:
            for method, path, body in requests:
                content_type = MERGE if method == "PATCH" else "application/json"
                headers = self._headers | {"Content-Type": content_type}
                connection.request(method, path, json.dumps(body), headers)
                response = connection.getresponse()
                text = response.read().decode()
                if response.status >= 400:
                    raise ApiError(response.status, text, response.headers)

    def apply(self, resource: JSONObject) -> JSONObject:
        """Create the object, or make what is there equal to it (server-side apply, strict)."""
        query = urlencode({"fieldManager": "tests", "force": "true", "fieldValidation": "Strict"})
        return self.request("PATCH", f"{path_of(resource)}?{query}", resource, content_type=APPLY)

    def patch(self, path: str, changes: JSONObject) -> JSONObject:
        return self.request("PATCH", path, changes, content_type=MERGE)

    def delete(self, path: str) -> None:
        """Delete at once: no kubelet is there to confirm a pod's end."""
        self.request("DELETE", path, {"gracePeriodSeconds": 0})

    def watch(self, path: str, **query: str) -> Generator[JSONObject, None, None]:
        """Yield the events of a collection until the server ends it or the generator is closed."""
        with closing(self._connect()) as connection:
            question = urlencode({"watch": "true"} | query)
            connection.request("GET", f"{path}?{question}", headers=self._headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise ApiError(response.status, response.read().decode(), response.headers)
            for line in response:
                yield json.loads(line)


def collection(resource: JSONObject) -> str:
    """Return the path of the collection that an object belongs to."""
    version, kind = resource["apiVersion"], resource["kind"]
    namespace = resource["metadata"].get("namespace")
    plural = _PLURALS.get(kind, f"{kind.lower()}s")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def path_of(resource: JSONObject) -> str:
    return f"{collection(resource)}/{resource['metadata']['name']}"
