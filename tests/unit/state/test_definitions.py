"""What is kept of the definitions that pods have used: it has to be there when state.db is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from metaplugin.commands.ports import Name
from metaplugin.npwg.definition import NetworkAttachmentDefinition
from metaplugin.state.database import StateDatabase, StateSnapshot

LAN = ("kube-system", "lan")


def definition(
    config: str = "{}", version: str = "7", name: Name = LAN
) -> NetworkAttachmentDefinition:
    resource = "example.com/nic"
    return NetworkAttachmentDefinition(
        namespace=name[0],
        name=name[1],
        uid="u",
        resource_version=version,
        config=config,
        resource_name=resource,
        annotations={"k8s.v1.cni.cncf.io/resourceName": resource},
    )


async def _with(state: StateDatabase, change: Callable[[StateDatabase], None]) -> None:
    await state.open()
    change(state)
    await state.close()


def learn(folder: Path, change: Callable[[StateDatabase], None]) -> None:
    asyncio.run(_with(StateDatabase(folder / "state.db"), change))


async def _recalled(path: Path, name: Name) -> NetworkAttachmentDefinition | None:
    state = StateSnapshot(path)
    await state.open()
    try:
        return await state.definition(*name)
    finally:
        await state.close()


def recalled(folder: Path, name: Name = LAN) -> NetworkAttachmentDefinition | None:
    return asyncio.run(_recalled(folder / "state.db", name))


def lose_database(folder: Path) -> None:
    for path in folder.glob("state.db*"):
        path.unlink()


def files(folder: Path) -> list[str]:
    kept = folder / "definitions"
    return sorted(str(path.relative_to(kept)) for path in kept.rglob("*"))


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A state folder whose daemon knows of two definitions; pods have used one."""
    other = definition(name=("kube-system", "other"))

    def change(state: StateDatabase) -> None:
        state.learn_all_definitions({LAN: definition(), ("kube-system", "other"): other})
        state.learn_use(LAN, definition())

    learn(tmp_path, change)
    return tmp_path


def test_what_pods_have_used_outlives_the_database(used: Path) -> None:
    """Issue 7: exactly as it was, the resource that it hands out included; and nothing else."""
    lose_database(used)
    assert recalled(used) == definition()
    assert recalled(used, ("kube-system", "other")) is None
    assert (used / "definitions/kube-system/lan").stat().st_mode & 0o777 == 0o600


def test_it_follows_what_the_cluster_says(used: Path) -> None:
    changed = definition('{"type": "new"}', "8")
    learn(used, lambda state: state.learn_definitions({LAN: changed}))
    lose_database(used)
    assert recalled(used) == changed
    learn(used, lambda state: state.learn_definitions({LAN: None}))
    assert recalled(used) is None
    assert files(used) == []


def test_only_what_is_used_is_followed(used: Path) -> None:
    other = definition(version="8", name=("kube-system", "other"))
    learn(used, lambda state: state.learn_definitions({("kube-system", "other"): other}))
    assert files(used) == ["kube-system", "kube-system/lan"]


def test_what_a_pod_asked_for_in_vain_is_dropped(used: Path) -> None:
    learn(used, lambda state: state.learn_use(LAN, None))
    assert files(used) == []


@pytest.mark.parametrize("versions", [("9", "10"), ("10", "9")])
def test_the_newer_copy_counts(tmp_path: Path, versions: tuple[str, str]) -> None:
    """An older release follows state.db alone, and a process without a daemon the folder alone."""
    in_database, in_folder = (definition(f'"{version}"', version) for version in versions)
    learn(tmp_path, lambda state: state.learn_use(LAN, in_folder))
    (tmp_path / "definitions").rename(tmp_path / "aside")
    learn(tmp_path, lambda state: state.learn_definitions({LAN: in_database}))
    (tmp_path / "aside").rename(tmp_path / "definitions")
    found = recalled(tmp_path)
    assert found is not None
    assert found.resource_version == "10"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"metadata": {"name": "another"}}'])
def test_a_damaged_file_is_no_definition_and_is_written_anew(used: Path, content: bytes) -> None:
    (used / "definitions/kube-system/lan").write_bytes(content)
    assert recalled(used) == definition()  # state.db's
    learn(used, lambda state: state.learn_use(LAN, definition()))
    lose_database(used)
    assert recalled(used) == definition()


def test_a_crash_while_writing_costs_nothing(used: Path) -> None:
    (used / "definitions" / ".unfinished").write_bytes(b"{" * 9999)
    changed = definition('{"type": "new"}', "8")
    learn(used, lambda state: state.learn_use(LAN, changed))
    lose_database(used)
    assert recalled(used) == changed
    assert files(used) == ["kube-system", "kube-system/lan"]


@pytest.mark.parametrize("link", [".unfinished", "kube-system", ""])
def test_no_link_is_followed(tmp_path: Path, link: str) -> None:
    """A daemon taken over may make links in the state folder; whoever writes here without a daemon
    is the host's root."""
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = state / "definitions" / link
    place.parent.mkdir(parents=True)
    target = elsewhere / "profile" if link == ".unfinished" else elsewhere
    if target != elsewhere:
        target.write_text("root's")
    place.symlink_to(target)
    learn(state, lambda state: state.learn_use(LAN, definition()))
    assert [path.read_text() for path in elsewhere.rglob("*")] in ([], ["root's"])


@pytest.mark.parametrize("name", [("..", "state.db"), ("a/..", "b"), ("", ".."), ("a", "b\0")])
def test_no_name_leads_out_of_the_folder(used: Path, name: Name) -> None:
    """An operator's clusterNetwork may be anything."""
    learn(used, lambda state: state.learn_use(name, None))
    assert recalled(used, name) is None
    assert (used / "state.db").exists()


def test_names_as_long_as_kubernetes_has_them_fit(tmp_path: Path) -> None:
    name = ("n" * 63, "d" * 253)
    learn(tmp_path, lambda state: state.learn_use(name, definition(name=name)))
    lose_database(tmp_path)
    assert recalled(tmp_path, name) == definition(name=name)


def test_a_process_without_a_daemon_keeps_what_its_pod_uses(tmp_path: Path) -> None:
    snapshot = StateSnapshot(tmp_path / "state" / "state.db")
    asyncio.run(_with(snapshot, lambda state: state.learn_use(LAN, definition())))
    assert recalled(tmp_path / "state") == definition()
    assert not (tmp_path / "state" / "state.db").exists()


def test_a_manifest_that_was_put_there_by_hand_is_taken(tmp_path: Path) -> None:
    """As deploy/README.md has it, for the first start of a control plane."""
    path = tmp_path / "definitions/kube-system/lan"
    path.parent.mkdir(parents=True)
    manifest = {"metadata": {"namespace": LAN[0], "name": LAN[1]}, "spec": {"config": "{}"}}
    path.write_text(json.dumps(manifest))
    found = recalled(tmp_path)
    assert found is not None
    assert found.config == "{}"


def test_a_folder_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "definitions").write_text("no folder")
    learn(tmp_path, lambda state: state.learn_use(LAN, definition()))
    assert recalled(tmp_path) is None


def test_the_names_of_what_is_used_are_known(used: Path) -> None:
    (used / "definitions" / ".unfinished").write_bytes(b"")

    async def names() -> list[Name]:
        state = StateDatabase(used / "state.db")
        await state.open()
        try:
            return list(await state.used_definitions())
        finally:
            await state.close()

    assert asyncio.run(names()) == [LAN]
