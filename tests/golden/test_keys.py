"""The state dicts of all covered rows match the reference's, name by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from gcnet.models.detector import Detector
from gcnet.weights.catalog import ROWS, find
from gcnet.weights.mmdet_keys import mmdet_key

PUBLISHED = [row.name for row in ROWS if row.weights]


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_sizes_and_frozen_parameters(name: str, golden: Callable[[str], Any]) -> None:
    row = find(name)
    theirs = golden("keys.json.gz")[row.upstream[1]]
    with torch.device("meta"):
        detector = Detector(row.spec)
    ours = {mmdet_key(own): tensor for own, tensor in detector.state_dict(keep_vars=True).items()}
    assert len(ours) == len(detector.state_dict())  # no two of ours share a name
    assert ours.keys() == theirs.keys()
    for key, (shape, kind, requires_grad) in theirs.items():
        assert ours[key].numel() == math.prod(shape), key
        assert isinstance(ours[key], torch.nn.Parameter) == (kind == "param"), key
        if kind == "param":
            assert ours[key].requires_grad == requires_grad, key


def test_every_stored_row_is_covered(golden: Callable[[str], Any]) -> None:
    assert {find(name).upstream[1] for name in PUBLISHED} == set(golden("keys.json.gz"))
