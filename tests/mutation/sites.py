"""Where the library can be changed, and how: one operator of cosmic-ray at one place of one module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "distributions", "divergences", "optima", "best_of_n", "memoryless", "mass_balance", "estimators", "planning",
    "learning", "problems", "objectives", "modes", "forward_kl", "several_references",
    "multiple_importance",
)  # fmt: skip
OPERATORS = tuple(
    f"core/{name}"
    for name in (
        "ReplaceBinaryOperator_Add_Sub", "ReplaceBinaryOperator_Sub_Add", "ReplaceBinaryOperator_Mul_Div",
        "ReplaceBinaryOperator_Div_Mul", "ReplaceBinaryOperator_Add_Mul", "ReplaceBinaryOperator_Mul_Add",
        "ReplaceBinaryOperator_Pow_Mul", "ReplaceBinaryOperator_BitAnd_BitOr", "ReplaceBinaryOperator_BitOr_BitAnd",
        "ReplaceBinaryOperator_FloorDiv_Mul", "ReplaceBinaryOperator_Mod_Mul",
        "ReplaceComparisonOperator_Eq_NotEq", "ReplaceComparisonOperator_NotEq_Eq",
        "ReplaceComparisonOperator_Lt_GtE", "ReplaceComparisonOperator_LtE_Gt", "ReplaceComparisonOperator_Gt_LtE",
        "ReplaceComparisonOperator_GtE_Lt", "ReplaceComparisonOperator_Lt_LtE", "ReplaceComparisonOperator_LtE_Lt",
        "ReplaceComparisonOperator_Gt_GtE", "ReplaceComparisonOperator_GtE_Gt",
        "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert", "ReplaceUnaryOperator_Delete_Not",
        "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
        "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop",
    )
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Mutant:
    """One change. ``line`` and ``column`` say where, ``function`` in which function or class (qualified name)."""

    path: str
    line: int
    column: int
    function: str
    operator: str
    occurrence: int

    @property
    def module(self) -> str:
        """``klsim.planning.chains``"""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def room(self) -> str:
        """The module or package of the first level: ``planning``."""
        return self.module.split(".")[1]

    @property
    def at_door(self) -> bool:
        """Whether it is part of looking at the input, as all of a constructor is."""
        name = self.function.split(".")[-1]
        return (
            name in ("__post_init__", "need", "_of_shape")
            or name.startswith("check_")
            or any(first <= (self.line, self.column) < last for first, last in doors(self.path))
        )

    @property
    def probe(self) -> Mutant | None:
        """The default or the branch of the conditional expression around the place, replaced by an error: who uses it?"""
        found = _probed(self.path, self.line, self.column)
        return None if found is None else _Probe(**{f: getattr(self, f) for f in self.__dataclass_fields__})

    @property
    def at_star(self) -> bool:
        """Whether it takes the ``*`` of a signature for an operator."""
        text = _read(self.path).splitlines()[self.line - 1]
        return text.startswith("*", self.column) and text[: self.column].rstrip()[-1:] in ("", "(", ",", "[")

    @property
    def is_change(self) -> bool:
        """Whether the changed text is another program: ``1e100 + 1`` is not another number."""
        return ast.dump(ast.parse(self.source())) != ast.dump(ast.parse(_read(self.path)))

    def source(self) -> str:
        """The module with the change."""
        changed = mutate_code(_read(self.path), get_operator(self.operator)(), self.occurrence)
        assert changed is not None
        return changed

    def lines(self) -> tuple[str, str]:
        """The first line that differs, before and after."""
        before, after = _read(self.path).splitlines(), self.source().splitlines()
        for old, new in zip(before, after, strict=False):
            if old != new:
                return old.strip(), new.strip()
        return "", ""


class _Probe(Mutant):
    """A change that fails where the original may be right."""

    def source(self) -> str:
        (first, start), (last, end), error = _probed(self.path, self.line, self.column)  # type: ignore[misc]
        lines = _read(self.path).encode().split(b"\n")
        text = [*lines[: first - 1], lines[first - 1][:start] + error.encode() + lines[last - 1][end:], *lines[last:]]
        return b"\n".join(text).decode()


UNUSABLE = 'type("Unusable", (), {"__bool__": lambda self: 1 // 0})()'
"""Can be a default, and neither a number nor true or false."""


def _probed(path: str, line: int, column: int) -> tuple[tuple[int, int], tuple[int, int], str] | None:
    """The innermost branch of a conditional expression, or else the default of an argument or a field, around a place,
    and the error in its stead; None if there is none."""
    found = None
    for node in ast.walk(ast.parse(_read(path))):
        for part, error in _optional(node):
            first, last = _span(part)
            if first <= (line, column) < last and (found is None or found[:2] <= (first, last)):
                found = first, last, error
    return found


def _optional(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Parts of a node that not every run of its line uses, and what raises an error where they are used."""
    if isinstance(node, ast.IfExp):
        yield from ((branch, "(1 // 0)") for branch in (node.body, node.orelse))
    elif isinstance(node, ast.arguments):
        yield from ((default, UNUSABLE) for default in (*node.defaults, *node.kw_defaults) if default is not None)
    elif isinstance(node, ast.ClassDef):
        yield from ((a.value, UNUSABLE) for a in node.body if isinstance(a, ast.AnnAssign) and a.value is not None)


@cache
def doors(path: str) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
    """Where a file looks at its input: calls of `_validate` and of ``check_…``, conditions that only refuse."""
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse(_read(path))):
        if isinstance(node, ast.Call) and _DOOR.search(ast.unparse(node.func)):
            found.append(node)
        elif isinstance(node, ast.If) and all(_refuses(statement) for statement in node.body):
            found.append(node.test)
    return tuple(_span(node) for node in found)


_DOOR = re.compile(r"^_validate\.|(^|\.)check_\w+$|\.need$")


def _refuses(statement: ast.stmt) -> bool:
    text = ast.unparse(statement)
    return isinstance(statement, ast.Raise) or text.startswith(("_validate.fail(", "_refuse("))


def _span(node: ast.AST) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]


def definition(path: str, line: int) -> tuple[int, int]:
    """First and last line of the innermost function or class around a line."""
    nodes = [
        n
        for n in ast.walk(ast.parse(_read(path)))
        if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.lineno <= line <= (n.end_lineno or n.lineno)
    ]
    inner = max(nodes, key=lambda n: n.lineno)
    return inner.lineno, inner.end_lineno or inner.lineno


def statement(path: str, line: int) -> tuple[int, int]:
    """First and last line of the innermost statement around a line; of one with a body, its head."""
    nodes = [
        n
        for n in ast.walk(ast.parse(_read(path)))
        if isinstance(n, ast.stmt) and n.lineno <= line <= (n.end_lineno or n.lineno)
    ]
    inner = max(nodes, key=lambda n: n.lineno)
    body = getattr(inner, "body", None)
    return inner.lineno, max(inner.lineno, body[0].lineno - 1) if body else inner.end_lineno or inner.lineno


def in_signature(path: str, line: int) -> bool:
    """Whether a line belongs to a function's signature, which runs when the module is imported."""
    functions = (n for n in ast.walk(ast.parse(_read(path))) if isinstance(n, ast.FunctionDef))
    return any(n.lineno <= line < n.body[0].lineno for n in functions)


@cache
def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def files(rooms: tuple[str, ...] = MODULES) -> list[str]:
    """Source files of the rooms, relative to the root."""
    found: list[Path] = []
    for room in rooms:
        base = ROOT / "klsim" / room
        found += sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]
    return [str(f.relative_to(ROOT)) for f in found]


@cache
def mutants(path: str) -> tuple[Mutant, ...]:
    """Every change of one file that could matter: none in annotations, messages of errors, or module constants like
    ``__all__``."""
    source = _read(path)
    inside, skipped = _places(ast.parse(source))
    nodes = list(ast_nodes(get_ast(source)))
    found = []
    for name in OPERATORS:
        operator, occurrence = get_operator(name)(), 0
        for node in nodes:
            for start, _ in operator.mutation_positions(node):
                line, column = start
                if line in inside and not any(a <= (line, column) < b for a, b in skipped):
                    found.append(Mutant(path, line, column, inside[line], name, occurrence))
                occurrence += 1
    return tuple(sorted(found))


def _places(tree: ast.Module) -> tuple[dict[int, str], list[tuple[tuple[int, int], tuple[int, int]]]]:
    """The function of every line inside one, and the spans that do not run or are only read."""
    inside: dict[int, str] = {}
    skipped = []

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
                for line in range(child.lineno, child.end_lineno + 1):
                    inside[line] = inner
            skipped.extend(_span(s) for s in _only_read(child))
            visit(child, inner)

    visit(tree, "")
    return inside, skipped


def _only_read(node: ast.AST) -> Iterator[ast.AST]:
    """Annotations, docstrings, decorators, and what goes into the text of an error."""
    if isinstance(node, ast.FunctionDef):
        yield from (n for n in (node.returns,) if n is not None)
        yield from node.decorator_list
    elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
        yield node.annotation
    elif isinstance(node, ast.ClassDef):
        yield from node.decorator_list
    elif isinstance(node, ast.Raise) and node.exc is not None:
        yield node.exc
    elif isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fail"
    ):
        yield node
