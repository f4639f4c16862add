"""Where the configurations of mmdetection 1.x, 2.x and 3.x keep the options that are read."""

from __future__ import annotations

from typing import Any

from gcnet.weights.config_text import at, dicts, find, first_dict, nested, numbers, pair, word

# Where the steps of a test stand, or its size of images alone; the first that has a size counts.
TEST_PLACES = ("test_pipeline", "data.test.pipeline", "test_dataloader.dataset.pipeline", "img_scale")
POSITIONS = ("after_conv1", "after_conv2", "after_conv3")  # of plugins; the last one is the usual one


def normalisation(values: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """What has the `mean` and `std` of images, and whether the network's input is RGB."""
    # That of several branches has the one of an image inside.
    processor = next((own for own in dicts(values, "data_preprocessor") if "mean" in own), {})
    if processor:
        return processor, bool(processor.get("bgr_to_rgb", False))
    steps = (step for place in TEST_PLACES[:2] for step in nested(at(values, place)))
    step = next((step for step in steps if step.get("type") == "Normalize" and "mean" in step), {})
    found = first_dict(values, "img_norm_cfg") or step
    return found, bool(found.get("to_rgb", True))


def test_pipelines(values: dict[str, Any]) -> list[tuple[Any, tuple[float, ...] | None]]:
    """What stands at `TEST_PLACES`, up to the first that has a size of images, each with its size."""
    found = []
    for steps in filter(None, (at(values, place) for place in TEST_PLACES)):
        scales = [steps] if pair(steps) else [*find(steps, "img_scale"), *find(steps, "scale")]
        size = next(filter(None, map(pair, scales)), None)
        found.append((steps, size))
        if size:
            break
    return found


def convolution_types(values: dict[str, Any], part: str) -> set[str]:
    """Classes of the convolutions of a part of the model."""
    return {word(conv.get("type")) for conv in dicts(dicts(values, part), "conv_cfg")}


def plugins(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the residual blocks."""
    found = first_dict(values, "backbone").get("plugins")
    return [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list) else []


def anchors(values: dict[str, Any]) -> dict[str, Any]:
    """The options of the anchors; 1.x had them in the head itself."""
    rpn = first_dict(values, "rpn_head")
    old = {name: rpn.get(f"anchor_{name}") for name in ("scales", "ratios", "strides")}
    found = first_dict(rpn or values, "anchor_generator")
    return found or {name: value for name, value in old.items() if value}


def anchor_strides(values: dict[str, Any]) -> tuple[int, ...] | None:
    """Whole numbers, one for each of the five levels; None if they are not."""
    steps = numbers(anchors(values).get("strides"), 5) or ()
    whole = steps and all(step >= 1 and step % 1 == 0 for step in steps)
    return tuple(map(int, steps)) if whole else None


def test_settings(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of inference: of the second stage, and of proposals."""
    return _test(values, "rcnn", "roi_head", "nms"), _test(values, "rpn", "rpn_head", "nms_pre")


def _test(values: dict[str, Any], name: str, head: str, key: str) -> dict[str, Any]:
    tests = [*find(values, name), *find(first_dict(values, head), "test_cfg")]
    return next((test for test in tests if isinstance(test, dict) and key in test), {})
