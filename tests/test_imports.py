"""Files import each other in one direction only: no circles, not even by imports inside functions."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vislang"


def name_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(root: Path) -> dict[str, set[str]]:
    """For each module of a package the modules of the package that it imports, for imports anywhere in the file."""
    files = {name_of(path, root): path for path in root.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # "from package import module" and "from module import name".
                imported |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        graph[name] = imported & set(files)
    return graph


def test_no_circles_between_files():
    graph = import_graph(PACKAGE)
    assert len(graph) > 150
    assert "vislang.nn.linear" in graph["vislang.nn.attention"]
    # A package's __init__ imports its own modules.
    del graph["vislang"]
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_circle_is_found(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "one.py").write_text("def later():\n    from package import two\n")
    (package / "two.py").write_text("from package.one import later\n")
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(import_graph(package)).static_order())
