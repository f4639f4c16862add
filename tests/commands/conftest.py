"""Lets the tests here import `foreign_files` and `image_folders`; a model and its pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from gcnet.lab.context_shapes import write_context_shapes
from gcnet.weights.create import create_model
from gcnet.weights.files import save_model

TESTS = Path(__file__).parent.parent
sys.path += [str(TESTS / "data"), str(TESTS / "weights")]


@pytest.fixture(scope="package")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random numbers, which finds nothing, and whose blocks look somewhere."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "gc.safetensors"
    save_model(create_model("mask_rcnn_tiny_gc4", class_names=("a", "b")), path)
    return path


@pytest.fixture(scope="package")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of small pictures: 2 to train on, 3 to validate with."""
    return write_context_shapes(tmp_path_factory.mktemp("shapes"), train=2, valid=3, size=96)
