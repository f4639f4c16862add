"""`gcnet export` writes a model as a file for ONNX Runtime, OpenVINO or `torch.export`.

It goes from pixels to boxes, scores, labels and masks, or to class probabilities. The file is run on an image
and compared with the model before it is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gcnet.api.export import export
from gcnet.commands.arguments import Parser, size_in
from gcnet.errors import GCNetError

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


def run(argv: list[str]) -> int:
    """Writes the file, and prints how its results differ from the model's."""
    options = _parser().parse(argv)
    to = options.__dict__.pop("to")
    out = Path(options.out or f"{Path(options.model).stem}{SUFFIXES[to]}")
    if out.suffix != SUFFIXES[to]:
        raise GCNetError(f"{out}: files of --to {to} end in {SUFFIXES[to]}; name it SOMETHING{SUFFIXES[to]}")
    options.out = out
    compared = export(**vars(options))

    from gcnet.deploy.comparing import ClassComparison
    from gcnet.ops.images import padded_size

    size = options.size if options.size is None or options.with_resize else padded_size(options.size)
    images = f"images of {'any size' if size is None else 'x'.join(map(str, size))}"
    if isinstance(compared, ClassComparison):
        images = "squares of the classifier's size"
    weights = [out.with_suffix(".bin")] if to == "openvino" else []
    megabytes = sum(path.stat().st_size for path in (out, *weights)) / 1e6
    print(f"{out}: {megabytes:.0f} MB, {options.precision}, {images}")
    print(f"beside the model: {compared}")
    if to != "torch":
        print(f"next: gcnet predict {out} IMAGES...")
    return 0


def _parser() -> Parser:
    parser = Parser("export", "MODEL [--to onnx|openvino|torch] [--out FILE]", __doc__)
    runtimes = "the runtime: ONNX Runtime, OpenVINO or torch.export"
    parser.add_option("--to", Literal["onnx", "openvino", "torch"], runtimes, "onnx")
    parser.add_options(
        export,
        defaults={"out": None, "device": "auto"},
        out={"help": "the file to write (MODEL.onnx, .xml or .pt2 in this folder)"},
        size={"kind": size_in(1), "metavar": "HxW"},
    )
    return parser
