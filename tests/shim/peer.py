"""The daemon's side of a conversation with the shim, scripted by a test, and the shim's
surroundings."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from metaplugin.wire.frames import (
    HEADER,
    Answer,
    Answered,
    Exec,
    Executed,
    Frame,
    Hello,
    Request,
    decode_header,
    encode_environment,
)

_F = TypeVar("_F", bound=Frame)


class Conversation:
    """One connection of a shim; every method raises OSError or EOFError when the shim is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.descriptors: list[int] = []

    def send(self, frame: Frame) -> None:
        self.connection.sendall(frame.encode())

    def receive(self, expected: type[_F]) -> _F:
        kind, length = decode_header(self._exactly(HEADER.size))
        frame = kind.decode(self._exactly(length))
        assert isinstance(frame, expected), frame
        return frame

    def open(self) -> Request:
        """Greet, and return the shim's request."""
        self.send(Hello(1, 1))
        return self.receive(Request)

    def execute(self, plugin: str, *, stdin: bytes = b"{}", ms: int = 5000, **env: str) -> Executed:
        environment = encode_environment({"CNI_COMMAND": "ADD", **env})
        self.send(Exec(ms, plugin.encode(), environment, stdin))
        return self.receive(Executed)

    def answer(self, exit_code: int = 0, stdout: bytes = b"") -> Answered:
        self.send(Answer(exit_code, stdout))
        return self.receive(Answered)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece, descriptors, _, _ = socket.recv_fds(self.connection, size - len(data), 1)
            self.descriptors += descriptors
            if not piece:
                raise EOFError
            data += piece
        return data

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.connection.close()


class Surroundings:
    """A folder with the shim, its configuration and its plugins; removed by `remove`."""

    def __init__(self, root: Path, binary: Path) -> None:
        self.root = root
        for name in ("bin", "run", "plugins"):
            (root / name).mkdir(mode=0o700)
        self.shim = root / "bin" / "metaplugin"
        shutil.copy(binary, self.shim)
        self.configure()

    def configure(self, text: str = "", **keys: object) -> None:
        values: dict[str, object] = {
            "run_dir": self.root / "run",
            "state_dir": self.root / "state",
            "device_info_dir": self.root / "devinfo",
            "add_wait_ms": 700,
            "del_wait_ms": 300,
            "status_wait_ms": 300,
            "lock_wait_ms": 300,
            "silence_ms": 600,
        }
        lines = [f"{key}={value}\n" for key, value in (values | keys).items()]
        path = self.root / "bin" / "metaplugin.conf"
        path.write_text("".join(lines) + text)
        path.chmod(0o600)

    def script(self, name: str, text: str) -> Path:
        path = self.root / "plugins" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def call(
        self, command: str = "STATUS", stdin: bytes = b'{"cniVersion": "1.0.0"}', **extra: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the shim as a runtime would, to its end."""
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_PATH": str(self.root / "plugins"),
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "ASAN_OPTIONS": "detect_leaks=0",
        }
        return subprocess.run(
            [self.shim],
            check=False,
            input=stdin,
            capture_output=True,
            timeout=30,
            env=environment | extra,
        )

    @contextmanager
    def daemon(self, *scripts: Callable[[Conversation], None]) -> Iterator[None]:
        """Serve one connection after the other by the scripts; raise what a script raised."""
        failures: list[BaseException] = []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.root / "run" / "daemon.sock"))
            listener.listen()
            listener.settimeout(10)

            def serve() -> None:
                for script in scripts:
                    try:
                        connection, _ = listener.accept()
                        connection.settimeout(10)
                        conversation = Conversation(connection)
                        script(conversation)
                        conversation.close()
                    except BaseException as exc:  # noqa: BLE001 - told to the test's own thread
                        failures.append(exc)

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                yield
            finally:
                thread.join(20)
                (self.root / "run" / "daemon.sock").unlink()
        if failures:
            raise failures[0]
