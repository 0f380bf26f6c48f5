"""The rules of the house, as tests: what reviewers would otherwise have to look for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "metaplugin").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PYTHON = MODULES + TESTS
TEXT_SUFFIXES = {".c", ".conf", ".conflist", ".h", ".json", ".md", ".py", ".toml", ".txt", ".yaml"}
FOLDERS = ("metaplugin", "tests", "examples", "crds", "deploy", ".ci")

MODULE_LINES = 400
FUNCTION_LINES = 80
SHIM_LINES = 1470  # of code; ARCHITECTURE.md, decision 3
VAGUE_NAMES = {"common", "helpers", "manager", "misc", "models", "util", "utils"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=name(path))


def imported_modules(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_nothing_is_mocked(path: Path) -> None:
    assert "unittest.mock" not in imported_modules(parsed(path))


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(parsed(path)), "no module docstring"


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_annotations_are_not_evaluated(path: Path) -> None:
    if len(parsed(path).body) == 1:
        return  # nothing but its docstring
    assert "__future__.annotations" in imported_modules(parsed(path))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_stay_readable_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MODULE_LINES


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_functions_stay_short(path: Path) -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    too_long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(parsed(path))
        if isinstance(node, functions)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES
    ]
    assert too_long == []


def test_modules_are_named_by_the_domain() -> None:
    vague = [name(path) for path in PYTHON if {path.stem, path.parent.name} & VAGUE_NAMES]
    assert vague == []


def test_the_shim_stays_small_enough_to_be_audited() -> None:
    sources = [*(ROOT / "metaplugin/shim").glob("*.[ch]")]
    lines = [line.strip() for path in sources for line in path.read_text().splitlines()]
    code = [line for line in lines if line and not line.startswith(("/*", "* "))]
    assert len(code) <= SHIM_LINES


def test_every_runtime_dependency_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("\ndependencies = [\n", 1)[1].split("\n]", 1)[0]
    assert [line for line in block.splitlines() if "#" not in line] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    foreign = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/")
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    paths += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    guilty = [
        name(path)
        for path in paths
        if path.is_file() and (path.suffix in TEXT_SUFFIXES or path.name in {"Makefile", "run"})
        if any(prefix in path.read_text() for prefix in foreign)
    ]
    assert guilty == []
