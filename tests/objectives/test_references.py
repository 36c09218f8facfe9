"""The numpy references are independent: of the package, of torch, and of each other."""

from __future__ import annotations

import ast

import pytest
from objective_cases import REFERENCES, reference

from diffpref.objectives import registry

FILES = sorted(REFERENCES.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_reference_shares_nothing(path: object) -> None:
    tree = ast.parse(path.read_text())  # type: ignore[attr-defined]
    imports = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert set(imports) <= {"numpy", "math", "itertools"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    top = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for name, function in top.items():
        assert name in registry, f"{name} is no objective: a helper would be shared"
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        assert not (used & set(top)), f"{name} uses another reference"
    assert {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}.isdisjoint({"torch", "diffpref"})


@pytest.mark.parametrize("name", registry.names())
def test_every_objective_has_a_reference(name: str) -> None:
    assert callable(reference(registry.get(name).spec))
