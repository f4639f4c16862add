"""On a GPU nothing mixes devices, and a training step does not wait for it: seen without one.

PyTorch's fake tensors have a shape, a type and a device, and no content. An operation on tensors of two
devices raises, and so does one whose result depends on content, for which a GPU would have to be waited for.
They are PyTorch's own means of tracing and not quite public: without them these tests are skipped.

Non-maximum suppression is told not to ask if it is done, as for a CUDA graph. Where gradients are wanted,
"meta" stands for the GPU: the engine of autograd asks for a driver of "cuda".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gcnet.context import record
from gcnet.engine.schedule import make_optimizer
from gcnet.models.detector import Detector
from gcnet.models.modes import recompute_activations
from gcnet.models.postprocess import to_original
from gcnet.models.spec import AggregateSpec, ContextSpec, ModelSpec, Precision, SoftNMSSpec
from gcnet.ops import nms
from gcnet.recipe import Recipe
from gcnet.types import Batch, Detections, Targets
from gcnet.weights.catalog import find_detector
from lively import lively_detector

fake_tensor = pytest.importorskip("torch._subclasses.fake_tensor")


class Moves(TorchDispatchMode):
    """Notes operations between devices: copies, for which one usually waits. Numbers are no matter."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        if len({t.device.type for t in tensors if t.dim() or t.device.type != "cpu"}) > 1:
            self.found.append(f"{func.name()} {[tuple(t.shape) for t in tensors]}")
        return out


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    with nms.without_waiting():
        yield


@contextmanager
def fake(model: nn.Module, device: str) -> Iterator[None]:
    """Inside, tensors are fake, and `model` is on `device`: what `Module.to` would move, and nothing else."""
    with fake_tensor.FakeTensorMode():

        def moved(tensor: Tensor) -> Tensor:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(moved(parameter), parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = moved(buffer)
        yield


def a_batch(device: str) -> Batch:
    images = torch.zeros(2, 3, 96, 128, dtype=torch.uint8)
    return Batch(images, [(96, 120), (70, 128)], [(192, 240), (140, 256)], [0, 1]).to(device)


def objects(count: int, device: str) -> Targets:
    labels, outlines = torch.zeros(count, dtype=torch.int64), torch.zeros(count, 56, 56, dtype=torch.uint8)
    return Targets(torch.rand(count, 4), labels, [[]] * count, outlines, torch.rand(count, 4)).to(device)


def spec_of(name: str, **backbone: Any) -> ModelSpec:
    """The model of a row on the tiny backbone."""
    tiny, spec = find_detector("mask_rcnn_tiny").spec.backbone, find_detector(name).spec
    return replace(spec, class_names=("a", "b"), backbone=replace(tiny, **backbone))


def with_roi(spec: ModelSpec, **changes: Any) -> ModelSpec:
    return replace(spec, roi=replace(spec.roi, **changes))


GROIE = ContextSpec(block="ga", heads=2, terms="0100", mirrored=True)
SPECS = {
    "plain": spec_of("mask_rcnn_tiny"),
    "gc": spec_of("mask_rcnn_tiny", context=ContextSpec(ratio=1 / 4)),
    "scale": spec_of("mask_rcnn_tiny", context=ContextSpec(ratio=1 / 4, fusion=("add", "scale"))),
    "gc sync": spec_of("mask_rcnn_tiny", context=ContextSpec(ratio=1 / 4), norm="sync"),
    "nl after add": spec_of("mask_rcnn_tiny", context=ContextSpec(block="nl", position="after_add")),
    "se group": spec_of("mask_rcnn_tiny", context=ContextSpec(ratio=1 / 4, block="se"), norm="group"),
    "inclusive": replace(spec_of("mask_rcnn_tiny"), coordinates="inclusive"),
    "soft nms": with_roi(spec_of("mask_rcnn_tiny"), soft_nms=SoftNMSSpec()),
    "all levels": with_roi(
        spec_of("mask_rcnn_tiny", scales=4, group_width=32, deep_stem=True), aggregate=AggregateSpec(3, GROIE)
    ),
    "cascade dcn": spec_of("cascade_mask_rcnn_x101_syncbn", deformable_stages=(False, True, True, True)),
}


def test_what_waits_or_moves_is_noticed() -> None:
    content = (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException)
    with fake_tensor.FakeTensorMode(), Moves() as moves:
        x = torch.rand(3, device="cuda")
        for wait in (x.nonzero, x.max().item, lambda: x[x > 0], lambda: bool(x.any()), x.tolist):
            with pytest.raises(content):
                wait()
        with pytest.raises(RuntimeError, match="device"):
            _ = x + torch.rand(3)
        assert not moves.found
        x.cpu()
        torch.tensor([0.0, 1.0], device="cuda")
        assert len(moves.found) == 2


@pytest.mark.parametrize(("kind", "counts"), [*((kind, (2, 0)) for kind in SPECS), ("plain", (0, 0))])
def test_a_training_step_neither_moves_nor_waits(kind: str, counts: tuple[int, int]) -> None:
    model = Detector(SPECS[kind]).train()
    with fake(model, "meta"):
        batch, targets = a_batch("meta"), [objects(count, "meta") for count in counts]
        with Moves() as moves:
            losses = model.losses(batch, targets)
            torch.stack(list(losses.values())).sum().backward()
        assert moves.found == []
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name


@contextmanager
def autocast(enabled: bool) -> Iterator[None]:
    """`torch.autocast("cuda")`, which does nothing where there is no GPU."""
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


@pytest.mark.parametrize("kind", SPECS)
def test_a_step_under_autocast(kind: str) -> None:
    model = Detector(SPECS[kind]).train()
    with fake(model, "cuda"), autocast(True), recompute_activations(model):
        batch, targets = a_batch("cuda"), [objects(3, "cuda"), objects(0, "cuda")]
        with Moves() as moves:
            losses = model.losses(batch, targets)
        assert moves.found == []
        assert {(loss.device.type, loss.dtype) for loss in losses.values()} == {("cuda", torch.float32)}


def infer(model: Detector, device: str) -> list[Detections]:
    """`Detector.predict`, but for counting at its end what was found, and the masks drawn."""
    with torch.no_grad():
        batch = a_batch(device)
        with Moves() as moves:
            threshold = torch.full((), 0.05, device=device)
            detections = model._find_static(batch.images, batch.extents, threshold)
            detections = [to_original(one, batch, index) for index, one in enumerate(detections)]
            assert all(one.masks.device.type == device for one in detections)
        assert moves.found == []
        return [one.to("cpu") for one in detections]


@pytest.mark.parametrize(
    ("kind", "precision"),
    [*((kind, "fp32") for kind in SPECS), *((kind, "fp16") for kind in ("gc", "cascade dcn", "all levels"))],
)
def test_inference_stays_on_its_device(kind: str, precision: Precision) -> None:
    model = Detector(SPECS[kind]).optimize(precision=precision)
    with fake(model, "cuda"):
        for one in infer(model, "cuda"):
            assert one.boxes.dtype == one.scores.dtype == torch.float32
    # Where cuDNN has no engine for a convolution with its ReLU, as for fake tensors, it does without.
    assert model.rpn.conv.cudnn == (precision == "fp32")


def test_recorded_maps_come_to_the_cpu() -> None:
    model = lively_detector(ContextSpec(block="nl")).eval()
    with fake(model, "cuda"), record(model) as maps, torch.no_grad():
        model.features(a_batch("cuda"))
        assert {attention.device.type for attention in maps.values()} == {"cpu"}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_optimisers_accept_parameters_on_a_gpu(optimizer: str) -> None:
    model = Detector(SPECS["plain"])
    with fake(model, "cuda"):
        made = make_optimizer(model, Recipe(optimizer=optimizer))
        assert all(p.device.type == "cuda" for group in made.param_groups for p in group["params"])
