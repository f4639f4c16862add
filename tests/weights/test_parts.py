"""A model in a few lines: whatever a spec may hold has words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gcnet.context_spec import BLOCKS, ContextSpec
from gcnet.weights.catalog import CLASSIFIERS, ROWS, find
from gcnet.weights.parts import describe_parts


@pytest.mark.parametrize("row", [*ROWS, *CLASSIFIERS], ids=lambda row: row.name)
def test_all_models_by_name(row) -> None:
    lines = describe_parts(row.spec)
    assert lines[0].startswith("backbone:")
    assert lines[-1].startswith("images:")


@pytest.mark.parametrize("block", BLOCKS)
def test_all_blocks(block: str) -> None:
    spec = find("mask_rcnn_tiny").spec
    context = ContextSpec(block=block)
    line = describe_parts(replace(spec, backbone=replace(spec.backbone, context=context)))[1]
    assert line.startswith(f"context:  {block} ")
    assert all(f"{name} " in line for name in context.options)
