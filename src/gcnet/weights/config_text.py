"""The text of a configuration as plain values, and what is in them by name. Nothing in it is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST = 1 << 20  # characters; the largest published configuration has 20 thousand
LARGEST = 10**15  # of whole numbers


def parse(text: str) -> dict[str, Any] | None:
    """The values that are assigned to names. What is no plain value is left out."""
    if len(text) > LONGEST:
        return None
    try:
        values: dict[str, Any] = {}
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                values[statement.targets[0].id] = _value(statement.value, values)
        return values
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """A number, text, list or dictionary; None for what would have to be executed."""
    match node:
        case ast.Constant():
            giant = isinstance(node.value, int) and abs(node.value) > LARGEST
            return None if giant else node.value
        case ast.Tuple() | ast.List():
            return [_value(entry, names) for entry in node.elts]
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            return {key.value: _value(entry, names) for key, entry in pairs if isinstance(key, ast.Constant)}
        case ast.Call(func=ast.Name(id="dict")):
            return {word.arg: _value(word.value, names) for word in node.keywords if word.arg}
        case ast.Name():
            return names.get(node.id)
        case ast.UnaryOp(op=ast.USub()) | ast.BinOp(op=ast.Div()):
            return _number(node, names)
    return None


def _number(node: ast.UnaryOp | ast.BinOp, names: Mapping[str, Any]) -> float | None:
    operands = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
    values = numbers([_value(operand, names) for operand in operands])
    if values is None or not values[-1]:
        return None
    return -values[0] if isinstance(node, ast.UnaryOp) else values[0] / values[1]


def at(values: Any, path: str) -> Any:
    """What stands at a path of names with dots; None if there is nothing."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def nested(tree: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries of a tree, outer ones first."""
    if isinstance(tree, dict):
        yield tree
    entries = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for entry in entries:
        yield from nested(entry)


def find(tree: Any, name: str) -> list[Any]:
    """All values of that name, outer ones first."""
    return [part[name] for part in nested(tree) if name in part]


def dicts(tree: Any, name: str) -> list[dict[str, Any]]:
    """All dictionaries of that name, and those in lists of that name."""
    found = [value if isinstance(value, list) else [value] for value in find(tree, name)]
    return [value for values in found for value in values if isinstance(value, dict)]


def first_dict(tree: Any, name: str) -> dict[str, Any]:
    """The outermost dictionary of that name, or an empty one."""
    return next((value for value in find(tree, name) if isinstance(value, dict)), {})


def numbers(value: Any, count: int | None = None) -> tuple[float, ...] | None:
    """A list of numbers, or of so many; None if it is none."""
    if not isinstance(value, list) or not value or (count and len(value) != count):
        return None
    plain = all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
    return tuple(float(number) for number in value) if plain else None


def pair(value: Any) -> tuple[float, ...] | None:
    """Two sides, or the first of several pairs; None if it is none."""
    sides = numbers(value, 2)
    if sides is None and isinstance(value, list) and value:
        sides = numbers(value[0], 2)  # several sizes: the first
    return sides if sides and min(sides) >= 1 else None
