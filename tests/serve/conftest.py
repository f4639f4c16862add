"""A service of a model that finds something, and pictures to send to it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from gcnet.models.detector import Detector
from gcnet.models.spec import ContextSpec
from gcnet.serve.app import Limits, make_app
from gcnet.serve.served import Served
from lively import lively_detector

Upload = Callable[..., Any]


@pytest.fixture(scope="session")
def detector() -> Detector:
    """It finds many things, with scores around one half, wherever it looks."""
    detector = lively_detector(ContextSpec()).eval()
    torch.manual_seed(1)
    for name, parameter in detector.roi_heads.named_parameters():
        if name.endswith("weight"):
            parameter.data.normal_(std=0.03)
    return detector


@pytest.fixture(scope="session")
def client(detector: Detector) -> Iterator[TestClient]:
    limits = Limits(queue=4, max_bytes=100_000, max_pixels=40_000, timeout=20.0)
    with TestClient(make_app(Served.of(detector), limits)) as client:
        yield client


def picture(width: int = 120, height: int = 80, format: str = "PNG", seed: int = 0, **options: Any) -> bytes:
    """A file with an image of noise in blocks."""
    pixels = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    image = Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)[:height, :width])
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture(scope="session", name="picture")
def _picture() -> Callable[..., bytes]:
    return picture
