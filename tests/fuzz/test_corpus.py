"""Every input that fuzzing has found worth keeping, run again: through Python's targets as they
are, through the shim's with sanitizers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from metaplugin.attachments.record import decode_stored_record
from metaplugin.npwg.selection import parse_networks_annotation
from tests.fuzz.targets import TARGETS
from tests.unit.attachments.test_record import some_record

CORPUS = Path(__file__).parent / "corpus"
SHIM_CORPUS = Path(__file__).parents[2] / "build" / "metaplugin-shim-corpus"
SHIM_TARGETS = ("frames_c", "runtime_c", "record_c")


def inputs(target: str) -> list[Path]:
    return sorted((CORPUS / target).iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_in_python_stays_repaired(target: str) -> None:
    """ROB-2, ROB-4, ROB-7: a refusal that can be told, or something that survives all later use."""
    for path in inputs(target):
        try:
            TARGETS[target](path.read_bytes())
        except Exception as exc:
            raise AssertionError(path.name) from exc


def run_shim(target: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [SHIM_CORPUS, target, *paths]
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, errors="replace", env=environment
    )


@pytest.mark.parametrize("target", SHIM_TARGETS)
def test_what_was_found_in_the_shim_stays_repaired(target: str) -> None:
    """DESIGN section 2: a hostile daemon, environment, configuration or record."""
    ended = run_shim(target, *inputs(target))
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stderr.count("/corpus/") == len(inputs(target))


def test_every_target_has_inputs_and_all_are_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {*TARGETS, *SHIM_TARGETS}
    found = [path for target in (*TARGETS, *SHIM_TARGETS) for path in inputs(target)]
    assert sum(path.stat().st_size for path in found) < 300_000
    assert max(path.stat().st_size for path in found) <= 8192


def test_the_corpus_holds_what_is_accepted_too() -> None:
    """An input that is refused at its first byte tests nothing."""
    [text] = [path.read_text() for path in inputs("annotation") if path.name == "full"]
    assert len(parse_networks_annotation(text, pod_namespace="own")) == 2
    assert json.loads(text)[0]["ips"]
    [content] = [path.read_bytes() for path in inputs("record") if path.name == "one"]
    assert decode_stored_record(content).record == some_record()
