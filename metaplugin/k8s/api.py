"""The API server over the official client: its configuration, credentials and transport, raw JSON.

Calls block, so they belong into threads; one instance serves many. The client's own types and
exceptions stay in here.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client
from kubernetes import config as credentials

from metaplugin.cni.raw import JSONObject

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2  # a server in the cluster answers in milliseconds, or its packets are dropped
CREDENTIALS_S = 2  # a program that prints them may wait for something above the node; nobody else
LINE_LIMIT = 16 << 20  # etcd holds objects of 1.5 MiB at most
POOL_SIZE = 16
LONGEST_RETRY_AFTER_S = 60  # a server that asks for more is looked at again all the same
_MISSHAPEN = (ValueError, TypeError, LookupError, AttributeError)  # as the client fails over a file
# A peer that is lost in silence breaks its connections within 7 s, idle watches too: the kernel
# asks it after 5 s without a packet, then every second, and gives up after 6.
_SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 6000),  # ms
]
_MERGE_PATCH = "application/merge-patch+json"

Query = Sequence[tuple[str, str]]


class ApiAway(Exception):
    """No usable answer: no connection, no TLS, no time left."""


class ApiGarbled(ApiAway):
    """What answers isn't an API server, or something on the way changes its words."""


class ApiRefused(Exception):
    """The API server's answer is an error: HTTP `status`, its message, seconds to stay away;
    `budget` where a PodDisruptionBudget says so."""

    def __init__(
        self,
        status: int,
        message: str,
        retry_after: float | None = None,
        *,
        budget: bool = False,
    ) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.retry_after = retry_after
        self.budget = budget

    @property
    def is_overload(self) -> bool:
        """Whether the server can't serve now, rather than won't serve this."""
        return (self.status == 429 and not self.budget) or self.status >= 500


class ApiUnconfigured(Exception):
    """There are no usable credentials; the text says where they were looked for."""


class Api:
    """A connection pool to one API server; `kubeconfig` None means the pod's service account."""

    def __init__(self, kubeconfig: Path | None) -> None:
        """Read the credentials; raise ApiUnconfigured. Until a program that takes long has printed
        them the server is away."""
        self._kubeconfig = kubeconfig
        self._client: client.ApiClient | None = None
        reading: Future[client.ApiClient] = Future()
        threading.Thread(
            target=self._read_credentials, args=(reading,), name="credentials", daemon=True
        ).start()
        try:
            self._client = reading.result(CREDENTIALS_S)
        except TimeoutError:
            log.warning("credentials take long", extra={"kubeconfig": str(kubeconfig)})

    def call(
        self, method: str, path: str, *, timeout_s: float, query: Query = (), body: Any = None
    ) -> JSONObject:
        """Return the object that the server answers with; raise ApiAway or ApiRefused."""
        timeout = (min(CONNECT_TIMEOUT_S, timeout_s), timeout_s)
        response = self._open(method, path, query, body, timeout)
        try:
            return _object(response.data)
        except urllib3.exceptions.HTTPError as exc:
            raise ApiAway(f"{method} {path}: {exc}") from exc
        finally:
            response.release_conn()

    @contextmanager
    def watch(self, path: str, *, query: Query, idle_s: float) -> Iterator[Iterator[JSONObject]]:
        """Open a watch and give its events, until it ends or is cut, or nothing came for `idle_s`;
        raise ApiAway or ApiRefused when it can't be opened, ApiGarbled for what is no event."""
        timeout = (CONNECT_TIMEOUT_S, idle_s)
        response = self._open("GET", path, [*query, ("watch", "1")], None, timeout)
        try:
            yield _events(response)
        finally:
            response.close()

    def renew_credentials(self) -> None:
        """Read the credentials again: a token may have been rotated; the old ones stay if that
        fails."""
        try:
            self._client = self._configured()
        except ApiUnconfigured as exc:
            log.error("credentials can't be read", extra={"error": str(exc)})

    def reconnect(self) -> None:
        """Make new connections from now on: old ones may lead to a server that is no more."""
        if self._client is not None:
            self._client.rest_client = client.rest.RESTClientObject(self._client.configuration)

    def _read_credentials(self, reading: Future[client.ApiClient]) -> None:
        """Settle `reading`; what nobody waits for any more is used from then on all the same."""
        try:
            self._client = self._configured()
            reading.set_result(self._client)
        except Exception as exc:  # noqa: BLE001 - it is who waits that it is told
            reading.set_exception(exc)

    def _configured(self) -> client.ApiClient:
        configuration = client.Configuration()
        try:
            if self._kubeconfig is None:
                credentials.load_incluster_config(client_configuration=configuration)
            else:
                credentials.load_kube_config(
                    str(self._kubeconfig), client_configuration=configuration
                )
        except (credentials.ConfigException, yaml.YAMLError, *_MISSHAPEN, OSError) as exc:
            where = self._kubeconfig or "the pod's service account"
            raise ApiUnconfigured(f"{where}: {exc}") from exc
        configuration.retries = False  # whoever calls knows what a failure means
        configuration.connection_pool_maxsize = POOL_SIZE
        configuration.socket_options = _SOCKET_OPTIONS
        return client.ApiClient(configuration)

    def _open(
        self, method: str, path: str, query: Query, body: Any, timeout: tuple[float, float]
    ) -> urllib3.HTTPResponse:
        """Return a response whose status is a success, its body unread."""
        response = self._request(method, path, query, body, timeout)
        if response.status == 401:  # the token has been rotated
            response.drain_conn()
            self.renew_credentials()
            response = self._request(method, path, query, body, timeout)
        if response.status >= 300:
            raise _refusal(response)
        return response

    def _request(
        self, method: str, path: str, query: Query, body: Any, timeout: tuple[float, float]
    ) -> urllib3.HTTPResponse:
        if self._client is None:
            raise ApiAway(f"{method} {path}: the kubeconfig's program has not printed credentials")
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = _MERGE_PATCH if method == "PATCH" else "application/json"
        try:
            request = self._client.param_serialize(
                method,
                path,
                query_params=list(query),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response: urllib3.HTTPResponse = self._client.call_api(
                *request[:4], _request_timeout=timeout
            ).response
        except client.ApiException as exc:  # before there is an answer: TLS
            # Rotated certificates; or a temporary file that the client wrote them to is gone.
            self.renew_credentials()
            raise ApiAway(f"{method} {path}: {exc}") from exc
        except credentials.ConfigException as exc:  # a token that is read again each minute
            raise ApiAway(f"{method} {path}: credentials can't be read: {exc}") from exc
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as exc:
            raise ApiAway(f"{method} {path}: {exc}") from exc
        return response


def _refusal(response: urllib3.HTTPResponse) -> ApiRefused:
    try:
        said = _object(response.data)
    except (ApiAway, urllib3.exceptions.HTTPError):
        said = {}
    message = str(said.get("message") or response.reason)
    after = response.headers.get("Retry-After", "")
    seconds = min(float(after), LONGEST_RETRY_AFTER_S) if re.fullmatch(r"\d{1,9}", after) else None
    return ApiRefused(response.status, message, seconds, budget=_is_budgets(said))


def _is_budgets(status: JSONObject) -> bool:
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return any(
        isinstance(cause, dict) and cause.get("reason") == "DisruptionBudget"
        for cause in causes or ()
    )


def _events(response: urllib3.HTTPResponse) -> Iterator[JSONObject]:
    """Yield the objects of a stream of lines as they come; half a line at its end is nothing."""
    rest = b""
    for chunk in _chunks(response):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_LIMIT:
            raise ApiGarbled(f"the watch sent a line of over {LINE_LIMIT >> 20} MiB")
        for line in lines:
            if line:
                yield _object(line)


def _chunks(response: urllib3.HTTPResponse) -> Iterator[bytes]:
    try:
        yield from response.stream(1 << 16)
    except (urllib3.exceptions.HTTPError, OSError) as exc:
        log.debug("watch cut", extra={"error": str(exc)})


def _object(data: bytes) -> JSONObject:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ApiGarbled(f"the server's answer is no JSON: {exc}") from exc
    if not isinstance(parsed, dict):
        raise ApiGarbled("the server's answer is no object")
    return parsed
