"""The rules that no linter knows."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("agents", "engine", "tables")
LINES_MAX = 450
FUNCTION_LINES_MAX = 70
BANNED_NAMES = re.compile(r"(Manager|Helper|Mixin|Impl)$")
BANNED_MODULES = {"utils", "base", "types", "common", "helpers", "misc"}


def sources(*folders: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [
        ROOT / name for name in listed if name.split("/")[0] in folders and (ROOT / name).exists()
    ]


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sources(*folders):
        yield path, ast.parse(path.read_text())


def test_modules_are_short_and_named_by_nouns() -> None:
    """A module that needs scrolling for minutes has a second noun in it."""
    for path in sources(*PRODUCT):
        lines = path.read_text().count("\n")
        assert lines <= LINES_MAX, f"{path.relative_to(ROOT)} has {lines} lines"
        assert path.stem not in BANNED_MODULES, path


def test_functions_fit_a_screen_and_classes_say_what_they_are() -> None:
    """70 lines without the docstring, and no class named by a role nobody can picture."""
    for path, tree in trees(*PRODUCT):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docs = ast.get_docstring(node, clean=False) or ""
                size = (node.end_lineno or 0) - node.lineno - docs.count("\n")
                assert size <= FUNCTION_LINES_MAX, f"{path.name}: {node.name} has {size} lines"
            if isinstance(node, ast.ClassDef):
                assert not BANNED_NAMES.search(node.name), f"{path.name}: {node.name}"


def test_nothing_is_left_for_later_in_the_code() -> None:
    """What is not done is said in ARCHITECTURE.md, not in a comment."""
    for path in sources(*PRODUCT):
        assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text()), path


def test_every_module_is_on_the_map() -> None:
    """ARCHITECTURE.md names each module, so that a reader can find it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in sources(*PRODUCT):
        if path.name not in {"__init__.py", "__main__.py"}:
            place = path.relative_to(ROOT)
            found = f"`{path.name}`" in text or f"`{place.parent}/`" in text
            assert found, f"{place} is not on the map in ARCHITECTURE.md"


def test_no_test_replaces_what_it_tests() -> None:
    """No mocks and no patching: the Driver runs the true engine."""
    for path in sources(*PRODUCT, "tests"):
        if path != Path(__file__):
            text = path.read_text()
            assert "unittest" + ".mock" not in text, path
            assert "monkey" + "patch" not in text, path


def test_pickle_and_its_kind_are_nowhere() -> None:
    """Nothing that runs code from bytes."""
    for path, tree in trees(*PRODUCT):
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {"pickle", "marshal", "shelve", "dill"} & set(names), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, path


@pytest.mark.parametrize("command", ["headrace demo", "-m pytest"])
def test_the_build_and_the_readme_run_the_same(command: str) -> None:
    """README holds one command for the demo and one for the tests."""
    lines = [
        line
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("python3 -m venv") and command in line
    ]
    assert len(lines) == 1
    if command == "-m pytest":
        install, _, run = lines[0].rpartition(" && ")
        build = (ROOT / ".ci/run").read_text()
        assert install in build
        assert f"\n{run}\n" in build


def test_each_library_has_one_place() -> None:
    """The linter's ban list and its exceptions say the same as the architecture does."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    banned = config["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert {"aiokafka", "rocksdict", "faust", "prometheus_client", "pickle"} <= set(banned)
