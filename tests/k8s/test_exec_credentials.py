"""Credentials that a program prints, as a kubeconfig's `exec` asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from metaplugin.cni.errors import TryAgainLater
from metaplugin.k8s import api
from metaplugin.k8s.api import Api
from tests.apiserver.server import ApiServer
from tests.k8s.side import Side, pod
from tests.k8s.test_facts import networks, remembering

PROGRAM = """#!/bin/sh
echo "$0" >>{calls}
test -n "$KUBERNETES_EXEC_INFO" || exit 1
while test -e {hang}; do sleep 0.1; done
cat {credential}
"""


class Program:
    """Prints what `says` was told last, and notes each call."""

    def __init__(self, root: Path, server: ApiServer) -> None:
        self._credential, self._calls = root / "credential", root / "calls"
        self._hang = root / "hang"
        program = root / "program"
        files = {"calls": self._calls, "credential": self._credential, "hang": self._hang}
        program.write_text(PROGRAM.format(**files))
        program.chmod(0o755)
        kubeconfig = server.kubeconfig()
        kubeconfig["users"][0]["user"] = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": str(program),
                "interactiveMode": "Never",
            }
        }
        self.kubeconfig = root / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(kubeconfig))

    def says(self, token: str, *, expires_in_s: float = 3600) -> None:
        expiry = datetime.now(UTC) + timedelta(seconds=expires_in_s)
        status = {"token": token, "expirationTimestamp": expiry.strftime("%Y-%m-%dT%H:%M:%SZ")}
        content = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": status,
        }
        self._credential.write_text(json.dumps(content))

    def says_nothing(self) -> None:
        self._credential.unlink()

    def hangs(self) -> None:
        self._hang.touch()

    def ends(self) -> None:
        self._hang.unlink()

    @property
    def calls(self) -> int:
        return len(self._calls.read_text().splitlines())


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(token="one") as server:
        yield server


@pytest.fixture
def program(server: ApiServer, tmp_path: Path) -> Program:
    return Program(tmp_path, server)


def test_a_programs_token_is_used_until_it_is_refused(server: ApiServer, program: Program) -> None:
    """Issue 4: exec credentials; the program is asked again when the server says 401."""
    program.says("one")
    server.put(pod("a", uid="u", networks="lan"))
    with Side(program.kubeconfig) as side:
        side.synced()
        assert networks(side, "a", "u") == ["lan"]
        assert program.calls == 1
        program.says("two")
        server.rotate_token("two")
        server.cut_watches()
        server.put(pod("b", uid="v"))
        side.memory.wait_for(lambda: side.memory.knows_pod("b", "v"))
        assert server.count("list") == 2


def test_a_token_that_has_expired_is_not_tried(server: ApiServer, program: Program) -> None:
    program.says("one", expires_in_s=-1)
    found = Api(program.kubeconfig)
    program.says("two")
    server.rotate_token("two")
    found.call("GET", "/api/v1/pods", timeout_s=10)
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer two"]


def test_a_program_that_fails_is_tried_until_it_does_not(
    server: ApiServer, program: Program
) -> None:
    """A daemon that starts before its program can work isn't lost."""
    with Side(program.kubeconfig) as side:
        with pytest.raises(TryAgainLater, match="401"):
            networks(side, "a", "u")
        program.says("one")
        side.synced()


def test_a_program_that_fails_later_is_tried_too(server: ApiServer, program: Program) -> None:
    program.says("one")
    with Side(program.kubeconfig) as side:
        side.synced()
        program.says_nothing()
        server.rotate_token("two")
        server.cut_watches()
        server.put(pod("b", uid="v"))
        with pytest.raises(TryAgainLater):
            networks(side, "c", "w")
        program.says("two")
        side.memory.wait_for(lambda: side.memory.knows_pod("b", "v"))


def test_a_program_that_hangs_keeps_no_known_pod_from_starting(
    server: ApiServer, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 4, purpose: what it waits for may be what this node's pods are to bring back."""
    monkeypatch.setattr(api, "CREDENTIALS_S", 0.2)
    program.says("one")
    program.hangs()
    with Side(program.kubeconfig, memory=remembering()) as side:
        assert networks(side, "a", "u") == ["remembered"]
        with pytest.raises(TryAgainLater):
            networks(side, "b", "v")
        program.ends()
        side.synced()
