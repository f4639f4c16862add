"""Which rows go where when the classes change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gcnet.models.detector import Detector
from gcnet.models.spec import CascadeSpec
from gcnet.weights.catalog import find
from gcnet.weights.class_rows import carry_over, match_classes
from gcnet.weights.files import fill_weights

SOURCE = ("person", "cell phone", "traffic light")
TARGET = ("traffic-light", "board", "Person", "chip")


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (SOURCE, TARGET, (2, None, 0, None)),
        (SOURCE, SOURCE, (0, 1, 2)),
        (("a_b", "a b"), ("a b", "A-B", "ab"), (1, 0, None)),  # the exact name first, then the first alike
        ((), ("x",), (None,)),
    ],
)
def test_same_classes(source, target, expected) -> None:
    assert match_classes(source, target) == expected


def tiny(class_names: tuple[str, ...], *, cascade: bool = False, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    spec = replace(find("mask_rcnn_tiny").spec, class_names=class_names)
    detector = Detector(replace(spec, cascade=CascadeSpec()) if cascade else spec)
    for parameter in detector.roi_heads.parameters():  # biases start at zero: rows could not be told apart
        torch.nn.init.normal_(parameter)
    return detector


@pytest.mark.parametrize("cascade", [False, True])
def test_known_classes_keep_their_rows_and_new_ones_their_initial(cascade: bool) -> None:
    source, target = tiny(SOURCE, cascade=cascade), tiny(TARGET, cascade=cascade, seed=1)
    theirs, own = source.state_dict(), {n: t.clone() for n, t in target.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in theirs.items()}
    fill_weights(target, carry_over(source, target), source="x")
    ours = target.state_dict()
    changed = {name for name in ours if ours[name].shape != theirs[name].shape}
    stages = ("s.0", "s.1", "s.2") if cascade else ("",)
    layers = ["box_head{}.cls", "mask_head{}.logits"] + ([] if cascade else ["box_head{}.deltas"])
    assert changed == {
        f"roi_heads.{layer.format(stage)}.{kind}"
        for layer in layers
        for stage in stages
        for kind in ("weight", "bias")
    }
    for name in changed:
        new, old, initial = ours[name], theirs[name], own[name]
        if "deltas" in name:
            new, old, initial = (tensor.unflatten(0, (-1, 4)) for tensor in (new, old, initial))
        assert torch.equal(new[[0, 2]], old[[2, 0]]), name
        assert torch.equal(new[[1, 3]], initial[[1, 3]]), name
        if ".cls." in name:
            assert torch.equal(new[4], old[3]), name  # background
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name not in changed)
    assert all(torch.equal(theirs[name], before[name]) for name in theirs)  # the source is untouched


def test_the_same_classes_in_another_order_predict_the_same() -> None:
    source, target = tiny(SOURCE).eval(), tiny(SOURCE[::-1], seed=1).eval()
    fill_weights(target, carry_over(source, target), source="x")
    regions = torch.randn(5, source.spec.fpn_channels, 7, 7)
    logits, deltas = source.roi_heads.box_head(regions)
    again, moved = target.roi_heads.box_head(regions)
    torch.testing.assert_close(again, logits[:, [2, 1, 0, 3]])
    torch.testing.assert_close(moved, deltas[:, [2, 1, 0]])
