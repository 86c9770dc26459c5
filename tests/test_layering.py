"""The import rule: folders import from those before them, no module is part of a circle, no level is crowded."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pplc_cli"
# From the bottom up; those of one group stand side by side and do not import each other.
ORDER = [
    {"base"},
    {"plots", "kernels", "models"},
    {"data"},
    {"config"},
    {"predict"},
    {"training"},
    {"exporting"},
    {"benchmark"},
    {"analysis"},
    {"tuning"},
    {"serve"},
    {"cli"},
]
LEVEL = {folder: level for level, folders in enumerate(ORDER) for folder in folders}
LARGEST_LEVEL = 12  # a reader takes in about a dozen names at a glance
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def imported_names(file: Path) -> Iterator[str]:
    """Every dotted name that a file imports, also within functions and for type checkers alone."""
    package = module_name(file).split(".") if file.name == "__init__.py" else module_name(file).split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def imported_modules(file: Path) -> set[str]:
    """Modules of the package that a file imports."""
    found = set()
    for name in imported_names(file):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            found.add(name)
    return found


def folder_of(module: str) -> str:
    """The folder of the package that a module stands in; empty for the package's own files."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else ""


def test_every_folder_has_its_place_in_the_order():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(LEVEL)


@pytest.mark.parametrize("file", [file for file in FILES if file.parent != PACKAGE], ids=module_name)
def test_imports_point_down(file):
    mine = folder_of(module_name(file))
    for imported in sorted(imported_modules(file)):
        other = folder_of(imported)
        assert other, f"{module_name(file)} imports the package itself; import the module that defines the name"
        assert mine == other or LEVEL[other] < LEVEL[mine], f"{module_name(file)} imports {imported}"


def test_no_module_imports_itself_in_a_circle():
    graph = {name: imported_modules(file) - {name} for name, file in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("file", [f for f in FILES if "cli" not in f.relative_to(PACKAGE).parts], ids=module_name)
def test_only_the_cli_knows_click_and_rich(file):
    tops = {name.partition(".")[0] for name in imported_names(file)}
    assert not tops & {"click", "rich"}


def test_no_circle_between_folders_within_a_folder():
    """``predict/engines`` may import ``predict/inputs`` or the other way round, not both."""
    graph: dict[str, set[str]] = {}
    for name, file in MODULES.items():
        mine = name.split(".")[:-1] if file.name != "__init__.py" else name.split(".")
        for imported in imported_modules(file):
            other = imported.split(".")[:-1] if MODULES[imported].name != "__init__.py" else imported.split(".")
            if len(mine) == len(other) == 3 and mine[:2] == other[:2] and mine != other:
                graph.setdefault(".".join(mine), set()).add(".".join(other))
    graphlib.TopologicalSorter(graph).prepare()


def test_a_level_has_few_things():
    folders = {file.parent for file in FILES}
    for folder in folders - {PACKAGE}:  # whose folders are in ORDER
        things = [p for p in folder.iterdir() if p.name not in ("__init__.py", "__pycache__", "py.typed")]
        assert len(things) <= LARGEST_LEVEL, f"{folder.relative_to(PACKAGE.parent)}: {len(things)}"


def test_no_folder_hides_a_public_name():
    """Importing ``pplc_cli.x.y`` sets the attribute ``x`` of the package, in place of a function of that name."""
    import pplc_cli

    assert not set(pplc_cli.__all__) & {path.stem for path in PACKAGE.iterdir()}
