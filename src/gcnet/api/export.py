"""`gcnet.export` writes a model as a file for another runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gcnet.api.choices import ModelChoice
from gcnet.errors import GCNetError, check_least
from gcnet.files import AnyPath, check_file, several
from gcnet.image_files import find_images

if TYPE_CHECKING:
    from gcnet.api.choices import AnyModel
    from gcnet.deploy.comparing import ClassComparison, Comparison

CALIBRATION = 100  # images that int8 is calibrated on at most: more change little


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
    """Writes a model as a file for another runtime, and compares the two: `gcnet export`.

    Args:
        model: a name that `gcnet models` lists, a model file, a run folder, a checkpoint such as an
            mmdetection .pth, or OWNER/NAME on the Hugging Face hub. In Python also a model in memory.
        out: an .onnx for ONNX Runtime, an .xml (and a .bin beside it) for OpenVINO, or a .pt2 for
            `torch.export.load`.
        image: the image on which the file is compared with the model; by default the first of `calibration`,
            or a generated one.
        weights, mirror: as `gcnet.predict` takes them.
        device: where the model runs for the comparison.
        size: fix the size of the file's input; smaller images are padded with the mean colour. Without it
            the file takes images of any size. A detector's .pt2 needs it. In Python (height, width).
        batch_size: images at a time.
        precision: "fp32", "fp16", or "int8", which needs `calibration`.
        calibration: some of your images, for int8: files, folders and patterns. At most 100 are read.
        with_resize: for detectors: the file takes an image of any size, H x W x 3, resizes it itself, and
            gives boxes in pixels of the image as given. `size` is then the size of that image.

    Returns:
        The differences between the results of the file and of the model.

    Raises:
        GCNetError: a package is missing (`pip install 'gcnet[export]'`), the model cannot be exported so, or
            the file's results differ from the model's; the file is then deleted.
    """
    check_least(1, batch_size=batch_size)
    chosen = ModelChoice(model, weights, mirror, device)
    chosen.refuse_export("gcnet export")
    check_file(Path(out))
    beside = Path(out).with_suffix(".bin")
    if Path(out).suffix == ".xml" and not Path(out).exists() and beside.exists():
        raise GCNetError(f"{beside} would be replaced by the weights of {out}; choose another --out")
    paths = find_images(several(calibration))[:CALIBRATION] if calibration else []
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
