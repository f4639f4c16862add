"""Detectors in ONNX Runtime, from files that `gcnet export` wrote, on NumPy arrays.

N images of H x W pixels, D places.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gcnet.errors import GCNetError
from gcnet.found import Found
from gcnet.ops.decode import as_rgb_array
from gcnet.ops.images import fit_size, padded_size, resize_image

DETAILS = "gcnet"  # the key under which a file says what it is
OUTPUTS = ("boxes", "scores", "labels", "valid", "mask_probs")
LEAST_SCORE = 0.05  # of what files give

Run = Callable[[UInt8[np.ndarray, "N 3 H W"]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Details:
    """What a file says of itself.

    `image_size` is the (long, short) side that images are resized to; `size` is the (height, width) that all
    of them have, if the file has fixed shapes. It takes `batch` images at a time.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    masks: bool
    size: tuple[int, int] | None = None
    batch: int = 1
    precision: str = "fp32"

    @classmethod
    def parse(cls, text: str | None, file: Path) -> Details:
        """Raises GCNetError if the file is not one of ours."""
        try:
            said: dict[str, Any] = json.loads(text or "")
            size = said["size"] and (int(said["size"][0]), int(said["size"][1]))
            long, short = map(int, said["image_size"])
            names = tuple(map(str, said["class_names"]))
            masks, batch = bool(said["masks"]), int(said["batch"])
            return cls(str(said["name"]), names, (long, short), masks, size, batch, str(said["precision"]))
        except (ValueError, KeyError, TypeError, IndexError):
            raise GCNetError(
                f"{file} does not say how images are prepared for it: make it with gcnet export"
            ) from None


@dataclass(frozen=True)
class Prepared:
    """An image of (height, width) `original` at the `size` that the file wants, maybe on zeros."""

    pixels: UInt8[np.ndarray, "1 3 h w"]
    original: tuple[int, int]
    size: tuple[int, int]


class ExportedDetector:
    """A detector in a file, with the methods for inference of a `Detector`, on NumPy arrays."""

    def __init__(self, spec: Details, run: Run, fingerprint: str = "") -> None:
        self.spec, self.run, self.fingerprint = spec, run, fingerprint

    @classmethod
    def load(cls, file: str | os.PathLike[str], threads: int | None = None) -> ExportedDetector:
        """Reads a `.onnx` file.

        Raises:
            GCNetError: the file or the runtime's package is missing, or the runtime cannot read it.
        """
        path = Path(file)
        if not path.is_file():
            raise GCNetError(f"{path} does not exist: give a file that gcnet export wrote")
        spec, run = _load_onnx(path, threads)
        with open(path, "rb") as file_object:
            return cls(spec, run, hashlib.file_digest(file_object, "sha256").hexdigest()[:16])

    def predict_images(
        self, images: Any | Sequence[Any], *, score_threshold: float = LEAST_SCORE
    ) -> list[Found]:
        """What is found in images as `Detector.predict_images` takes them, in pixels of each as given."""
        several = isinstance(images, Sequence) and not isinstance(images, str | os.PathLike | bytes)
        given = images if several else [images]
        return [self.predict(self.prepare(one), score_threshold=score_threshold)[0] for one in given]

    def prepare(self, image: Any) -> Prepared:
        """An image of any kind, as `predict` wants it."""
        array = as_rgb_array(image)
        pixels, size = prepare(array, self.spec)
        return Prepared(pixels, (array.shape[0], array.shape[1]), size)

    def predict(self, prepared: Prepared, *, score_threshold: float = LEAST_SCORE) -> list[Found]:
        """What is found in one image, as a list of one, as `Detector.predict` gives it."""
        stack = np.repeat(prepared.pixels, self.spec.batch, axis=0)
        found = as_found(self.run(stack), 0, prepared.original, prepared.size)
        return [found[found.scores > score_threshold]]


def prepare(
    image: UInt8[np.ndarray, "H W 3"], details: Details
) -> tuple[UInt8[np.ndarray, "1 3 h w"], tuple[int, int]]:
    """An image resized as the model wants it, and the (height, width) that it then has.

    A file of fixed size gets the image as large as it fits, on zeros.
    """
    original = (image.shape[0], image.shape[1])
    size = fit_size(original, details.image_size)
    frame = padded_size(size)
    if details.size is not None:
        frame = details.size
        scale = min(frame[0] / original[0], frame[1] / original[1])
        size = (max(int(original[0] * scale), 1), max(int(original[1] * scale), 1))
    stack = np.zeros((1, 3, *frame), np.uint8)
    stack[0, :, : size[0], : size[1]] = resize_image(image, size).transpose(2, 0, 1)
    return (stack if details.size else stack[:, :, : size[0], : size[1]]), size


def as_found(
    outputs: Sequence[np.ndarray], index: int, original: tuple[int, int], size: tuple[int, int]
) -> Found:
    """Image `index` of what a file gives, in pixels of the image before it was resized to `size`."""
    boxes, scores, labels, valid = (output[index] for output in outputs[:4])
    probs = outputs[4][index].astype(np.float32) if len(outputs) > 4 else None
    factors = np.array([size[1] / original[1], size[0] / original[0]] * 2, np.float32)
    corners = (boxes.astype(np.float32) / factors).clip(
        0, np.array([original[1], original[0]] * 2, np.float32)
    )
    found = Found(corners, scores.astype(np.float32), labels.astype(np.int64), probs, original, corners)
    return found[valid.astype(bool)]


def needs(package: str, extra: str) -> ModuleType:
    """An optional package. Raises GCNetError, with what to install, if it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise GCNetError(
            f"this needs {package}, which is not installed: pip install 'gcnet[{extra}]'"
        ) from None


def _load_onnx(file: Path, threads: int | None) -> tuple[Details, Run]:
    runtime = needs("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # A program of a stranger's may refer to other files beside itself; ours are whole.
    try:
        session = runtime.InferenceSession(
            file.read_bytes(), options, providers=runtime.get_available_providers()
        )
    except Exception as error:  # the runtime's own kinds have no common base
        raise GCNetError(f"ONNX Runtime cannot read {file}: {_first_line(error)}") from None
    details = Details.parse(session.get_modelmeta().custom_metadata_map.get(DETAILS), file)
    (image,) = (one.name for one in session.get_inputs())
    names = [name for name in OUTPUTS if name != "mask_probs" or details.masks]
    return details, lambda images: session.run(names, {image: images})


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
