"""`gcnet demo` trains a tiny model on generated images, scores it, and draws its detections."""

from __future__ import annotations

from pathlib import Path

from gcnet.commands.arguments import Parser, number
from gcnet.files import check_writable


def run(argv: list[str]) -> int:
    """Writes the images; unless only these are wanted, also trains, scores and draws."""
    options = _parser().parse(argv)
    if options.data_only:
        from gcnet.lab.context_shapes import write_context_shapes

        check_writable(options.data_only)
        print(f"wrote {write_context_shapes(options.data_only, seed=options.seed)}")
        return 0
    check_writable(options.out)

    from gcnet.lab.demo import Settings, run_demo

    run_demo(options.out, Settings(seed=options.seed), compare=options.compare)
    return 0


def _parser() -> Parser:
    parser = Parser("demo", "[--out DIR]", __doc__)
    parser.add_option("--out", Path, "folder for everything", Path("demo"))
    parser.add_option("--seed", number(int, 0), "seed of images, weights and sampling", 0)
    parser.add_option("--compare", bool, "also train the same model without its blocks", False)
    parser.add_option("--data-only", Path, "only write the images to this folder, as a COCO data set")
    return parser
