"""What judges the engine has nothing of it: not one module, not only those in the contract."""

import ast
import sys
import tomllib

from tests.shell import ROOT

LIBRARIES = {"observer": "aiokafka", "stores": "rocksdict"}


def judges() -> set[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [contract] = [
        each
        for each in config["tool"]["importlinter"]["contracts"]
        if each["name"] == "what judges the engine shares no code with it"
    ]
    return set(contract["source_modules"])


def imported(module: str) -> set[str]:
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "engine.torture":
            names |= {f"engine.torture.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_the_judges_import_each_other_and_libraries_only() -> None:
    """Each library in one of them; what is disturbed and what disturbs is nobody's business."""
    modules = judges()
    assert len(modules) == 8
    for module in modules:
        name = module.rpartition(".")[2]
        for other in imported(module):
            top = other.partition(".")[0]
            allowed = {LIBRARIES.get(name), "msgspec", *sys.stdlib_module_names}
            assert other in modules or top in allowed, f"{module} imports {other}"
