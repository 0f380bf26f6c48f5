"""What others use of Multus's daemon: `/healthz`, and `/delegate`, by which the dynamic networks
controller plugs and unplugs interfaces of running pods.

The daemon executes no plugin: it starts the shim as a runtime would, which takes the sandbox's lock
and asks the daemon back. So there is one engine, and nothing that only hot-plug can do wrong.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metaplugin.attachments.hot_plug import hot_plug_request
from metaplugin.cni.environment import Command
from metaplugin.cni.errors import CNIError, DecodingFailure
from metaplugin.cni.raw import dump, load_object
from metaplugin.daemon.config import DelegateApiConfig
from metaplugin.daemon.http import HttpRequest, HttpResponse, HttpServer
from metaplugin.daemon.server import bind_private

log = logging.getLogger(__name__)

SHIM_S = 300  # a request's own time, its lock's, and some: the shim ends by itself before
MAX_SHIMS = 8
_JSON = "application/json"
_COMMANDS = (Command.ADD, Command.DEL, Command.CHECK)
_PASSED = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS")


class DelegateRequest(BaseModel):
    """The envelope as Multus's Go types write it; `config` is base64."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    env: dict[str, str]
    config: str
    attributes: dict[str, Any] | None = Field(default=None, alias="interfaceAttributes")


@dataclass(frozen=True, slots=True)
class _Ended:
    code: int
    stdout: bytes
    stderr: bytes


class DelegateApi:
    """The second socket. Requests of one sandbox wait for each other by its lock."""

    def __init__(self, config: DelegateApiConfig) -> None:
        self._config = config
        self._http = HttpServer(respond=self.respond)
        self._shims = asyncio.Semaphore(MAX_SHIMS)
        self._identity = 0

    async def start(self) -> None:
        """Listen; raise OSError where the socket can't be made or its folder isn't root's alone."""
        await self._http.start(_listen(self._config.socket))
        self._identity = self._config.socket.stat().st_ino
        log.info("hot-plug", extra={"socket": str(self._config.socket)})

    async def close(self, limit_s: float) -> None:
        """Remove the socket and wait for what is under way, at most `limit_s`."""
        with contextlib.suppress(FileNotFoundError):
            if self._config.socket.stat().st_ino == self._identity:  # a newer daemon's stays
                self._config.socket.unlink()
        await self._http.close(limit_s)

    async def respond(self, request: HttpRequest) -> HttpResponse:
        if request.path == "/healthz":
            allowed = request.method in {"GET", "POST"}
            return HttpResponse(status=200 if allowed else 405)
        if request.path != "/delegate":
            return HttpResponse(status=404, body=b"there are /healthz and /delegate\n")
        if request.method != "POST":
            return HttpResponse(status=405, body=b"/delegate takes POST\n")
        try:
            return await self._delegate(_parsed(request.body))
        except ValidationError as exc:
            problems = [".".join(map(str, e["loc"])) + f": {e['msg']}" for e in exc.errors()]
            return HttpResponse(status=400, body=("; ".join(problems) + "\n").encode())
        except CNIError as exc:
            return _refusal(exc)

    async def _delegate(self, asked: DelegateRequest) -> HttpResponse:
        if asked.env.get("CNI_COMMAND") not in _COMMANDS:
            return HttpResponse(status=400, body=b"CNI_COMMAND: must be ADD, DEL or CHECK\n")
        stdin = hot_plug_request(_config(asked.config), asked.attributes or {})
        environment = {key: asked.env[key] for key in _PASSED if key in asked.env}
        ended = await self._run_shim(environment, stdin)
        if ended.code or not ended.stdout:
            return _without_result(ended)
        result = load_object(ended.stdout, what="the shim's answer")

        async def undo() -> None:
            log.warning("a hot-plug's result could not be delivered; undoing it")
            await self._run_shim(environment | {"CNI_COMMAND": Command.DEL}, stdin)

        body = dump({"Result": result})
        return HttpResponse(status=200, body=body, content_type=_JSON, undo=undo)

    async def _run_shim(self, environment: Mapping[str, str], stdin: bytes) -> _Ended:
        """Run the shim to its end; one that doesn't end is killed, and its record then says what
        the pod's DEL has to undo."""
        command = self._config.shim
        path = self._config.cni_path or str(Path(command[-1]).parent)
        own = {"PATH": os.environ.get("PATH", os.defpath), "CNI_PATH": path}
        async with self._shims:
            try:
                shim = await asyncio.create_subprocess_exec(
                    *command,
                    env={**own, **environment},
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
            except (OSError, ValueError) as exc:
                return _Ended(127, b"", f"delegateApi.shim {command[0]}: {exc}".encode())
            try:
                async with asyncio.timeout(SHIM_S):
                    stdout, stderr = await shim.communicate(stdin)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    shim.kill()
                raise
        return _Ended(shim.returncode or 0, stdout, stderr)


def _parsed(body: bytes) -> DelegateRequest:
    return DelegateRequest.model_validate(load_object(body, what="the request"))


def _config(text: str) -> dict[str, Any]:
    try:
        return load_object(base64.b64decode(text, validate=True), what="config")
    except (binascii.Error, ValueError) as exc:
        raise DecodingFailure("config: must be base64") from exc


def _without_result(ended: _Ended) -> HttpResponse:
    """Return the answer to a DEL or CHECK, or to what failed: the shim's own error object."""
    if not ended.code:
        return HttpResponse(status=200)
    if ended.stdout:
        return HttpResponse(status=400, body=ended.stdout, content_type=_JSON)
    return HttpResponse(status=500, body=ended.stderr[-1000:] or b"the shim failed\n")


def _refusal(error: CNIError) -> HttpResponse:
    return HttpResponse(status=400, body=dump(error.to_json("1.0.0")), content_type=_JSON)


def _listen(path: Path) -> socket.socket:
    """Return a listening socket at `path`; raise OSError where others can reach its folder, which
    may be somebody else's to change."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.parent.stat()
    if found.st_uid != 0 or found.st_mode & 0o077:
        raise PermissionError(f"delegateApi.socket: {path.parent} must be root's, with mode 0700")
    return bind_private(path)
