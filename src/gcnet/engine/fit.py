"""One run of Lightning's Trainer: devices, precision, and an orderly end when the user presses Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from gcnet.engine.helpers import Helpers
from gcnet.engine.module import TrainingModule
from gcnet.errors import GCNetError
from gcnet.models.modes import recompute_activations
from gcnet.recipe import Recipe


@dataclass(frozen=True)
class Devices:
    """Where to train: "cpu" or "gpu", how many on this machine, and on how many machines."""

    accelerator: str
    local: int
    nodes: int = 1

    @property
    def world(self) -> int:
        return self.local * self.nodes


def choose_devices(recipe: Recipe) -> Devices:
    """The devices that the recipe asks for, checked.

    Raises:
        GCNetError: there is no such device, or the batch cannot be shared out evenly.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind = recipe.accelerator if recipe.accelerator != "auto" else ("gpu" if gpus else "cpu")
    if kind == "gpu" and max(recipe.devices, 1) > gpus:
        raise GCNetError(
            f"recipe: {max(recipe.devices, 1)} GPUs asked for, {gpus} found; "
            "use --accelerator cpu or fewer --devices"
        )
    local = recipe.devices or int(os.environ.get("LOCAL_WORLD_SIZE", 0)) or (gpus if kind == "gpu" else 1)
    nodes = int(os.environ.get("WORLD_SIZE", local)) // local if "LOCAL_WORLD_SIZE" in os.environ else 1
    devices = Devices(kind, local, nodes)
    if recipe.batch_size % devices.world:
        raise GCNetError(
            f"recipe: batch_size {recipe.batch_size} cannot be shared out to {devices.world} devices; "
            "use a multiple"
        )
    return devices


def fit(module: TrainingModule, recipe: Recipe, devices: Devices, callbacks: list[Callback]) -> None:
    """Runs Lightning's loop over what is left of the run.

    Raises:
        NotFiniteError: a loss or gradient is NaN or infinite.
        GCNetError: the process of another device died.
        KeyboardInterrupt: the second Ctrl-C; after the first, `module.stop_requested` is set.
    """
    on_gpu = devices.accelerator == "gpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    if module.start >= module.total:
        module.to(device)
        return
    synchronise = on_gpu and devices.world > 1 and "sync" in module.model.spec.norms
    strategy: Any = "auto"
    if devices.world > 1:  # the others wait while one validates, which takes its time on large data
        strategy = DDPStrategy(process_group_backend="nccl" if on_gpu else "gloo", timeout=timedelta(hours=6))
    less = recompute_activations(module.model) if recipe.recompute_activations else contextlib.nullcontext()
    helpers = Helpers()
    with _quiet(), _interruptible(module), less:
        trainer = Trainer(
            accelerator=devices.accelerator,
            devices=devices.local,
            num_nodes=devices.nodes,
            strategy=strategy,
            precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
            max_steps=module.total - module.start,
            callbacks=[helpers, *callbacks],
            sync_batchnorm=synchronise,
            use_distributed_sampler=False,  # the loader's own sampler knows ranks and where to start
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(module)
        except SystemExit:  # what Lightning makes of a KeyboardInterrupt
            helpers.end()
            raise KeyboardInterrupt from None
        except BaseException as error:
            # Gloo raises when a process is gone; on GPUs one waits, and `Helpers` has a thread for that.
            death = None if isinstance(error, GCNetError | KeyboardInterrupt) else helpers.death(wait=5.0)
            helpers.end()
            if death:
                raise death from error
            raise
        helpers.over()


@contextlib.contextmanager
def _interruptible(module: TrainingModule) -> Iterator[None]:
    """The first Ctrl-C lets the iteration end; the second, or one in a validation, acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def handle(number: int, frame: Any) -> None:
        if os.getpid() != process:  # a loader's worker, which inherits this; its parent decides
            return
        if module.stop_requested or module.validating:
            raise KeyboardInterrupt
        module.stop_requested = True
        if rank_zero_only.rank == 0:
            print("stopping after this iteration (Ctrl-C again: at once)", file=sys.stderr, flush=True)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on devices, workers and its other products."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        # On a CPU gradients of 1x1 convolutions are channels-last; copying them costs nothing there.
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
