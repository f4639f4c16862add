"""What fuzzing once found stays mended, and a few fresh inputs of each kind do no harm."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import CORPUS, KINDS, attempt, fuzz

FOUND = [path for kind in KINDS for path in sorted((CORPUS / kind).glob("*"))]
FRESH = 10  # inputs of each kind; `make fuzz` makes others


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_does_no_harm(path: Path):
    kind: Any = importlib.import_module(path.parent.name)
    outcome = attempt(partial(kind.read, path))
    assert outcome.good, f"{outcome.kind}: {outcome.said}"


@pytest.mark.parametrize("name", KINDS)
def test_fresh_inputs_do_no_harm(name: str):
    bad = [outcome for outcome in fuzz(importlib.import_module(name), FRESH, seed=0) if not outcome.good]
    assert not bad, f"{bad[0].kind}: {bad[0].said}"
