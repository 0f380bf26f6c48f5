"""A folder of manifests: what is wrong in one file is no other file's problem."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from metaplugin.attachments.runtime_conf import PodReference
from metaplugin.cni.errors import TryAgainLater
from metaplugin.commands.ports import KnownPod, Name
from metaplugin.folder.manifests import ManifestFolder
from metaplugin.npwg.definition import NetworkAttachmentDefinition

GOOD = "apiVersion: v1\nkind: Pod\nmetadata: {name: good, uid: u1}\n"
BROKEN = {
    "kind a list": "kind: [Pod]\nmetadata: {name: x}\n",
    "namespace a list": "kind: Pod\nmetadata: {name: x, namespace: [a]}\n",
    "namespace a number": "kind: Pod\nmetadata: {name: x, namespace: 5}\n",
    "name missing": "kind: Pod\nmetadata: {}\n",
    "no metadata": "kind: Pod\n",
    "items a number": "kind: List\nitems: 5\n",
    "items of lists": "kind: List\nitems: [[1]]\n",
    "a list of itself": "&a\nkind: List\nitems: [*a]\n",
    "no object": "- 1\n",
    "no yaml": "a: [\n",
    "tab": "a:\n\t- b\n",
    "not utf-8": "\udcff",
    "a tag that makes objects": "!!python/object/apply:os.getcwd []\n",
}


class Unlearning:
    """The port Learner of one who keeps nothing."""

    def learn_pods(self, pods: Mapping[Name, KnownPod | None]) -> None: ...

    def learn_definitions(
        self, definitions: Mapping[Name, NetworkAttachmentDefinition | None]
    ) -> None: ...

    def learn_all_pods(self, pods: Mapping[Name, KnownPod]) -> None: ...

    def learn_all_definitions(
        self, definitions: Mapping[Name, NetworkAttachmentDefinition]
    ) -> None: ...

    def learn_use(self, name: Name, definition: NetworkAttachmentDefinition | None) -> None: ...

    async def used_definitions(self) -> Sequence[Name]:
        return ()


def pod(folder: Path, name: str) -> KnownPod | None:
    with ThreadPoolExecutor(1) as disk:
        reference = PodReference(namespace="default", name=name)
        return asyncio.run(ManifestFolder(folder, disk, Unlearning()).pod(reference))


def is_an_object_of_another_kind(text: str) -> bool:
    return text.startswith("kind: [")


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_matters_to_no_other(tmp_path: Path, text: str) -> None:
    """ROB-5: what isn't found may be in it, so that is to be asked for again later."""
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_bytes(text.encode(errors="surrogateescape"))
    assert pod(tmp_path, "good") == KnownPod(uid="u1", annotations={})
    if is_an_object_of_another_kind(text):
        assert pod(tmp_path, "other") is None
    else:
        with pytest.raises(TryAgainLater, match=r"bad\.yaml"):
            pod(tmp_path, "other")


def test_a_link_that_leads_nowhere_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").symlink_to("/nowhere")
    (tmp_path / "folder.yaml").mkdir()
    assert pod(tmp_path, "good") is not None
    assert pod(tmp_path, "other") is None


def test_a_folder_that_is_away_is_no_empty_cluster(tmp_path: Path) -> None:
    """MULTUS-30."""
    with pytest.raises(TryAgainLater):
        pod(tmp_path / "gone", "good")
