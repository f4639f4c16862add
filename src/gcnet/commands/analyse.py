"""`gcnet analyse` measures over a data set how much attention depends on the query, block by block."""

from __future__ import annotations

from pathlib import Path

from gcnet.api.evaluate import evaluate
from gcnet.api.export import export
from gcnet.api.predict import predict
from gcnet.commands.arguments import MODEL, Parser, model_of, number, only_detector
from gcnet.files import check_data, check_writable


def run(argv: list[str]) -> int:
    """Measures each block, prints a table, writes JSON and a plot. 1 if an image could not be read."""
    options = _parser().parse(argv)
    chosen = model_of(options)
    chosen.refuse_export("gcnet analyse")
    check_data(options.data)
    out = options.out or Path("runs") / f"analyse-{Path(options.model).stem}"
    check_writable(out)

    from gcnet.lab.analysis import analyse, choose_images, print_analysis

    paths = choose_images(options.data, split=options.split, count=options.images)
    detector = only_detector(chosen.read())
    analysis = analyse(detector, paths, out, queries=options.queries, seed=options.seed)
    print_analysis(analysis)
    print(f"wrote {out / 'analysis.json'} and {out / 'analysis.png'}")
    return 1 if analysis["failed"] else 0


def _parser() -> Parser:
    parser = Parser("analyse", "MODEL --data DIR [--out DIR]", __doc__)
    parser.add_options(export, MODEL[:1])  # takes no file that was exported
    parser.add_options(predict, MODEL[1:])
    parser.add_option("--data", Path, "a COCO data set or a folder of images", required=True)
    parser.add_options(evaluate, ("split",))
    parser.add_option("--images", number(int, 1), "largest number of images, taken evenly from all")
    parser.add_option(
        "--queries", number(int, 2), "number of positions whose attention maps are compared", 128
    )
    parser.add_option("--seed", int, "seed of the choice of positions", 0)
    parser.add_option("--out", Path, "a folder for analysis.json and analysis.png (runs/analyse-MODEL)")
    return parser
