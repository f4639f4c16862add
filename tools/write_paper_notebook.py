"""Writes docs/the-paper-in-code.ipynb from docs/the-paper-in-code.md, and the page's figures by running it.

    .venv/bin/python tools/write_paper_notebook.py

A test fails while the notebook is not what this writes.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "the-paper-in-code.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")


def notebook(page: str) -> str:
    """The page as a notebook without outputs: its blocks of Python are code, what lies between is text."""
    # Split at the fences: text and code take turns.
    parts = re.split(r"^```python\n(.*?)^```\n", page, flags=re.M | re.S)
    cells = [_cell(i, part.strip("\n"), is_code=i % 2 == 1) for i, part in enumerate(parts) if part.strip()]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def run(text: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Runs a notebook's code from top to bottom in one namespace, as Jupyter does.

    Yields after each code cell the text that follows it, the names so far, and the value that Jupyter would
    show: that of the last line if it is an expression.
    """
    names: dict[str, Any] = {}
    cells = json.loads(text)["cells"]
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        shown = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell["id"], "exec"), names)
        value = None
        if isinstance(shown, ast.Expr):
            value = eval(compile(ast.Expression(shown.value), cell["id"], "eval"), names)
        after = "" if following is None or following["cell_type"] == "code" else "".join(following["source"])
        yield after, names, value


def figure_below(text: str) -> Path | None:
    """The picture that a text opens with."""
    match = re.match(r"!\[[^\]]*\]\((\S+)\)", text)
    return PAGE.parent / match[1] if match else None


def _cell(index: int, source: str, *, is_code: bool) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": "code" if is_code else "markdown", "id": f"part-{index}"}
    cell["metadata"] = {}
    cell["source"] = source.splitlines(keepends=True)
    return cell | {"execution_count": None, "outputs": []} if is_code else cell


if __name__ == "__main__":
    written = notebook(PAGE.read_text(encoding="utf-8"))
    NOTEBOOK.write_text(written, encoding="utf-8")
    print(f"wrote {NOTEBOOK}")
    for after, _, value in run(written):
        if value is not None and (path := figure_below(after)):
            value.save(path, quality=88)
            print(f"wrote {path}")
