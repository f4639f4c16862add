"""`gcnet models`: the models there are."""

from __future__ import annotations

import json

from gcnet.commands.arguments import Parser


def run(argv: list[str]) -> int:
    """Prints the table, or all that is known as JSON."""
    options = _parser().parse_args(argv)

    from gcnet.weights.listing import matching_rows, record, table

    rows = matching_rows(options.words)
    if options.json:
        print(json.dumps([record(row) for row in rows], indent=2))
    else:
        print(table(rows, upstream=bool(options.words)))
    return 0


def _parser() -> Parser:
    parser = Parser("models", "Lists the models: size, published APs, and whether their weights are at hand.")
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="only models with all of them in a name, ours or upstream's"
    )
    parser.add_argument("--json", action="store_true", help="all that is known of each, for programs")
    return parser
