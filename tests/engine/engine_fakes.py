"""A detector and data that take milliseconds, so that the tests are about the engine alone."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from gcnet.data.dataset import DataSet, LabelledImage
from gcnet.engine.task import DETECTION
from gcnet.engine.train import TrainResult, train
from gcnet.evaluation.coco_ap import Metrics
from gcnet.models.detector import Detector
from gcnet.models.spec import ModelSpec
from gcnet.recipe import Recipe
from gcnet.types import Batch, Targets

IMAGES = 6
PER_EPOCH = 3
AP = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class FakeDetector(Detector):
    """Regresses random numbers (as a detector samples anchors) from the picture's mean.

    `nan_at` makes the loss of that call NaN, `calls` counts them.
    """

    def __init__(self, *, seed: int = 0, nan_at: int | None = None) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(seed)
        self.spec = ModelSpec(name="fake", class_names=("square", "disc"))
        self.provenance = {}
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.unused = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.nan_at, self.calls = nan_at, 0

    def losses(self, batch: Batch, targets: list[Targets]) -> dict[str, Tensor]:
        self.calls += 1
        out = self.norm(self.layer(batch.images.float().mean((2, 3)) / 255))
        loss = (out - torch.rand_like(out)).square().mean()
        return {"loss_cls": loss * (math.nan if self.calls == self.nan_at else 1), "loss_box": loss * 0.5}


class FakeLoader:
    """Two pictures a batch that depend on the position in the stream alone, as the real loader has it."""

    def __init__(self, start: int, rank: int, world: int) -> None:
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[tuple[Batch, list[Targets]]]:
        position = self.start
        while True:
            generator = torch.Generator().manual_seed(position * self.world + self.rank)
            shape = (2, 3, 32, 32)
            images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
            ids = [2 * position % IMAGES + 100, (2 * position + 1) % IMAGES + 100]
            empty = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), [])
            yield Batch(images, [(32, 32)] * 2, [(32, 32)] * 2, ids), [empty, empty]
            position += 1


def fake_metrics(mask_ap: float) -> Metrics:
    return Metrics(dict.fromkeys(AP, 0.5), dict.fromkeys(AP, 0.25) | {"AP": mask_ap}, {})


def fake_recipe(**changes: Any) -> Recipe:
    values = {
        "epochs": 3,
        "batch_size": 2,
        "lr": 0.1,
        "lr_batch_size": 0,
        "warmup_iterations": 2,
        "steps": (2,),
    }
    return Recipe(**(values | {"accelerator": "cpu", "devices": 1, "workers": 0} | changes))


def run_fake(
    out: Path,
    *,
    detector: FakeDetector | None = None,
    resume: Any = False,
    validate: Any = lambda *_, **__: (fake_metrics(0.25), []),
    valid: bool = True,
    images: int = 0,
    curves: bool = False,
    **recipe: Any,
) -> TrainResult:
    """`train` on the fakes; `validate` stands in for the scores, and `images` for what the data set holds.

    `curves`: they are drawn in the end, which takes longer than all the rest.
    """
    names = [f"\udcff{number}.jpg" for number in range(images)]  # no UTF-8, as of old archives
    records = [LabelledImage(Path(name), 0) for name in names]
    detector = detector or FakeDetector()
    dataset = DataSet(Path("none.json"), records, detector.spec.class_names, (1, 2))
    task = replace(DETECTION, optimized=lambda detector: detector)
    stand_ins = {
        "train.task_of": lambda *_: task,
        "batch_size.iterations_per_epoch": lambda *_, **__: PER_EPOCH,
        "batch_size.epoch_size": lambda *_, **__: IMAGES,
        "begin.iterations_per_epoch": lambda *_, **__: PER_EPOCH,
        "validation.iterations_per_epoch": lambda *_, **__: PER_EPOCH * 2,
        "run.train_loader": lambda _, *, start_iteration, rank, world_size, **__: FakeLoader(
            start_iteration, rank, world_size
        ),
        "budget.predict_all": lambda _, __, indices, **___: [None] * len(indices),
        "validation.predict_all": lambda _, __, indices, **___: [None] * len(indices),
        "validation.score_all": lambda *_: validate()[0],
        "validation.as_results": lambda _: [],
    }
    if not curves:
        stand_ins["train.draw_curves"] = lambda *_: None
    with contextlib.ExitStack() as stack:
        for place, stand_in in stand_ins.items():
            stack.enter_context(mock.patch(f"gcnet.engine.{place}", stand_in))
        return train(
            detector,
            dataset,
            dataset if valid else None,
            fake_recipe(**recipe),
            out,
            resume=resume,
            data={"data": "photos"},
        )


@contextlib.contextmanager
def slow_clock(later: Callable[[int], float] = lambda look: 0.0, tick: float = 0.5) -> Iterator[None]:
    """In it a run with a `time` sees iterations take `tick` seconds, and `later` more at the n-th look."""
    start, looks = time.monotonic(), itertools.count()

    def monotonic() -> float:
        look = next(looks)
        return start + look * tick + later(look)

    with mock.patch("gcnet.engine.budget.time", SimpleNamespace(monotonic=monotonic)):
        yield


def press_ctrl_c(model: Any, at: int | None, number: int = signal.SIGINT) -> None:
    """Has the process send itself a signal when `model` computes its losses for the `at`-th time."""
    plain, calls = model.losses, []

    def losses(*args: Any) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return plain(*args)

    model.losses = losses
