"""Reads the text of a configuration as plain values, by name. Nothing in it is executed."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterator
from typing import Any

from gcnet.console import shown

LONGEST = 1 << 18  # characters; the largest published configuration has 20 thousand
MOST_VALUES = 100_000  # in all: names that refer to names could multiply values without end
LARGEST = 10**15  # of numbers
_ARITHMETIC: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


class Computed:
    """A value that is only known by running the configuration."""

    def __repr__(self) -> str:
        return "(computed)"


def parse(text: str) -> dict[str, Any] | None:
    """The values that are assigned to names; `_run_` holds the first line that does anything else.

    None if it is no Python, too long, or full of itself. mmcv put the name of the file before its text.
    """
    if len(text) > LONGEST:
        return None
    try:
        return _Reader().read(ast.parse(re.sub(r"\A[^\n'\"#]*\.(py|json)[ \t\r]*\n", "", text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def plain(values: dict[Any, Any]) -> dict[str, Any] | None:
    """As `parse`, for a configuration that was stored as values, whose lists may be tuples."""
    try:
        return _Reader().copy(values)
    except (ValueError, RecursionError):
        return None


class _Reader:
    """Reads one configuration, and limits the number of its values."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.left = MOST_VALUES

    def read(self, module: ast.Module) -> dict[str, Any]:
        if len(module.body) == 1 and isinstance(module.body[0], ast.Expr):  # a dictionary alone, as in JSON
            whole = self.value(module.body[0].value)
            return whole if isinstance(whole, dict) else {}
        for statement in module.body:
            match statement:
                case ast.Assign(targets=targets) if names := _names(targets):
                    self.names |= {name: self.value(statement.value) for name in names}
                case ast.Assign(targets=[ast.Tuple(elts=targets)]) if names := _names(targets):
                    self.names |= {name: Computed() for name in names}
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.names[name] = self.value(value)
                case ast.Import(names=names) | ast.ImportFrom(names=names) if names[0].name != "*":
                    self.names |= {alias.asname or alias.name: alias.name for alias in names}
                case ast.Delete(targets=targets) if names := _names(targets):
                    self.names = {name: self.names[name] for name in self.names if name not in names}
                case ast.Expr(value=ast.Constant()) | ast.FunctionDef() | ast.ClassDef() | ast.Pass():
                    pass
                case _:
                    self.names.setdefault("_run_", statement.lineno)
        return self.names

    def value(self, node: ast.expr) -> Any:
        """A number, text, list or dictionary, or `Computed`."""
        self._count()
        match node:
            case ast.Constant():
                return self.copy(node.value)
            case ast.Tuple() | ast.List():
                return [self.value(entry) for entry in node.elts]
            case ast.Dict():
                return self._dict(zip(node.keys, node.values, strict=True))
            case ast.Call(func=ast.Name(id="dict"), args=[]):
                return self._dict(
                    (ast.Constant(word.arg) if word.arg else None, word.value) for word in node.keywords
                )
            case ast.Name(id="true" | "false" | "null"):  # JSON's
                return {"true": True, "false": False}.get(node.id)
            case ast.Name(id=name) if name in self.names:
                return self.copy(self.names[name])
            case ast.UnaryOp(op=ast.USub()):
                return self._sum(ast.Sub(), 0, self.value(node.operand))
            case ast.BinOp():
                return self._sum(node.op, self.value(node.left), self.value(node.right))
            case ast.FormattedValue(conversion=-1, format_spec=None):
                return self.value(node.value)
            case ast.JoinedStr():
                parts = [self.value(part) for part in node.values]
                if not any(isinstance(part, Computed) for part in parts):
                    return "".join(map(str, parts))
        return Computed()

    def _dict(self, pairs: Any) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, node in pairs:
            value = self.value(node)
            if key is None and isinstance(value, dict):  # **value
                found |= value
                continue
            name = self.value(key) if key else Computed()
            found["**" if isinstance(name, Computed | dict | list) else name] = value
        return found

    def _sum(self, operation: ast.operator, left: Any, right: Any) -> Any:
        """The sum of two numbers, or two texts joined."""
        if isinstance(left, str) and isinstance(right, str) and isinstance(operation, ast.Add):
            return self.copy(left + right)
        function = _ARITHMETIC.get(type(operation))
        if function is None or not isinstance(left, int | float) or not isinstance(right, int | float):
            return Computed()
        if isinstance(operation, ast.Pow) and abs(right) > 64:
            return Computed()
        try:
            return self.copy(function(left, right))
        except (ArithmeticError, ValueError):
            return Computed()

    def copy(self, value: Any) -> Any:
        self._count()
        if isinstance(value, dict):
            return {key: self.copy(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self.copy(entry) for entry in value]
        if isinstance(value, str):
            return value if len(value) <= LONGEST else Computed()
        known = value is None or (isinstance(value, int | float) and abs(value) <= LARGEST)
        return value if known else Computed()

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError("it is full of itself")


def _names(nodes: list[ast.expr]) -> list[str]:
    """Those of some nodes, or none if one of them is more than a name."""
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    return names if len(names) == len(nodes) else []


def word(value: Any) -> str:
    """The last part of a dotted class name; of another value, a short text."""
    return shown(value.rpartition(".")[2] if isinstance(value, str) else value, 40)


def at(values: Any, path: str) -> Any:
    """The value at a dotted path, or the `Computed` one that it would be in; None if there is none."""
    for name in path.split("."):
        if not isinstance(values, Computed):
            values = values.get(name) if isinstance(values, dict) else None
    return values


def computed(tree: Any, place: str = "") -> Iterator[str]:
    """The paths of all `Computed` values in a tree."""
    if isinstance(tree, Computed):
        yield place
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, entry in entries:
        yield from computed(entry, f"{place}.{name}" if place else str(name))


def nested(tree: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries of a tree, outer ones first."""
    if isinstance(tree, dict):
        yield tree
    entries = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for entry in entries:
        yield from nested(entry)


def without(tree: Any, name: str) -> Any:
    """A tree without all values of that name."""
    if isinstance(tree, dict):
        return {key: without(entry, name) for key, entry in tree.items() if key != name}
    return [without(entry, name) for entry in tree] if isinstance(tree, list) else tree


def find(tree: Any, name: str) -> list[Any]:
    """All values of that name, outer ones first."""
    return [part[name] for part in nested(tree) if name in part]


def dicts(tree: Any, name: str) -> list[dict[str, Any]]:
    """All dictionaries of that name, and those in lists of that name."""
    found = [value if isinstance(value, list) else [value] for value in find(tree, name)]
    return [value for values in found for value in values if isinstance(value, dict)]


def first_dict(tree: Any, name: str) -> dict[str, Any]:
    """The outermost dictionary of that name, or the first in a list of that name, or an empty one."""
    return next(iter(dicts(tree, name)), {})


def numbers(value: Any, count: int | None = None) -> tuple[float, ...] | None:
    """A list of numbers, perhaps of a given length; None if it is not one."""
    if not isinstance(value, list) or not value or (count and len(value) != count):
        return None
    plain = all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
    return tuple(float(number) for number in value) if plain else None


def pairs(value: Any) -> list[tuple[float, ...]]:
    """Pairs of sides: one or several, or a number for both; those that are none are left out."""
    several = isinstance(value, list) and value and isinstance(value[0], list)
    given = value if several else [[value] * 2 if isinstance(value, int) else value]
    return [sides for one in given if (sides := numbers(one, 2)) and min(sides) >= 1]
