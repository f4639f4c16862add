"""`gcnet attention` draws what the context blocks of a model attend to in an image."""

from __future__ import annotations

from pathlib import Path

from gcnet.api.export import export
from gcnet.api.predict import predict
from gcnet.commands.arguments import MODEL, Parser, model_of, numbers, only_detector
from gcnet.errors import GCNetError
from gcnet.files import check_writable


def run(argv: list[str]) -> int:
    """Draws the attention maps, and describes each in a line."""
    options = _parser().parse(argv)
    chosen = model_of(options)
    chosen.refuse_export("gcnet attention")
    check_writable(options.out)
    if not options.image.is_file():
        raise GCNetError(f"{options.image} is not a file; give an image")
    detector = only_detector(chosen.read())

    from gcnet.lab.attention import QUERIES, draw_attention

    summary = draw_attention(
        detector, options.image, options.out, queries=options.query or QUERIES, layers=options.layers
    )
    print("\n".join(summary.lines))
    if options.query and not summary.per_query:
        print("these blocks share one map between all queries: --query changes nothing")
    print(f"wrote {summary.sheet} and {len(summary.files)} single maps beside it")
    return 0


def _parser() -> Parser:
    parser = Parser("attention", "MODEL IMAGE [--out DIR] [--query X,Y]", __doc__)
    parser.add_options(export, MODEL[:1])  # takes no file that was exported
    parser.add_options(predict, MODEL[1:])
    parser.add_option("image", Path, "an image")
    parser.add_option("--out", Path, "a folder for the maps", Path("attention"))
    query = "a point whose map is drawn for non-local blocks, as shares of width and height such as "
    query += "0.5,0.25; can be repeated (three points)"
    point = numbers("x,y as shares of the image's width and height, such as 0.5,0.25", 2)
    parser.add_option("--query", point, query, action="append", metavar="X,Y")
    parser.add_option("--layers", str, "only blocks with such a title or module name, such as 'c4.*'", "*")
    return parser
