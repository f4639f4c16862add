"""`gcnet benchmark` times models on this machine, beside each other and, if asked, torchvision's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gcnet.api.predict import predict
from gcnet.commands.arguments import Parser, number, size_in
from gcnet.device import choose_device
from gcnet.errors import GCNetError
from gcnet.files import check_writable
from gcnet.models.spec import Precision
from gcnet.weights.catalog import find_detector


def run(argv: list[str]) -> int:
    """Measures, prints a table, writes benchmark.json."""
    options = _parser().parse(argv)
    options.models = [name if Path(name).exists() else find_detector(name).name for name in options.models]
    options.precision = options.precision or ["fp32"]
    if options.train and (options.plain or options.compile or options.precision != ["fp32"]):
        raise GCNetError("--precision, --plain and --compile are of inference: leave them out, or --train")
    options.device = choose_device(options.device)
    out = options.__dict__.pop("out")
    check_writable(out)

    from gcnet.lab.benchmark import Options, run_benchmark

    run_benchmark(Options(**vars(options)), out)
    return 0


def _parser() -> Parser:
    parser = Parser("benchmark", "MODEL...", __doc__)
    models = ["mask_rcnn_r50", "mask_rcnn_r50_gc4"]
    names = "names that `gcnet models` lists, model files or run folders"
    parser.add_argument("models", nargs="*", default=models, metavar="MODEL", help=names)
    parser.add_option(
        "--against", Literal["torchvision"], "also time torchvision's Mask R-CNN, with the same weights"
    )
    parser.add_option("--train", bool, "time training steps, not inference", False)
    parser.add_option("--precision", Sequence[Precision], "precision of inference, one or more (fp32)")
    parser.add_option("--size", size_in(32), "height x width of the images, multiples of 32", "800x1216")
    parser.add_option("--batch", number(int, 1), "images at a time", 1)
    parser.add_option("--repeats", number(int, 1), "repetitions of each measurement", 7)
    parser.add_option("--plain", bool, "do not optimise the models for inference", False)
    kept = "keep freed memory for later use, as `gcnet predict` does on a CPU"
    parser.add_option("--keep-memory", bool, kept, False)
    parser.add_options(predict, ("compile", "device"))
    parser.add_option("--out", Path, "a folder for benchmark.json", Path("benchmark"))
    return parser
