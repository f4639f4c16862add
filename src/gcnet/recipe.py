"""How a model is trained, as frozen data: no torch here, so that `gcnet train --help` is quick."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from gcnet.console import form_of, shown
from gcnet.errors import GCNetError
from gcnet.image_files import MAX_PIXELS

MOST_EPOCHS = 10**6
# Least and most of each number. A value outside is a mistake, and would overflow, hang or fill the memory.
_LIMITS = {
    "epochs": (1, MOST_EPOCHS),
    "batch_size": (1, 1 << 16),
    "accumulate": (1, 1 << 16),
    "lr_batch_size": (0, 1 << 20),
    "momentum": (0, 1),
    "backbone_lr": (0, 100),
    "weight_decay": (0, 1e6),
    "warmup_iterations": (0, 10**9),
    "warmup_factor": (0, 1e6),
    "clip_norm": (0, 1e12),
    "flip": (0, 1),
    "color_jitter": (0, 10),
    "quarter_turns": (0, 1),
    "rotation": (0, 180),
    "copy_paste": (0, 1),
    "max_pixels": (1, 1 << 62),
    "repeat_threshold": (0, 1),
    "max_detections": (1, 100_000),  # as many as a model's file may say
    "validate_every": (1, 10**6),
    "patience": (0, 10**9),
    "checkpoint_every": (0, 1e9),
    "workers": (0, 1 << 10),
    "devices": (0, 1 << 16),
    "seed": (0, (1 << 31) - 1),  # with an iteration and a process, it still fits into torch's
    "mixup": (0, 1e6),
}
BatchSize = int | Literal["auto"]
Schedule = Literal["step", "cosine", "onecycle", "free"]
DIVISION = ("val_fraction", "group_by", "split_file", "crowd_as_objects")  # fields on how data is read
_TIME = re.compile(r"(?=.)" + "".join(rf"(?:(\d+\.?\d*|\.\d+){unit})?" for unit in "hms"))  # 1h30m


def seconds_of(time: str) -> float:
    """The seconds of a time such as "90s", "30m", "1h30m"; 0 if it is not one."""
    if not (parts := _TIME.fullmatch(time)):
        return 0.0
    hours, minutes, seconds = (float(part or 0) for part in parts.groups())
    return hours * 3600 + minutes * 60 + seconds


# The augmentation of images that are shown as they are.
_STILL: dict[str, Any] = {"scale_jitter": (1.0, 1.0), "crop": 1.0} | dict.fromkeys(
    ("flip", "color_jitter", "quarter_turns", "rotation", "copy_paste", "mixup"), 0.0
)

_Rules = Mapping[str, tuple[Callable[[Any], bool], str]]
_BELOW_ONE = (lambda share: 0 <= share < 1, "give 0 or more, less than 1")
# What else must hold of a field, and what to do where it does not.
_RULES: _Rules = {
    "val_fraction": _BELOW_ONE,
    "ema": _BELOW_ONE,
    "time": (lambda time: not time or 0 < seconds_of(time) < inf, "give a time such as 90s, 30m or 1h30m"),
    "lr": (lambda lr: 0 < lr < inf, "give a positive number"),
    "steps": (lambda steps: min(steps or (0,)) >= 0, "give numbers of epochs, 0 or more"),
    "crop": (lambda crop: 0 < crop <= 1, "give a share of the sides, at most 1"),
    "image_size": (
        lambda size: size is None or 1 <= min(size) <= max(size) <= 1 << 16,
        "give two sides of 1 to 65536 pixels",
    ),
    "scale_jitter": (
        lambda factors: 0.01 <= factors[0] <= factors[1] <= 100,
        "give smallest <= largest, both in [0.01, 100]",
    ),
}
_RULES_OF_CLASSIFIERS: _Rules = {
    "crop": (lambda crop: crop == 1, "it is for detectors; scale_jitter crops for classifiers"),
    "copy_paste": (lambda share: share == 0, "it is for detectors; leave it out"),
    "label_smoothing": _BELOW_ONE,
    "scale_jitter": (lambda shares: shares[1] <= 1, "a crop shows at most 1, the whole"),
    "image_size": (
        lambda size: size is None or 1 <= size[1] <= size[0],
        "give the side to resize to and a square within it",
    ),
}


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of the type of a field; a whole number is a number, and true or false is none."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return value in parts
    if get_origin(kind) in (Union, UnionType):
        return any(_is_of(value, part) for part in parts)
    if get_origin(kind) is tuple:
        fits = isinstance(value, tuple) and (parts[-1] is Ellipsis or len(value) == len(parts))
        return fits and all(_is_of(one, parts[0]) for one in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


@dataclass(frozen=True)
class Recipe:
    """How a detector is trained. The defaults are the paper's "1x" schedule (arXiv 1904.11492, section 5.1).

    `Recipe(epochs=24)` is its "2x" schedule: the steps follow the number of epochs.

    Attributes:
        epochs: passes over the training images.
        time: how long to train, such as "90s", "30m" or "1h30m", validations included. It replaces `epochs`:
            the first iterations are timed, and as many epochs are trained as fit. `warmup_iterations` are
            then at most a tenth of the run, and there are at most 12 validations.
        batch_size: images in one step of the optimizer, over all devices together. "auto" takes the largest
            power of two that fits into a GPU's memory and leaves the run 1000 iterations; on a CPU it is 4.
        accumulate: number of parts that a device splits its share of a batch into. They are computed one
            after the other and their gradients added, which takes less memory. The result is the same where
            norms are frozen.
        lr: learning rate for `lr_batch_size` images a step; it is scaled in proportion to `batch_size`.
        lr_batch_size: the batch size that `lr` is meant for; 0 takes `lr` as it is.
        optimizer: "sgd" or "adamw".
        momentum: of "sgd".
        weight_decay: weight decay of every trained parameter, norms and biases included, as in mmdetection.
        backbone_lr: learning rate of the backbone as a share of `lr`, such as 0.1.
        freeze: the backbone is not trained up to and including this stage: "stem", "c2", "c3" or "c4".
            "backbone" freezes all of it, "none" nothing, "own" what the model's row says: stem and c2 in
            published models.
        schedule: "step" divides the rate by ten at `steps`; "cosine" lowers it to zero; "onecycle" (arXiv
            1708.07120) raises it over the first 30 % of the run, then lowers it to zero, and ignores
            `warmup_iterations`; "free" keeps it, and the model is an average of the weights (arXiv
            2405.15682, for "adamw"): good at any time, best for few images.
        steps: epochs after which "step" divides the rate by ten. By default two thirds and eleven twelfths of
            `epochs`: 8 and 11 of 12 ("1x"), 16 and 22 of 24 ("2x").
        warmup_iterations: iterations in which the rate rises linearly from `warmup_factor` of itself.
        warmup_factor: share of the rate that the warm-up begins with.
        clip_norm: largest gradient norm; 0 does not clip.
        ema: decay of a moving average of the weights, such as 0.999; 0 keeps none. The average is what is
            validated, and is saved as best.safetensors and last-ema.safetensors.
        flip: probability of a horizontal flip.
        scale_jitter: smallest and largest factor on the size that images are resized to.
        color_jitter: strength of random brightness, contrast and saturation, 0 for none.
        quarter_turns: probability of a turn by 90, 180 or 270 degrees.
        rotation: largest angle of a random rotation in either direction, in degrees.
        crop: smallest share of each side that a random crop shows; 1 does not crop.
        copy_paste: probability that objects of another image are pasted in (arXiv 2012.07177).
        val_fraction: share of the images that is held out for validation if the data has no splits.
        group_by: if the data has no splits, images that agree in this are held out together: a field of
            COCO's images, such as `patient`, or a regular expression for their paths.
        split_file: the split.json of a run: its validation images are held out again.
        crowd_as_objects: use objects marked iscrowd like all others. CVAT marks masks of its brush so.
        skip_bad_images: leave out images that are broken or not of their annotated size.
        max_pixels: largest number of pixels of an image. Larger images count as bad; they are not decoded.
        keep_empty: train on images without objects too.
        ignore_crowds: do not learn regions marked iscrowd as background. Objects marked `ignore` are always
            treated so. Published models were trained without this option.
        repeat_threshold: show images of rare classes more often: of a class in a smaller share of the images
            than this, sqrt(threshold / share) times (LVIS, arXiv 1908.03195, takes 0.001). 0 shows all once.
        class_weights: weights of the classes in the classification loss. "auto" is one over the square root
            of a class's number of objects, scaled to a mean of 1. Or JSON by name, such as {"crack": 3}; the
            other classes, and background always, have weight 1.
        max_detections: most detections in an image; by default the model's own number, 100.
        image_size: (long, short) side that images are resized to fit in; by default the model's own.
        precision: "fp32", or mixed precision with "bf16" or "fp16" (whose loss is scaled).
        recompute_activations: save memory by computing activations again in the backward pass, for a third
            more computing; the numbers stay the same.
        validate_every: epochs between validations; the last epoch is always validated.
        validation_loss: compute the losses of the validation images too, as `valid_loss`.
        patience: validations without a better score after which the run ends; 0 never ends it early.
        loggers: where metrics are written beside metrics.csv: "tensorboard", "wandb", "mlflow".
        checkpoint_every: minutes between checkpoints, beside the one at the end of each epoch.
        workers: loader processes for each device.
        devices: number of devices; 0 takes all there are.
        accelerator: "auto", "cpu" or "gpu".
        seed: seed of initialisation, sampling and augmentation.
    """

    epochs: int = 12
    time: str = ""
    batch_size: BatchSize = 16
    accumulate: int = 1
    lr: float = 0.02
    lr_batch_size: int = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    backbone_lr: float = 1.0
    freeze: Literal["own", "none", "stem", "c2", "c3", "c4", "backbone"] = "own"
    schedule: Schedule = "step"
    steps: tuple[int, ...] | None = None
    warmup_iterations: int = 500
    warmup_factor: float = 0.001
    clip_norm: float = 0.0
    ema: float = 0.0
    flip: float = 0.5
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    color_jitter: float = 0.0
    quarter_turns: float = 0.0
    rotation: float = 0.0
    crop: float = 1.0
    copy_paste: float = 0.0
    val_fraction: float = 0.2
    group_by: str = ""
    split_file: str = ""
    crowd_as_objects: bool = False
    skip_bad_images: bool = False
    max_pixels: int = MAX_PIXELS
    keep_empty: bool = False
    ignore_crowds: bool = False
    repeat_threshold: float = 0.0
    class_weights: str = ""
    max_detections: int | None = None
    image_size: tuple[int, int] | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    recompute_activations: bool = False
    validate_every: int = 1
    validation_loss: bool = False
    patience: int = 0
    loggers: tuple[str, ...] = ("tensorboard",)
    checkpoint_every: float = 10.0
    workers: int = 2
    devices: int = 0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), field.type
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            if not _is_of(value, kind):
                raise GCNetError(f"recipe: {field.name} is {shown(repr(value))}; give {form_of(kind)}")
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name, None)
            if value not in (None, "auto") and not least <= value <= most:  # NaN is not
                limit = f"{most} or less" if value > most else f"{least} or more"
                raise GCNetError(f"recipe: {name} is {value}; give {limit}")
        self._check(_RULES)
        self.parsed_class_weights()
        if self.schedule == "free" and (self.optimizer != "adamw" or self.ema):
            raise GCNetError(
                'recipe: schedule "free" averages the weights itself: give optimizer adamw and ema 0, '
                "or another schedule, such as cosine"
            )

    def _check(self, rules: _Rules) -> None:
        for name, (holds, advice) in rules.items():
            value = getattr(self, name)
            if not holds(value):
                raise GCNetError(f"recipe: {name} is {shown(value)}; {advice}")

    def step_epochs(self) -> tuple[int, ...]:
        """`steps`, or their default for this number of epochs."""
        if self.steps is not None:
            return self.steps
        return round(self.epochs * 2 / 3), round(self.epochs * 11 / 12)

    def parsed_class_weights(self) -> dict[str, float] | None:
        """The class weights by name; None for "auto". Raises GCNetError if the field is neither."""
        if self.class_weights == "auto":
            return None
        try:
            found = json.loads(self.class_weights or "{}")
            if isinstance(found, dict) and all(0 < float(weight) <= 1e6 for weight in found.values()):
                return {name: float(weight) for name, weight in found.items()}
        except (ValueError, TypeError, OverflowError, RecursionError):
            pass
        raise GCNetError(
            f"recipe: class_weights is {shown(self.class_weights)}; give auto, or positive numbers by name, "
            'such as {"crack": 3}'
        )

    def without_augmentation(self) -> "Recipe":
        """A copy that shows images as evaluation does."""
        return replace(self, **{name: value for name, value in _STILL.items() if hasattr(self, name)})

    def division(self) -> dict[str, Any]:
        """The fields that say how a data set is read, as `gcnet.load_splits` takes them."""
        return {name: getattr(self, name) for name in DIVISION}

    def scaled_lr(self) -> float:
        """The learning rate that is used: `lr` in proportion to the batch size."""
        return self.lr * int(self.batch_size) / self.lr_batch_size if self.lr_batch_size else self.lr


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """How a classifier is trained: the fields of `Recipe`, two of them with another meaning, and two more.

    Attributes:
        scale_jitter: smallest and largest share of an image's area that a random crop shows; (1, 1) shows
            the middle square, as evaluation does.
        image_size: the short side that images are resized to, and the side of the square that is cut from
            their middle. Random crops are resized to this square. By default the model's own.
        label_smoothing: share of a label that is divided evenly over all classes, in [0, 1).
        mixup: strength (alpha) of mixing pairs of images and their labels; 0 does not mix, 0.2 is usual.
    """

    epochs: int = 40
    batch_size: BatchSize = 64
    lr: float = 0.01
    lr_batch_size: int = 64
    schedule: Schedule = "cosine"
    warmup_iterations: int = 100
    scale_jitter: tuple[float, float] = (0.25, 1.0)
    label_smoothing: float = 0.1
    mixup: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(_RULES_OF_CLASSIFIERS)
