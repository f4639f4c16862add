"""The reference numbers of this folder as fixtures; README.md says where they come from."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gcnet.models.detector import Detector
from gcnet.weights.create import create_model
from gcnet.weights.load import load_model

HERE = Path(__file__).parent
PICTURES = {"img0": HERE / "img0_480x640.png", "img1": HERE / "img1_333x500.png"}

_spec = importlib.util.spec_from_file_location("recipe", HERE / "recipe.py")
assert _spec is not None
assert _spec.loader is not None
_recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_recipe)


@cache
def read_json(name: str) -> Any:
    with gzip.open(HERE / name, "rt") as file:
        return json.load(file)


def reference_state(row: str) -> dict[str, Tensor]:
    """The weights of a row under mmdetection's names."""
    state = {}
    for name, (shape, _, _) in read_json("keys.json.gz")[row].items():
        values = _recipe.fill(name, shape)
        state[name] = torch.tensor(0) if values is None else torch.from_numpy(np.asarray(values))
    return state


@pytest.fixture(scope="module")
def reference_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Detector]:
    """Makes a row with the reference's weights, read from a checkpoint as mmdetection writes them."""

    def make(row: str) -> Detector:
        file = tmp_path_factory.mktemp("golden") / "reference.pth"
        meta = {"CLASSES": ("a",), "epoch": 12, "lr": np.float64(0.02)}
        torch.save({"meta": meta, "state_dict": reference_state(row)}, file)
        try:
            return create_model(row, weights=file)
        finally:
            file.unlink()

    return make


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Detector]:
    """Loads a model that is no row, from a checkpoint that carries the config it was trained with."""

    def make(name: str) -> Detector:
        theirs = read_json("others.json.gz")[name]
        state = {}
        for key, (shape, gain) in theirs["keys"].items():
            values = _recipe.fill(key, shape)
            state[key] = torch.tensor(0) if values is None else torch.from_numpy(np.asarray(values)) * gain
        file = tmp_path_factory.mktemp("golden") / "other.pth"
        torch.save({"meta": {"cfg": theirs["config"], "dataset_meta": {}}, "state_dict": state}, file)
        try:
            detector = load_model(file)
        finally:
            file.unlink()
        assert isinstance(detector, Detector)
        return detector

    return make


@pytest.fixture(scope="session")
def pictures() -> dict[str, Path]:
    return PICTURES


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """Reads one of the JSON files."""
    return read_json


@pytest.fixture(scope="session")
def golden_arrays() -> Callable[[str], Any]:
    """Reads one of the NumPy files."""
    return lambda name: np.load(HERE / name)
