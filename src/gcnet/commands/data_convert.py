"""`gcnet data convert`: a data set in another format."""

from __future__ import annotations

from pathlib import Path

from gcnet.commands.arguments import IMAGES_HELP, Parser, add_division, division_of
from gcnet.files import check_writable, find_data


def run(argv: list[str]) -> int:
    """Reads a data set and writes it in COCO's or YOLO's format, with copies of its images."""
    options = _parser().parse(argv)
    root, images = find_data(options.data, images=options.images)
    check_writable(options.out)

    from gcnet.data.load import load_splits
    from gcnet.data.write import write_splits

    splits = load_splits(root, images=images, **division_of(options))
    write_splits(splits, options.out, options.to)
    counts = ", ".join(f"{len(dataset)} images of {split}" for split, dataset in splits.items())
    print(f"wrote {options.out}: {counts}")
    return 0


def _parser() -> Parser:
    parser = Parser("data convert", "A data set, whatever its format, in COCO's or YOLO's.")
    parser.add_argument("data", type=Path, metavar="IN", help="a data set, or its annotation file")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--to", choices=("coco", "yolo"), required=True, help="the format")
    parser.add_argument("--images", type=Path, metavar="DIR", help=IMAGES_HELP)
    add_division(parser)
    return parser
