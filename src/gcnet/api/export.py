"""`gcnet.export`: a model as a file for another runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gcnet.api.choices import ModelChoice
from gcnet.errors import check_least
from gcnet.files import AnyPath, check_writable
from gcnet.image_files import find_images

if TYPE_CHECKING:
    from gcnet.api.choices import AnyModel
    from gcnet.deploy.comparing import ClassComparison, Comparison

CALIBRATION = 100  # images that int8 is measured on: more change little


def export(
    model: "AnyModel",
    out: AnyPath,
    *,
    image: AnyPath | None = None,
    weights: AnyPath | None = None,
    mirror: Sequence[str] = (),
    device: str = "cpu",
    size: tuple[int, int] | None = None,
    batch_size: int = 1,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    calibration: Sequence[AnyPath] = (),
    with_resize: bool = False,
) -> "Comparison | ClassComparison":
    """A model as a file for another runtime: `gcnet export`.

    Args:
        model: as `gcnet.predict` takes it.
        out: a .onnx for ONNX Runtime, an .xml (and a .bin beside it) for OpenVINO, or a .pt2 for
            `torch.export.load`.
        image: where what the file finds is compared with what the model finds; by default the first of
            `calibration`, or a generated one.
        weights, mirror: as `gcnet.predict` takes them.
        device: where the model runs for the comparison.
        size: fixed size of the images that the file is given, smaller ones on zeros; without it the file
            takes all, but for torch, which needs one. In Python (height, width).
        batch_size: images at a time.
        precision: of the weights; "int8" measures ranges on `calibration`.
        calibration: some of your images for int8: files, folders and patterns, of which 100 are read at most.
        with_resize: of a detector: the file takes an image as it is, H x W x 3, resizes it, and gives boxes
            in its pixels; `size` is then that of the image.

    Returns:
        How far the two are apart.

    Raises:
        GCNetError: a package is missing (`pip install 'gcnet[export]'`), the model cannot be written so, or
            the file finds something else, and is not kept.
    """
    check_least(1, batch_size=batch_size)
    chosen = ModelChoice(model, weights, mirror, device)
    chosen.refuse_export("gcnet export")
    check_writable(Path(out).parent)
    paths = find_images(calibration)[:CALIBRATION] if calibration else []
    if image is not None:
        find_images([image])
    loaded: Any = model if chosen.source is None else chosen.read()

    from gcnet.deploy.exporting import export as write
    from gcnet.ops.decode import read_image

    images = [read_image(path) for path in paths]
    shown = None if image is None else read_image(image)
    return write(
        loaded,
        Path(out),
        image=shown,
        size=size,
        batch=batch_size,
        precision=precision,
        calibration=images,
        with_resize=with_resize,
    )
