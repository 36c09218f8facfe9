"""Broken copies of a function: one sign, factor, side or detach at a time.

A mutant is the code object of the whole function with one expression changed, so that it can take the place of the
original without touching the module or the registry.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from diffpref.core.errors import ConfigError
from diffpref.core.vocabulary import parse

__all__ = ["Mutant", "mutants_of", "swapped_in"]

SIDES = (("chosen", "rejected"), ("rejected", "chosen"))


@dataclass(frozen=True)
class Mutant:
    """One change.

    Args:
        function: qualified name, ``module.function``.
        change: ``"a - b -> a + b"``, with ``" #2"`` after it for the second such place.
        code: of the changed function.
    """

    function: str
    change: str
    code: CodeType

    def __str__(self) -> str:
        return f"{self.function}: {self.change}"


def mutants_of(function: FunctionType) -> Iterator[Mutant]:
    """Yield every mutant of a plain function, in the order of its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    tensors = {a.arg for a in (*definition.args.args, *definition.args.kwonlyargs) if "Tensor" in _text(a.annotation)}
    places = _places(definition)
    seen: dict[str, int] = {}
    for number, place in enumerate(places):
        for replacement in _replacements(place, tensors):
            change = f"{ast.unparse(place)} -> {ast.unparse(replacement)}"
            seen[change] = seen.get(change, 0) + 1
            name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
            suffix = f" #{seen[change]}" if seen[change] > 1 else ""
            yield Mutant(name, change + suffix, _compiled(function, number, replacement))


def _places(definition: ast.FunctionDef) -> list[ast.expr]:
    """Return the expressions that may change: not whether an optional column is there, nor what errors say."""
    todo: list[ast.AST] = list(definition.body)
    found = []
    while todo:
        node = todo.pop(0)
        told = isinstance(node, ast.Raise | ast.JoinedStr)
        if told or (isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot)):
            continue
        if isinstance(node, ast.expr):
            found.append(node)
        todo[:0] = ast.iter_child_nodes(node)
    return found


def _text(node: ast.expr | None) -> str:
    return "" if node is None else ast.unparse(node)


def _replacements(node: ast.expr, tensors: set[str]) -> Iterator[ast.expr]:
    """Yield what may stand in place of an expression."""
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Add | ast.Sub):  # a sign
            other: ast.operator = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield ast.BinOp(node.left, other, node.right)
        if isinstance(node.op, ast.Mult):  # a factor
            yield node.left
            yield node.right
        if isinstance(node.op, ast.Div):
            yield node.left
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for side, other_side in SIDES:  # a side
            swapped = node.id.replace(side, other_side)
            if node.id in tensors and swapped != node.id and swapped in tensors:
                yield ast.Name(swapped, ast.Load())
        if node.id in tensors and _may_train(node.id):  # a detach
            yield ast.parse(f"({node.id}.detach() if {node.id} is not None else None)", mode="eval").body
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "detach":
        yield node.func.value


def _may_train(name: str) -> bool:
    """Whether gradient may flow into a parameter: what is no vocabulary name is a helper's own."""
    try:
        return parse(name).trained
    except ConfigError:
        return True


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, replacement: ast.expr) -> None:
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> Any:
        return self.replacement if node is self.target else super().visit(node)


def _compiled(function: FunctionType, number: int, replacement: ast.expr) -> CodeType:
    """Return the code of the function with its expression of a number replaced."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    places = _places(definition)
    changed = _Replace(places[number], replacement).visit(definition)
    changed.decorator_list = []
    changed.returns = None
    for argument in (*changed.args.args, *changed.args.kwonlyargs):
        argument.annotation = None
    changed.args.kw_defaults = [None for _ in changed.args.kwonlyargs]  # the code alone is taken; defaults stay
    changed.args.defaults = []
    module = ast.fix_missing_locations(ast.Module([changed], []))
    future = __import__("__future__").annotations.compiler_flag
    space: dict[str, Any] = {}
    exec(compile(module, f"<mutant of {function.__qualname__}>", "exec", flags=future), {}, space)
    code = space[function.__name__].__code__
    assert isinstance(code, CodeType)
    return code


@contextmanager
def swapped_in(function: Callable[..., Any], mutant: Mutant) -> Iterator[None]:
    """Let a mutant take the place of its function."""
    assert isinstance(function, FunctionType)
    original = function.__code__
    function.__code__ = mutant.code
    try:
        yield
    finally:
        function.__code__ = original
