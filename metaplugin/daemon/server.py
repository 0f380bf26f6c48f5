"""The unix socket on which shims ask: one connection a request, answered by the command's flow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from metaplugin.attachments.record import HOT_PLUG_NETWORK
from metaplugin.attachments.runtime_conf import Sandbox, pod_reference
from metaplugin.cni.environment import CmdArgs, Command, parse_environment
from metaplugin.cni.errors import CNIError, DelegateError
from metaplugin.cni.raw import JSONObject, dump, load_object
from metaplugin.commands.add import add
from metaplugin.commands.check import check
from metaplugin.commands.delete import delete
from metaplugin.commands.gc import collect_garbage
from metaplugin.commands.hot_plug import plug, unplug
from metaplugin.commands.ports import Caller, CallerGone, Node, Request
from metaplugin.commands.reap import reap
from metaplugin.commands.status import status
from metaplugin.commands.versions import PluginVersions
from metaplugin.daemon.logs import bound
from metaplugin.daemon.observation import Observer, Unobserved
from metaplugin.daemon.surroundings import RuntimePlace
from metaplugin.netlink.sandbox import SandboxSocket
from metaplugin.runner.session import ShimSession, open_session
from metaplugin.wire.frames import NetnsState, ProtocolError, decode_environment

log = logging.getLogger(__name__)

INTERNAL_ERROR = 102  # ours: a defect of metaplugin, with its trace in the daemon's log
LEND_S = 60
BACKLOG = 1024

Flow = Callable[[Request, Caller, Node], Awaitable[JSONObject | None]]
FLOWS: Mapping[Command, Flow] = {
    Command.ADD: add,
    Command.DEL: delete,
    Command.CHECK: check,
    Command.GC: collect_garbage,
    Command.STATUS: status,
}
HOT_PLUG_FLOWS: Mapping[Command, Flow] = {**FLOWS, Command.ADD: plug, Command.DEL: unplug}


@dataclass(slots=True)
class ReapSchedule:
    """When left-over records are looked for again: the first request of a daemon's life is the
    first."""

    interval_s: float
    last: float = float("-inf")

    def take_turn(self) -> bool:
        """Say whether it is time, and if so begin the next interval."""
        now = time.monotonic()
        due = now - self.last >= self.interval_s
        self.last = now if due else self.last
        return due


@dataclass(slots=True, kw_only=True)
class Shims:
    """Answers shims, each by its command's flow."""

    node: Node
    netlink: Executor
    reaping: ReapSchedule
    observer: Observer = field(default_factory=Unobserved)
    versions: PluginVersions = field(default_factory=PluginVersions)
    place: RuntimePlace | None = None  # where hot-plug is offered

    async def serve(self, connection: socket.socket) -> None:
        """Serve one shim to its end, and close the connection; never raises."""
        try:
            connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
            pid, uid = _peer(connection)
            if uid != 0:
                log.error("refused a caller that is not root")
                connection.close()
                return
            session, descriptor = await open_session(connection)
        except (OSError, EOFError, ProtocolError, TimeoutError) as exc:
            log.info("connection without a request", extra={"error": repr(exc)})
            connection.close()
            return
        network = None if descriptor is None else SandboxSocket(descriptor, self.netlink)
        try:
            hot_plug = _is_hot_plug(session.request.stdin)
            if self.place and not hot_plug and not _is_check(session):
                self.place.note(pid)
            await self._serve_session(session, network, pid if hot_plug else None)
        except CallerGone as exc:
            log.warning("caller gone", extra={"error": str(exc)})
        except CNIError as exc:
            log.error("clean-up failed", extra={"code": exc.code, "error": exc.msg})
        except Exception:
            log.exception("defect")
        finally:
            if network is not None:
                network.close()
            session.close()

    async def _serve_session(
        self, session: ShimSession, network: SandboxSocket | None, plugging: int | None
    ) -> None:
        """Serve a runtime's shim, or the one with the pid `plugging`, which we started."""
        environment = decode_environment(session.request.environment)
        names = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME")
        command, container_id, ifname = (environment.get(name, "") for name in names)
        caller = self.observer.caller(
            Caller(
                plugins=session,
                records=session,
                locks=session,
                network=network,
                versions=self.versions,
            )
        )
        with bound(command=command, container_id=container_id, interface=ifname):
            if notes := session.request.notes:
                log.warning("the shim notes", extra={"notes": notes.decode(errors="replace")})
            async with session.kept_alive():
                reaping = plugging is None and self.reaping.take_turn()
                if reaping:
                    await session.lend(LEND_S)
                delivered = await self._answer(session, caller, environment, plugging)
                if network is not None:
                    network.close()  # it keeps the pod's namespace, and reaping may take long
                if reaping and delivered:
                    await self._reap(caller)

    async def _answer(
        self,
        session: ShimSession,
        caller: Caller,
        environment: Mapping[str, str],
        plugging: int | None,
    ) -> bool:
        """Answer by the command's flow; return whether that arrived: an ADD is undone otherwise."""
        try:
            with self.observer.request(environment.get("CNI_COMMAND", ""), caller):
                request = _request(session, parse_environment(environment))
                if plugging is not None and self.place:
                    self.place.require(plugging)
                flows = FLOWS if plugging is None else HOT_PLUG_FLOWS
                result = await self._run(flows[request.args.command], request, caller)
        except CNIError as exc:
            return await session.answer(1, _error(exc, session.request.stdin))
        delivered = await session.answer(0, b"" if result is None else dump(result) + b"\n")
        if not delivered and request.args.command is Command.ADD:
            log.warning("the result could not be delivered; undoing the ADD")
            self.observer.undelivered()
            await delete(request, caller, self.node)
        return delivered

    async def _run(self, flow: Flow, request: Request, caller: Caller) -> JSONObject | None:
        """Run the command's flow; raise CNIError whose message names the pod, a defect's
        included."""
        pod = pod_reference(request.args.args)
        started = time.monotonic()
        with bound(pod=str(pod or "")):
            try:
                result = await flow(request, caller, self.node)
            except CNIError as exc:
                log.error(
                    "failed", extra={"code": exc.code, "error": exc.msg, "details": exc.details}
                )
                if pod:
                    self.node.events.failed(request.args.command, pod, exc)
                raise _naming_pod(exc, request) from exc
            except CallerGone:
                raise
            except Exception as exc:
                log.exception("defect")
                raise DelegateError(
                    f"internal error: {type(exc).__name__}",
                    code=INTERNAL_ERROR,
                    details="the daemon's log has the trace",
                ) from exc
            log.info("done", extra={"milliseconds": round((time.monotonic() - started) * 1000, 1)})
            return result

    async def _reap(self, caller: Caller) -> None:
        with bound(command="reap"):
            if released := await reap(caller, self.node):
                log.info("released left-over records", extra={"records": released})
                self.observer.reaped(released)


@dataclass(slots=True, kw_only=True)
class Server:
    """Accepts shims until it is closed, then lets what runs finish."""

    path: Path
    shims: Shims
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    draining: bool = False
    _identity: int = 0  # of the socket's file
    _tasks: dict[asyncio.Task[None], float] = field(default_factory=dict)  # began when

    def oldest_s(self) -> float:
        """Return for how long the oldest request has been under way, 0 where there is none."""
        return max((time.monotonic() - began for began in self._tasks.values()), default=0.0)

    def socket_problem(self) -> str:
        """Return why shims can't reach this daemon, "" when they can."""
        try:
            ours = self.path.stat().st_ino == self._identity
        except OSError as exc:
            return f"{self.path}: {exc.strerror}"
        return "" if ours else f"{self.path} is another daemon's"

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then accept nothing more. Raise OSError if the socket can't be
        made."""
        listener = _listen(self.path)
        self._identity = self.path.stat().st_ino
        self.listening.set()
        accepting = asyncio.create_task(self._accept(listener))
        try:
            await stop.wait()
        finally:
            self.draining = True
            accepting.cancel()
            with contextlib.suppress(FileNotFoundError):
                # a newer daemon's socket is not ours to remove
                if self.path.stat().st_ino == self._identity:
                    self.path.unlink()
            listener.close()

    async def drain(self, limit_s: float) -> None:
        """Wait for the requests that run, at most `limit_s`."""
        if self._tasks:
            log.info("draining", extra={"requests": len(self._tasks)})
            await asyncio.wait(self._tasks, timeout=limit_s)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as exc:  # no descriptors left, or the peer gave up: the next one may do
                log.error("accept failed", extra={"error": str(exc)})
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self.shims.serve(connection))
            self._tasks[task] = time.monotonic()
            task.add_done_callback(self._tasks.pop)


def _listen(path: Path) -> socket.socket:
    """Return a listening socket at `path`, in a folder that is root's alone; a stale one is
    replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(path.parent, 0o700)
    return bind_private(path)


def bind_private(path: Path) -> socket.socket:
    """Return a socket for root alone that listens at `path`, in the place of what is there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener.bind(str(temporary))
    os.chmod(temporary, 0o600)
    listener.listen(BACKLOG)
    os.replace(temporary, path)
    return listener


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    pid, uid, _ = struct.unpack("3i", credentials)
    return int(pid), int(uid)


def _request(session: ShimSession, args: CmdArgs) -> Request:
    frame = session.request
    present = frame.netns_state == NetnsState.VALID
    sandbox = Sandbox(
        container_id=args.container_id,
        netns=args.netns if present else "",
        device=frame.netns_device,
        inode=frame.netns_inode,
    )
    # so Linux marks a program that was replaced while it runs: the runtime's upgrade
    runtime = frame.runtime.decode(errors="replace").removesuffix(" (deleted)")
    return Request(args=args, stdin=frame.stdin, sandbox=sandbox, runtime=runtime)


def _is_check(session: ShimSession) -> bool:
    """Say whether it may be an operator who asks, by `metaplugin check`, from wherever that is."""
    environment = decode_environment(session.request.environment)
    return environment.get("CNI_COMMAND") == Command.CHECK


def _is_hot_plug(stdin: bytes) -> bool:
    """Say whether the configuration's own name says so: it may hold the same word anywhere, as in
    a pod's annotations, which users write."""
    if HOT_PLUG_NETWORK.encode() not in stdin:  # nearly always, and cheap
        return False
    try:
        return load_object(stdin, what="configuration").get("name") == HOT_PLUG_NETWORK
    except CNIError:
        return False


def _naming_pod(error: CNIError, request: Request) -> CNIError:
    """Return the error with the pod's name before its message, code and details kept."""
    pod = pod_reference(request.args.args)
    said = not pod or error.msg.startswith(f"pod {pod} ")
    message = error.msg if said else f"pod {pod}: {error.msg}"
    if request.args.command is not Command.DEL:
        return DelegateError(message, code=error.code, details=error.details)
    return DelegateError(_no_success(message), code=error.code, details=_no_success(error.details))


def _no_success(text: str) -> str:
    """Return the text without the words that containerd takes for a DEL's success, upon which the
    sandbox would leak."""
    for words in ("not found", "no such file or directory"):
        text = text.replace(words, words.replace(" ", "-", 1))
    return text


def _error(error: CNIError, stdin: bytes) -> bytes:
    try:
        version = load_object(stdin, what="configuration").get("cniVersion")
    except CNIError:
        version = None
    return dump(error.to_json(version if isinstance(version, str) and version else "1.1.0")) + b"\n"
