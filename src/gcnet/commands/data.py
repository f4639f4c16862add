"""`gcnet data` writes a page on a data set, and prints a short table.

It shows splits, classes, sizes, what training leaves out, and what to look at. `gcnet data convert IN OUT
--to coco|yolo` writes a data set in another format.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gcnet.api.train import train
from gcnet.commands.arguments import Parser, number
from gcnet.console import make_table, printable
from gcnet.errors import GCNetError
from gcnet.files import check_file, check_writable, find_data, prepare_folder
from gcnet.recipe import DIVISION, Recipe

PRINTED = 20  # classes on the terminal

if TYPE_CHECKING:
    from gcnet.lab.data_look import Look


def run(argv: list[str]) -> int:
    """Looks through a data set and writes its page. 1 where some images cannot be trained on."""
    if argv[:1] == ["convert"]:
        return _convert(argv[1:])
    options = _parser().parse(argv)
    data = options.data.resolve()
    name = data.name if data.is_dir() else f"{data.parent.name}-{data.stem}"
    out = options.out or Path("runs") / f"data-{name}.html"
    root, images = find_data(options.data, images=options.images)
    check_file(out)
    if out.is_file() and out.read_bytes()[:9].lower() != b"<!doctype":
        raise GCNetError(f"{out} is no page and would be replaced; remove it or give another --out")
    if options.draw:
        check_writable(options.draw)

    from gcnet.data.load import load_splits
    from gcnet.lab.data_look import look_through, notes_of_readers
    from gcnet.lab.data_page import draw_all, write_page

    division = {name: getattr(options, name) for name in DIVISION}
    with notes_of_readers() as notes:
        splits = load_splits(root, images=images, **division)
    splits = {split: replace(dataset, max_pixels=options.max_pixels) for split, dataset in splits.items()}
    look = look_through(options.data, splits, notes)
    prepare_folder(out.parent)
    write_page(look, out, images=options.show)
    _print(look)
    print(f"wrote {out}")
    if options.draw:
        failed = draw_all(splits, options.draw)
        print(f"drew {len(look.survey.image_sizes) - len(failed):,} images in {options.draw}")
    return 1 if look.problems else 0


def _print(look: Look) -> None:
    """Prints splits and classes as tables, and the findings."""
    from rich.console import Console

    from gcnet.lab.data_look import findings

    console = Console()
    counts, total = look.survey.class_counts, look.survey.splits.items()
    rows = [[name, *(f"{n:,}" for n in (one.images, one.trained_images, one.objects))] for name, one in total]
    console.print(make_table(None, ["split", "images", "trained on", "objects"], rows))
    order = (-counts.sum(1)).argsort(kind="stable").tolist()
    names = [printable(name) for name in look.survey.class_names]
    rows = [[names[label], *(f"{n:,}" for n in counts[label])] for label in order[:PRINTED]]
    console.print(make_table(None, ["class", *look.survey.splits], rows))
    if len(order) > PRINTED:
        console.print(f"and {len(order) - PRINTED} more classes", highlight=False)
    told = [f"{level}: {text}" for level, text in findings(look)]
    for words in (*told, *(f"read: {note}" for note in look.notes)):
        console.print(printable(words), markup=False, highlight=False, soft_wrap=True)


def _parser() -> Parser:
    parser = Parser("data", "DATA [--out FILE] [--draw DIR]", __doc__)
    parser.add_option("data", Path, "a data set, or its annotation file")
    parser.add_option("--out", Path, "path of the page (runs/data-NAME.html)")
    parser.add_option("--draw", Path, "also draw all images with their ground truth, into this folder")
    parser.add_option("--show", number(int, 0), "number of images on the page", 24)
    parser.add_options(train, ("images",))
    parser.add_options(Recipe, (*DIVISION, "max_pixels"))
    return parser


def _convert(argv: list[str]) -> int:
    """Reads a data set and writes it in COCO's or YOLO's format, with copies of its images."""
    options = _convert_parser().parse(argv)
    root, images = find_data(options.data, images=options.images)
    check_writable(options.out)

    from gcnet.data.load import load_splits
    from gcnet.data.write import write_splits

    division = {name: getattr(options, name) for name in DIVISION}
    splits = load_splits(root, images=images, **division)
    write_splits(splits, options.out, options.to)
    counts = ", ".join(f"{len(dataset)} images of {split}" for split, dataset in splits.items())
    print(f"wrote {options.out}: {counts}")
    return 0


def _convert_parser() -> Parser:
    parser = Parser("data convert", "IN OUT --to coco|yolo", _convert.__doc__)
    parser.add_option("data", Path, "a data set, or its annotation file", metavar="IN")
    parser.add_option("out", Path, "a new folder")
    parser.add_option("--to", Literal["coco", "yolo"], "the format", required=True)
    parser.add_options(train, ("images",))
    parser.add_options(Recipe, DIVISION)
    return parser
