"""`gcnet export`: a model as a file for ONNX Runtime, OpenVINO or `torch.export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gcnet.commands.arguments import Parser, add_model, at_least
from gcnet.errors import GCNetError
from gcnet.files import check_writable

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


def run(argv: list[str]) -> int:
    """Writes the file, and prints how far what it finds is from what the model finds."""
    options = _parser().parse(argv)
    suffix = SUFFIXES[options.to]
    out = options.out or Path(f"{Path(options.model).stem}{suffix}")
    if out.suffix != suffix:
        raise GCNetError(f"{out}: files of --to {options.to} end in {suffix}; name it SOMETHING{suffix}")
    check_writable(out.parent)

    from gcnet.api import export

    compared = export(
        options.model,
        out,
        image=options.image,
        weights=options.weights,
        mirror=options.mirror,
        size=options.size,
        batch_size=options.batch_size,
        precision=options.precision,
        calibration=options.calibration,
        device=options.device,
        with_resize=options.with_resize,
    )
    shape = "any size" if options.size is None else "x".join(map(str, options.size))
    weights = [out.with_suffix(".bin")] if suffix == ".xml" else []
    megabytes = sum(path.stat().st_size for path in (out, *weights)) / 1e6
    print(f"{out}: {megabytes:.0f} MB, {options.precision}, images of {shape}")
    print(f"beside the model: {compared}")
    if options.to != "torch":
        print(f"next: gcnet predict {out} IMAGES...")
    return 0


def _size(word: str) -> tuple[int, int]:
    height, cross, width = word.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"give HEIGHTxWIDTH such as 800x1344, not {word}")
    return int(height), int(width)


def _parser() -> Parser:
    parser = Parser(
        "export",
        "Writes a model for another runtime: pixels in; boxes, scores, labels and masks out, or the "
        "probabilities of classes. The file is run on an image and compared with the model before it is "
        "kept.",
    )
    add_model(parser)
    parser.add_argument("--to", choices=SUFFIXES, default="onnx", help="(onnx)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(the model's name, here)")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="HxW",
        help="fixed size of the images that the file is given, smaller ones on zeros (any; torch needs one)",
    )
    parser.add_argument(
        "--with-resize",
        action="store_true",
        help="the file takes an image as it is, H x W x 3, resizes it, and gives boxes in its pixels; --size "
        "is then that of the image",
    )
    parser.add_argument("--batch-size", type=at_least(1), default=1, metavar="N", help="images at a time (1)")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], default="fp32", help="(fp32)")
    parser.add_argument(
        "--calibration", nargs="+", default=[], metavar="IMAGES", help="for int8: some of your images"
    )
    parser.add_argument(
        "--image", metavar="FILE", help="to compare on (the first of --calibration, or a generated one)"
    )
    return parser
