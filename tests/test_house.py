"""The house: what the layout promises, held for every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "klsim").rglob("*.py"))


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for file in FILES:
        yield file.relative_to(ROOT), ast.parse(file.read_text(encoding="utf-8"))


def test_no_module_imports_itself_by_way_of_others():
    grimp, networkx = pytest.importorskip("grimp"), pytest.importorskip("networkx")
    graph, edges = grimp.build_graph("klsim", exclude_type_checking_imports=True), networkx.DiGraph()
    for module in graph.modules:
        edges.add_edges_from((module, other) for other in graph.find_modules_directly_imported_by(module))
    assert [sorted(c) for c in networkx.strongly_connected_components(edges) if len(c) > 1] == []


def test_no_private_name_crosses_modules():
    """Modules with an underscore are shared inside klsim; names with one are not."""
    found = [
        f"{file}: {alias.name} of {node.module}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("klsim.")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert found == []


def test_no_file_over_500_lines():
    found = {str(f.relative_to(ROOT)): len(f.read_text(encoding="utf-8").splitlines()) for f in FILES}
    assert {file: lines for file, lines in found.items() if lines > 500} == {}


def test_no_function_over_60_lines():
    """Its documentation apart."""
    found = []
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node, clean=False)
                lines = node.end_lineno - node.lineno + 1 - (len(text.splitlines()) if text else 0)
                if lines > 60:
                    found.append(f"{file}: {node.name} has {lines} lines")
    assert found == []
