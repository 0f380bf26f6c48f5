"""PARITY.md leaves no row out, and names no test that isn't there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
DOCUMENT = (TESTS.parent / "PARITY.md").read_text()
ROWS = (TESTS / "parity" / "rows.txt").read_text().split()
VERDICTS = {"same", "better", "deliberately not", "not yet"}
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def cells() -> list[list[str]]:
    """Return the cells of each row, headings excepted."""
    lines = [line for line in DOCUMENT.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0] != "row" and set(row[0]) != {"-"}]


def functions(path: Path) -> set[str]:
    """Return the names of a module's tests, from its source."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_row_is_there_once() -> None:
    """Issue 5: no row left out."""
    found = Counter(row[0] for row in cells())
    assert {name for name, count in found.items() if count > 1} == set()
    assert set(ROWS) - set(found) == set()
    assert set(found) - set(ROWS) == set()


def test_the_list_of_rows_has_no_gap() -> None:
    """The 32 defects, the 25 scenarios of E1, all of the requirements: numbered through."""
    numbered: dict[str, list[int]] = {}
    for row in ROWS:
        if match := re.fullmatch(r"([A-Z]+-(?:[A-Z]+-)?|A\d+\.|E\d\.)(\d+)", row):
            numbered.setdefault(match[1], []).append(int(match[2]))
    for prefix, numbers in numbered.items():
        assert numbers == list(range(1, len(numbers) + 1)), prefix
    sizes = {"NPWG-": 59, "MULTUS-": 36, "CNI-DLG-": 21, "ROB-": 10, "A25.": 32, "E1.": 25}
    assert {prefix: len(numbered[prefix]) for prefix in sizes} == sizes


@pytest.mark.parametrize("row", cells(), ids=lambda row: row[0])
def test_a_row_has_a_verdict_and_tests_that_exist(row: list[str]) -> None:
    """Each names one of the four verdicts, what we do, and what shows it."""
    name, asked, verdict, behaviour, shown = row
    assert asked, name
    assert verdict in VERDICTS, name
    assert behaviour, name
    assert shown, name
    named = TEST.findall(shown)
    for path, function in named:
        assert function in functions(TESTS / path), f"{path}::{function}"
    rest = TEST.sub("", shown).strip(" ,")
    assert rest == "", f"{name}: {rest}"


def test_each_defect_has_a_test_that_says_so() -> None:
    """A25: every one of the 32 by its number in a docstring of this folder."""
    said: set[str] = set()
    for path in (TESTS / "parity").glob("test_*.py"):
        said |= set(re.findall(r"A25\.\d+", path.read_text()))
    assert {f"A25.{number}" for number in range(1, 33)} - said == set()
