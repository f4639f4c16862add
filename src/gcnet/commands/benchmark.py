"""`gcnet benchmark`: the time that models take on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from gcnet.api.predict import predict
from gcnet.commands.arguments import Parser, at_least
from gcnet.device import choose_device
from gcnet.errors import GCNetError
from gcnet.files import check_writable
from gcnet.models.spec import Precision
from gcnet.weights.catalog import find_detector


def run(argv: list[str]) -> int:
    """Measures, prints a table, writes benchmark.json."""
    options = _parser().parse(argv)
    options.size = _size(options.size)
    options.models = [find_detector(name).name for name in options.models]
    options.device = choose_device(options.device)
    out = options.__dict__.pop("out")
    check_writable(out)

    from gcnet.lab.benchmark import Options, run_benchmark

    run_benchmark(Options(**vars(options)), out)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "benchmark", "MODEL...", "Times models on this machine, beside each other or another library."
    )
    parser.add_argument(
        "models", nargs="*", default=["mask_rcnn_r50", "mask_rcnn_r50_gc4"], metavar="MODEL", help="names"
    )
    parser.add_argument("--against", choices=["torchvision"], help="its Mask R-CNN, with the same weights")
    parser.add_argument("--train", action="store_true", help="a training step in place of an inference")
    parser.add_argument(
        "--precision", nargs="+", choices=get_args(Precision), default=["fp32"], help="(fp32)"
    )
    parser.add_argument("--size", default="800x1216", help="height x width, multiples of 32 (800x1216)")
    parser.add_argument("--batch", type=at_least(1), default=1, help="images at a time (1)")
    parser.add_argument("--repeats", type=at_least(1), default=7, help="of each measurement (7)")
    parser.add_argument("--plain", action="store_true", help="the models as they train, not optimised")
    parser.add_argument(
        "--keep-memory", action="store_true", help="use freed memory again, as `gcnet predict` does on a CPU"
    )
    parser.add_options(predict, ("compile", "device"))
    parser.add_argument("--out", type=Path, default=Path("benchmark"), metavar="DIR", help="(benchmark)")
    return parser


def _size(word: str) -> tuple[int, int]:
    """`800x1216` as (height, width)."""
    sides = word.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) % 32 == 0 and int(side) for side in sides):
        raise GCNetError(f"--size {word}: give height x width in multiples of 32, such as 800x1216")
    return int(sides[0]), int(sides[1])
