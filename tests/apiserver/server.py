"""A Kubernetes API server in a thread of the test, with faults on demand; README.md shows its use.

Pods, net-attach-defs and events over plain HTTP on loopback. The test's methods are synchronous and
may be called from any thread; what clients get is as a real server's, but for the faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from tests.apiserver.api import Api, scope_of
from tests.apiserver.faults import (
    Answer,
    Cut,
    Fault,
    Garbage,
    Predicate,
    Reset,
    Rule,
    Silence,
    Slow,
    StreamFault,
)
from tests.apiserver.resources import ApiError, JSONObject, Target, resource_of
from tests.apiserver.store import Store, encode
from tests.apiserver.watches import End, Item, Watch, error_of
from tests.apiserver.wire import LINE_LIMIT, Connection, Request
from tests.controlplane.cluster import free_port

BOOKMARK_S = 60.0  # a real server's period
START_S = 10.0  # for the thread to listen, or to end


class ApiServer:
    """Starts with `with`; its objects, requests and port outlive `stop()`."""

    def __init__(self, *, token: str = "", bookmark_s: float = BOOKMARK_S) -> None:
        self.api = Api(token=token)
        self.bookmark_s = bookmark_s
        self.requests: list[Request] = []
        self.port = 0
        self._watches: list[Watch] = []
        self._rules: list[Rule] = []
        # Guards all that is above; notified whenever a client has done something.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._listener: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Connection] = {}

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Listens, on the same port as before."""
        assert self._thread is None, "started already"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="apiserver", daemon=True)
        self._thread.start()
        try:
            self.accept_connections()
        except OSError:
            self.stop()
            raise

    def stop(self) -> None:
        """As if killed: the port is closed and so is every connection. Harmless when stopped."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join(START_S)
        assert not thread.is_alive(), "the server's thread doesn't end"

    def refuse_connections(self) -> None:
        """New connections only: those that are open, watches too, go on."""
        self._in_loop(self._close_listener())

    def accept_connections(self) -> None:
        self._in_loop(self._listen())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kubeconfig(self) -> JSONObject:
        """Leads a client here, with the token of now."""
        user = {"token": self.api.token} if self.api.token else {}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": user}],
        }

    def rotate_token(self, token: str) -> None:
        """From now on the only one; watches that are open go on."""
        self.api.token = token

    # --- objects --------------------------------------------------------------------------------

    def put(self, obj: JSONObject) -> JSONObject:
        """Creates or replaces, and returns it as stored. Another uid: a new object of that name."""
        return self.put_all([obj])[0]

    def put_all(self, objects: Iterable[JSONObject]) -> list[JSONObject]:
        """All at once: each watch gets all its events in one piece."""
        with self._changes() as store:
            return [copy.deepcopy(store.put(obj).obj) for obj in objects]

    def delete(self, kind: str, namespace: str, name: str) -> None:
        with self._changes() as store:
            store.delete((resource_of(kind).name, namespace, name))

    def get(self, kind: str, namespace: str, name: str) -> JSONObject:
        """ApiError (404) when it isn't there."""
        with self._changed:
            found = self.api.store.get(Target(resource_of(kind), namespace, name))
            return copy.deepcopy(found.obj)

    def objects(self, kind: str) -> list[JSONObject]:
        with self._changed:
            return [
                copy.deepcopy(stored.obj)
                for key, stored in sorted(self.api.store.objects.items())
                if key[0] == resource_of(kind).name
            ]

    @property
    def version(self) -> int:
        with self._changed:
            return self.api.store.version

    def compact(self) -> None:
        """Makes all versions before now too old, and all pages of lists that have begun."""
        with self._changed:
            self.api.store.compact()

    # --- what clients did -----------------------------------------------------------------------

    def count(self, verb: str = "", resource: str = "") -> int:
        """Requests with RBAC's words: verb (`list`, `patch`), resource (`pods`, `pods/status`)."""
        with self._changed:
            return sum(
                verb in {"", request.verb} and resource in {"", request.resource}
                for request in self.requests
            )

    def tally(self) -> Counter[str]:
        """Requests by kind: `{"list pods": 1, "watch pods": 3}`."""
        with self._changed:
            return Counter(f"{request.verb} {request.resource}" for request in self.requests)

    def forget_requests(self) -> None:
        with self._changed:
            self.requests.clear()

    def open_watches(self, resource: str = "") -> list[Request]:
        with self._changed:
            return [
                watch.request for watch in self._watches if resource in {"", watch.request.resource}
            ]

    def wait_for(self, condition: Callable[[], Any], *, within: float = 20.0) -> None:
        """Returns when it holds, looking whenever a client has acted; else AssertionError."""
        with self._changed:
            assert self._changed.wait_for(condition, within), dict(self.tally())

    # --- faults ---------------------------------------------------------------------------------

    def inject(self, fault: Fault, fits: Predicate, *, times: int | None = None) -> Rule:
        """For the next `times` that fit, or until the rule's `clear()`; the first fits."""
        rule = Rule(fault, fits, times)
        with self._changed:
            self._rules.append(rule)
        return rule

    def clear_faults(self) -> None:
        with self._changed:
            self._rules.clear()

    def disturb_watches(self, fault: StreamFault, *, resource: str = "") -> None:
        """Brings a fault upon the watches that are open."""
        self._tell_watches(fault, resource)

    def cut_watches(self, *, resource: str = "", cleanly: bool = False) -> None:
        """Ends the open ones, silenced too: in mid-air, or as a server at a watch's timeout."""
        self._tell_watches(End(cleanly), resource)

    def send_bookmarks(self) -> None:
        """To all watches that want them, now instead of after `bookmark_s`."""
        with self._changed:
            for watch in self._watches:
                watch.tell_bookmark(self.api.store.version)

    def _tell_watches(self, item: Item, resource: str) -> None:
        with self._changed:
            for watch in self._watches:
                if resource in {"", watch.request.resource}:
                    watch.tell(item)

    # --- the server's thread --------------------------------------------------------------------

    @contextmanager
    def _changes(self) -> Iterator[Store]:
        """Whatever is written meanwhile, watches are told afterwards."""
        with self._changed:
            store = self.api.store
            before = len(store.log)
            try:
                yield store
            finally:
                for watch in self._watches:
                    watch.tell_changes(store.log[before:])
                self._changed.notify_all()

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._end())
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        if self._listener is None:
            self.port = self.port or free_port()
            self._listener = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, limit=LINE_LIMIT, backlog=256
            )

    async def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _end(self) -> None:
        await self._close_listener()
        cancelled: set[asyncio.Task[None]] = set()
        # asyncio's own tasks end by themselves, perhaps with one more connection.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in self._connections.keys() - cancelled:
                task.cancel()
                cancelled.add(task)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # the transports close their sockets

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        task = self._loop.create_task(self._converse(connection))
        self._connections[task] = connection
        task.add_done_callback(lambda _: self._connections.pop(task).reset())

    async def _converse(self, connection: Connection) -> None:
        """Every request of a connection, in turn."""
        try:
            more = True
            while more and (request := await connection.request()):
                more = await self._serve(request, connection)
            await connection.close()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return  # the client has gone, or talks nonsense

    async def _serve(self, request: Request, connection: Connection) -> bool:
        """True if the connection can take another request."""
        with self._changed:
            self.requests.append(request)
            fault = next((rule.fault for rule in self._rules if rule.take(request)), None)
            self._changed.notify_all()
        if isinstance(fault, Slow):
            await self._late(fault.seconds, connection)
        if isinstance(fault, Reset):
            connection.reset()
            return False
        if isinstance(fault, Answer):
            await _send_error(connection, error_of(fault), fault.text)
            return True
        if request.verb == "watch":
            return await self._watch(request, connection, fault)
        if isinstance(fault, Silence):
            await connection.closed()
            return False
        return await self._answer(request, connection, fault)

    async def _late(self, seconds: float, connection: Connection) -> None:
        """ConnectionError if the client doesn't wait for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await connection.closed()
                raise ConnectionAbortedError

    async def _answer(self, request: Request, connection: Connection, fault: Fault | None) -> bool:
        try:
            with self._changes():
                code, body = self.api.answer(request)
        except ApiError as error:
            await _send_error(connection, error)
            return True
        if isinstance(fault, Garbage):
            body = fault.data
        await connection.send(code, body, only=fault.after if isinstance(fault, Cut) else -1)
        return not isinstance(fault, Cut)

    async def _watch(self, request: Request, connection: Connection, fault: Fault | None) -> bool:
        try:
            watch = self._opened(request, fault)
        except ApiError as error:
            await _send_error(connection, error)
            return True
        try:
            await connection.begin()
            return await watch.stream(
                connection, take=self._take, bookmark=self._bookmark, bookmark_s=self.bookmark_s
            )
        finally:
            with self._changed:
                self._watches.remove(watch)
                self._changed.notify_all()

    def _opened(self, request: Request, fault: Fault | None) -> Watch:
        with self._changed:
            self.api.authenticate(request)
            watch = Watch(request, scope_of(request), self._loop)
            if fault and not isinstance(fault, Slow):
                watch.tell(fault)
            self.api.watch(request, watch)
            self._watches.append(watch)
            self._changed.notify_all()
            return watch

    def _take(self, watch: Watch) -> list[Item]:
        with self._changed:
            items, watch.pending = watch.pending, []
            return items

    def _bookmark(self, watch: Watch) -> None:
        with self._changed:
            watch.tell_bookmark(self.api.store.version)


async def _send_error(connection: Connection, error: ApiError, text: str = "") -> None:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if text:
        headers["Content-Type"] = "text/plain"
    body = text.encode() or encode(error.status())
    await connection.send(error.code, body, headers=headers)
