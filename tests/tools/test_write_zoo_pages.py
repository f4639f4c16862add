"""The pages about the models say what the catalog says."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_pages_are_what_the_tool_writes():
    tool = runpy.run_path(str(ROOT / "tools" / "write_zoo_pages.py"))
    pages = tool["pages"]()
    assert len(pages) == 21  # the overview, nineteen rows and the plain baseline
    for path, text in pages.items():
        assert (ROOT / "docs" / path).read_text() == text, "run tools/write_zoo_pages.py"
    assert {f.name for f in (ROOT / "docs" / "models").iterdir()} == {Path(p).name for p in pages} - {
        "zoo.md"
    }
