"""Runs files that `gcnet export` wrote, in ONNX Runtime and OpenVINO, on NumPy arrays.

N images of H x W pixels, D rows of detections, K classes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from gcnet.errors import GCNetError, check_least, check_threshold, needs
from gcnet.found import Classified, Found
from gcnet.models.read_spec import read_spec
from gcnet.models.spec import ClassifierSpec, Coordinates, ModelSpec, Resize, RoISpec
from gcnet.ops.decode import as_list, as_rgb_array
from gcnet.ops.images import fit_size, middle_square, resize_image, scaled_size

DETAILS = "gcnet"  # the key of a file's metadata
OUTPUTS = ("boxes", "scores", "labels", "valid", "mask_probs")
LEAST_SCORE = 0.05  # score threshold inside the files

# Read when it is imported: else ONNX Runtime 1.32 tells Microsoft of its uses, and keeps them in the home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Run = Callable[[np.ndarray], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Details:
    """The metadata of a file.

    `image_size` is the (long, short) side that images are resized to by the rule of `resize`; a classifier's
    as in its spec. `size` is the (height, width) of the images that a file of fixed shapes is given, on the
    colour `image_mean` (R, G, B). It takes `batch` images at a time. A file with `resizes` takes one as it
    is, H x W x 3, and resizes it by itself.
    `coordinates`: see `gcnet.models.coordinates`. A detector finds up to `detections` objects in an image.
    `provenance` is that of the model.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    masks: bool
    size: tuple[int, int] | None = None
    batch: int = 1
    precision: str = "fp32"
    kind: Literal["detector", "classifier"] = "detector"
    resize: Resize = "opencv"
    coordinates: Coordinates = "continuous"
    resizes: bool = False
    detections: int = RoISpec.detections
    image_mean: tuple[float, float, float] = ModelSpec.image_mean
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None, file: Path) -> Details:
        """Raises GCNetError if the file is not one of ours."""
        try:
            said: dict[str, Any] = json.loads(text or "")
            provenance = dict(said.pop("provenance", {}))
            known = {one.name: said[one.name] for one in fields(cls) if one.name in said}
            return replace(read_spec(cls, known), provenance=provenance)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise GCNetError(
                f"{file} does not say how images are prepared for it: make it with gcnet export"
            ) from None

    @property
    def spec(self) -> ModelSpec | ClassifierSpec:
        """The parts of a model's spec that users need: classes, image sizes, and whether it has masks.

        What the network is made of, the file alone knows: these fields are those of any model.
        """
        if self.kind == "classifier":
            return ClassifierSpec(self.name, self.class_names, image_size=self.image_size)
        return ModelSpec(
            self.name,
            self.class_names,
            roi=RoISpec(masks=self.masks, detections=self.detections),
            coordinates=self.coordinates,
            resize=self.resize,
            image_size=self.image_size,
            image_mean=self.image_mean,
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what a file gives, in order."""
        if self.kind == "classifier":
            return ("probabilities",)
        return OUTPUTS if self.masks else OUTPUTS[:-1]


@dataclass(frozen=True)
class Prepared:
    """An image of (height, width) `original`, resized to `size` and perhaps padded with the mean colour."""

    images: UInt8[np.ndarray, "..."] | Float[np.ndarray, "..."]
    original: tuple[int, int]
    size: tuple[int, int]

    @staticmethod
    def together(images: Sequence[Prepared]) -> Sequence[Prepared]:
        """Several images, as `ExportedDetector.predict` takes them."""
        return images


class ExportedDetector:
    """A detector in a file, with the methods for inference of a `Detector`, on NumPy arrays."""

    def __init__(self, details: Details, run: Run, fingerprint: str = "") -> None:
        self.details, self.run, self.fingerprint = details, run, fingerprint
        self.spec, self.provenance = details.spec, details.provenance

    def predict_images(
        self, images: Any | Sequence[Any], *, score_threshold: float = LEAST_SCORE
    ) -> list[Found]:
        """What is found in images as `Detector.predict_images` takes them, in pixels of each as given."""
        batches = in_batches(as_list(images), self.details.batch)
        prepared = ([self.prepare(image) for image in batch] for batch in batches)
        return [one for batch in prepared for one in self.predict(batch, score_threshold=score_threshold)]

    def prepare(self, image: Any) -> Prepared:
        """An image of any kind, as `predict` wants it."""
        return prepare(as_rgb_array(image), self.details)

    def predict(
        self, prepared: Prepared | Sequence[Prepared], *, score_threshold: float = LEAST_SCORE
    ) -> list[Found]:
        """What is found in one image or in each of several, as `Detector.predict` gives it.

        As many of one size as the file takes at a time are predicted together.
        """
        check_threshold(score_threshold)
        every = [prepared] if isinstance(prepared, Prepared) else prepared
        found = []
        for _, alike in itertools.groupby(every, lambda one: one.images.shape):
            for some in in_batches(list(alike), self.details.batch):
                images = some[0].images
                if not self.details.resizes:
                    images = filled_up(np.concatenate([one.images for one in some]), self.details.batch)
                outputs = self.run(images)
                for index, one in enumerate(some):
                    own = [output[index : index + 1] for output in outputs]
                    found.append(as_found(own, one, self.details))
        # Soft NMS lowers scores below the threshold inside the file, after it.
        return [one[one.scores > score_threshold] if score_threshold > LEAST_SCORE else one for one in found]


class ExportedClassifier:
    """A classifier in a file, with the methods for inference of a `Classifier`, on NumPy arrays."""

    def __init__(self, details: Details, run: Run, fingerprint: str = "") -> None:
        self.details, self.run, self.fingerprint = details, run, fingerprint
        self.spec, self.provenance = details.spec, details.provenance

    def predict_images(self, images: Any | Sequence[Any], *, top: int = 5) -> list[Classified]:
        """The `top` most probable classes of images as `Classifier.predict_images` takes them."""
        check_least(1, top=top)
        batches = in_batches(as_list(images), self.details.batch)
        squares = (np.concatenate([self.prepare(image) for image in batch]) for batch in batches)
        return [one for batch in squares for one in self.classify(batch, top=top)]

    def prepare(self, image: Any) -> UInt8[np.ndarray, "1 3 S S"]:
        """An image of any kind, as `classify` wants it."""
        square = middle_square(as_rgb_array(image), self.spec.image_size)
        return np.ascontiguousarray(square.transpose(2, 0, 1)[None])

    def predict(self, squares: UInt8[np.ndarray, "N 3 S S"]) -> Float[np.ndarray, "N K"]:
        """The probability of each class, of each image."""
        batches = in_batches(squares, self.details.batch)
        parts = [self.run(filled_up(some, self.details.batch))[0][: len(some)] for some in batches]
        return np.concatenate(parts).astype(np.float32)

    def classify(self, squares: UInt8[np.ndarray, "N 3 S S"], *, top: int) -> list[Classified]:
        """The `top` most probable classes of each image, as `Classifier.classify` does."""
        found = []
        for probabilities in self.predict(squares):
            labels = np.argsort(-probabilities, kind="stable")[:top]
            names = tuple(self.spec.class_names[label] for label in labels)
            found.append(Classified(labels, probabilities[labels], names))
        return found


Exported = ExportedDetector | ExportedClassifier


def load_export(file: str | os.PathLike[str], threads: int | None = None) -> Exported:
    """Reads a file that `gcnet export` wrote: a .onnx, or an .xml of OpenVINO with its .bin beside it.

    Raises:
        GCNetError: the file or the runtime's package is missing, or the runtime cannot read it.
    """
    path = Path(file)
    if not path.is_file():
        raise GCNetError(f"{path} does not exist: give a file that gcnet export wrote")
    details, run = (_load_openvino if path.suffix == ".xml" else _load_onnx)(path, threads)
    return exported(details, run, _fingerprint(path))


def exported(details: Details, run: Run, fingerprint: str = "") -> Exported:
    """What a file of these `details` holds; `run` gives its outputs."""
    kind = ExportedClassifier if details.kind == "classifier" else ExportedDetector
    return kind(details, run, fingerprint)


def _fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    for part in [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]:
        with open(part, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def own_batch(model: Any) -> int | None:
    """The number of images that an export takes at a time; None for other models."""
    return model.details.batch if isinstance(model, Exported) else None


def in_batches(images: Any, most: int) -> list[Any]:
    """A list or an array in parts of `most`; the last may be shorter."""
    return [images[start : start + most] for start in range(0, len(images), most)]


def filled_up(images: np.ndarray, count: int) -> np.ndarray:
    """`count` images, of which those that lack repeat the last one."""
    return np.concatenate([images, *[images[-1:]] * (count - len(images))])


# Images and boxes --------------------------------------------------------------------------------------


def prepare(image: UInt8[np.ndarray, "H W 3"], details: Details) -> Prepared:
    """An image as a detector's file wants it.

    A file of fixed size gets the image as large as it fits, on the mean colour, which the network takes for
    zeros, as those beside its own images. A file that resizes gets the image as it is.
    """
    original = (image.shape[0], image.shape[1])
    if details.resizes:
        if details.size not in (None, original):
            height, width = details.size
            raise GCNetError(
                f"an image is {original[0]} x {original[1]} (height x width): this file takes those of "
                f"{height} x {width}"
            )
        return Prepared(np.ascontiguousarray(image), original, original)
    size = fit_size(original, details.image_size, details.resize)
    if details.size is not None:
        scale = min(details.size[0] / original[0], details.size[1] / original[1])
        size = scaled_size(original, scale, details.resize)
    pixels = resize_image(image, size, details.resize)
    mean = details.image_mean if pixels.dtype.kind == "f" else np.rint(details.image_mean)
    framed = np.empty((1, 3, *(details.size or size)), pixels.dtype)
    framed[:] = np.reshape(mean, (3, 1, 1))
    framed[0, :, : size[0], : size[1]] = pixels.transpose(2, 0, 1)
    return Prepared(framed, original, size)


def as_found(outputs: Sequence[np.ndarray], prepared: Prepared, details: Details) -> Found:
    """The first image of a file's outputs as detections, in pixels of the original image."""
    boxes, scores, labels, valid = (output[0] for output in outputs[:4])
    probs = outputs[4][0].astype(np.float32) if details.masks else None
    (height, width), size = prepared.original, prepared.size
    factors = np.array([size[1] / width, size[0] / height] * 2, np.float32)
    # Of "inclusive" boxes it is the last pixels that are divided.
    end = np.array([0, 0, 1, 1], np.float32) * (details.coordinates == "inclusive")
    corners = (boxes.astype(np.float32) - end) / factors + end
    corners = corners.clip(0, np.array([width, height] * 2, np.float32))
    frames = corners
    if probs is not None and details.coordinates == "torchvision":
        frames = _whole_pixel_frames(corners, probs.shape[-1])
    found = Found(
        corners, scores.astype(np.float32), labels.astype(np.int64), probs, prepared.original, frames
    )
    inside = (corners[:, 2:] > corners[:, :2]).all(1)  # not in the padding of a file of one size
    return found[valid.astype(bool) & inside]


def _whole_pixel_frames(boxes: Float[np.ndarray, "D 4"], grid: int) -> Float[np.ndarray, "D 4"]:
    """`gcnet.models.coordinates.whole_pixel_frames`, which is of tensors."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5
    half = half * np.float32((grid + 2) / grid)
    low, high = np.trunc(centre - half), np.trunc(centre + half)
    size = (high - low + 1).clip(1)
    cell = size / np.float32(grid + 2)
    return np.concatenate([low + cell, low + size - cell], axis=1)


# Runtimes ----------------------------------------------------------------------------------------------


def _load_onnx(file: Path, threads: int | None) -> tuple[Details, Run]:
    runtime = needs("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # A program of a stranger's may refer to other files beside itself; ours are whole.
    with told(f"ONNX Runtime cannot read {file}"):
        session = runtime.InferenceSession(
            file.read_bytes(), options, providers=runtime.get_available_providers()
        )
    details = Details.parse(session.get_modelmeta().custom_metadata_map.get(DETAILS), file)
    given = session.get_inputs()[0].name

    def run(images: np.ndarray) -> list[np.ndarray]:
        with told(f"ONNX Runtime cannot run {file}"):
            return session.run(list(details.outputs), {given: images})

    return details, run


def _load_openvino(file: Path, threads: int | None) -> tuple[Details, Run]:
    openvino = needs("openvino", "openvino")
    if not (weights := file.with_suffix(".bin")).is_file():
        raise GCNetError(f"{file} has its weights in {weights.name}, which is not beside it: copy both")
    with told(f"OpenVINO cannot read {file}"):
        core = openvino.Core()
        # A file that is mapped and then overwritten, as by cp, changes what is found, or ends the process.
        core.set_property({"ENABLE_MMAP": False})
        model = core.read_model(file)
    said = model.get_rt_info(DETAILS).astype(str) if model.has_rt_info(DETAILS) else None
    details = Details.parse(said, file)
    # By itself it computes in bfloat16 where the processor has it.
    options = {} if details.precision == "fp16" else {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    with told(f"OpenVINO cannot compile {file}"):
        compiled = core.compile_model(model, "CPU" if threads else "AUTO", options)

    def run(images: np.ndarray) -> list[np.ndarray]:
        with told(f"OpenVINO cannot run {file}"):
            results = compiled.create_infer_request().infer([images])
            return [results[name] for name in details.outputs]

    return details, run


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Tells an error of a runtime in one line; their kinds have no common base."""
    try:
        yield
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception from")]
        raise GCNetError(f"{what}: {(lines or [type(error).__name__])[0][:200]}") from error
