"""The command line: `gcnet VERB ...`.

Whatever a user can get wrong is one line on stderr and exit code 2 (`GCNET_DEBUG=1` shows the traceback).
torch and its friends take seconds to import, so each verb imports what it needs only once its arguments
are known to be good.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcnet.arguments import (
    CONVERT_HELP,
    MIRROR_HELP,
    PRECISIONS,
    Parser,
    add_model,
    add_precision,
    check_data,
    check_model,
    check_writable,
    choose_device,
    did_you_mean,
    fetch_weights,
    find_weights,
    load_detector,
    load_trained,
    parse_train,
)
from gcnet.errors import GCNetError
from gcnet.zoo.catalog import find_detector

if TYPE_CHECKING:
    from gcnet.models.classifier import Classifier

PRINTED = 20  # pictures that `gcnet predict` of a classifier names on the terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 2 for an error of the user's, 130 after Ctrl-C."""
    logging.basicConfig(format="gcnet: %(message)s")
    # Threads that wait for each other otherwise spin: with another busy process on the same cores, a
    # training step on the CPU then takes four times as long. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        print("gcnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `gcnet models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (GCNetError, OSError) as error:
        if os.environ.get("GCNET_DEBUG"):
            raise
        print(f"gcnet: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" or os.environ.get(
            "GCNET_DEBUG"
        ):  # torch is not imported here
            raise
        advice = "use a smaller batch size, image size or --device cpu"
        print(f"gcnet: error: the GPU's memory is full; {advice}", file=sys.stderr)
        return 2


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        from gcnet import __version__

        print(f"gcnet {__version__}")
        return 0
    verb, *rest = argv
    if verb not in VERBS:
        raise GCNetError(f"no command {verb!r}{did_you_mean(verb, VERBS) or '; `gcnet --help` lists them'}")
    return VERBS[verb][0](rest)


def _overview() -> str:
    rows = "\n".join(f"  {name:10}{line}" for name, (_, line) in VERBS.items())
    return (
        "usage: gcnet COMMAND ...\n\n"
        "Mask R-CNN with global context blocks: train, evaluate, predict, look inside.\n\n"
        f"{rows}\n\n`gcnet COMMAND --help` explains one of them."
    )


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _demo(argv: list[str]) -> int:
    parser = Parser("demo", "Trains the tiny model on generated pictures, scores it and draws what it sees.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything (demo)")
    parser.add_argument("--seed", type=int, default=0, help="of pictures, weights and sampling (0)")
    parser.add_argument("--compare", action="store_true", help="also train the same model without its blocks")
    parser.add_argument("--data-only", type=Path, metavar="DIR", help="only write the pictures, as COCO JSON")
    parser.add_argument(
        "--puzzle-only",
        type=Path,
        metavar="DIR",
        help="only write the puzzle for classifiers (folders)",
    )
    options = parser.parse_args(argv)
    if options.puzzle_only:
        from gcnet.data.context_classes import write_context_classes

        check_writable(options.puzzle_only)
        print(f"wrote {write_context_classes(options.puzzle_only, seed=options.seed)}")
        return 0
    if options.data_only:
        from gcnet.data.context_shapes import write_context_shapes

        check_writable(options.data_only)
        print(f"wrote {write_context_shapes(options.data_only, seed=options.seed)}")
        return 0
    check_writable(options.out)
    from gcnet.demo import run_demo

    run_demo(options.out, seed=options.seed, compare=options.compare)
    return 0


def _train(argv: list[str]) -> int:
    options, recipe = parse_train(argv)
    data, out = Path(options.data), Path(options.out)
    check_data(data)
    check_writable(out)

    from gcnet.engine.task import task_of
    from gcnet.zoo.catalog import find

    row = find(options.model)
    splits = task_of(row.spec).load_splits(data)  # what is wrong with it is known before lightning loads
    if "train" not in splits:
        raise GCNetError(
            f"{data} has no training split, only {', '.join(splits)}; see docs/train-your-own.md"
        )
    class_names = splits["train"].class_names
    if options.class_names and tuple(options.class_names) != class_names:
        raise GCNetError(f"class_names of the config are not those of {data}: {', '.join(class_names)}")

    import torch
    from lightning.pytorch.utilities import rank_zero_only

    from gcnet.data.loader import trainable
    from gcnet.engine.fit import choose_devices
    from gcnet.engine.short_run import describe_changes, for_few_pictures
    from gcnet.engine.train import train
    from gcnet.zoo.start import start_model

    lines: list[str] = []
    if row.weights:  # the tiny models' and the classifiers' own recipes are for few pictures
        pictures = len(trainable(splits["train"]))
        world = choose_devices(recipe).world
        before, recipe = recipe, for_few_pictures(recipe, pictures, options.given, devices=world)
        lines += [line] if (line := describe_changes(before, recipe, pictures)) else []
    torch.manual_seed(recipe.seed)
    mirrors = [options.mirror] if options.mirror else []
    start = start_model(row, None if options.resume else options.weights, class_names, mirrors=mirrors)
    if rank_zero_only.rank == 0 and not options.resume:
        print("\n".join([*start.report, *lines]), flush=True)
    train(
        start.model,
        splits["train"],
        splits.get("valid"),
        recipe,
        out,
        resume=options.resume,
        data=str(data),
        weights=start.weights,
    )
    return 0


def _eval(argv: list[str]) -> int:
    parser = Parser("eval", "COCO box and mask AP of a model, or accuracy of a classifier, on one split.")
    add_model(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="a COCO-format data set, or train/CLASS/, val/CLASS/",
    )
    parser.add_argument("--split", default="valid", help="train, valid or test (valid)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for results.json and metrics.json")
    parser.add_argument("--batch-size", type=int, default=1, help="images at a time (1)")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images (2)")
    add_precision(parser)
    options = parser.parse_args(argv)
    check_model(options.model, options.weights)
    check_data(options.data)
    out = options.out or Path("runs") / f"eval-{Path(options.model).stem}-{options.split}"
    check_writable(out)

    from gcnet.engine.task import task_of
    from gcnet.models.detector import Detector

    weights = fetch_weights(options.model, options.weights, options.mirror)
    model = load_trained(options.model, weights, options.device)
    if isinstance(model, Detector):
        model = model.optimize(precision=options.precision)
    task = task_of(model.spec)
    dataset = task.load_split(options.data, options.split, model.spec.class_names)
    metrics, _ = task.evaluate(
        model, dataset, batch_size=options.batch_size, workers=options.workers, out=out
    )
    task.print_metrics(metrics)
    print(f"wrote {out / 'results.json'} and {out / 'metrics.json'}")
    return 0


def _predict(argv: list[str]) -> int:
    parser = Parser(
        "predict",
        "Finds objects in pictures: overlays and a JSON of COCO results. With a classifier, names pictures: "
        "a JSON and an overview sheet.",
    )
    add_model(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders or quoted globs")
    parser.add_argument("--out", type=Path, default=Path("predictions"), metavar="DIR", help="(predictions)")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="draw and write from here (0.5)")
    parser.add_argument("--no-overlays", action="store_true", help="write only results.json")
    add_precision(parser)
    parser.add_argument("--top", type=int, default=5, help="of a classifier: how many classes to write (5)")
    options = parser.parse_args(argv)
    check_model(options.model, options.weights)
    check_writable(options.out)

    from gcnet.image_files import find_images

    find_images(options.images)  # before anything is fetched or slowly imported
    weights = fetch_weights(options.model, options.weights, options.mirror)

    from gcnet.models.classifier import Classifier
    from gcnet.predict import predict_paths

    model = load_trained(options.model, weights, options.device)
    if isinstance(model, Classifier):
        return _classify(model, options)
    summary = predict_paths(
        model.optimize(precision=options.precision),
        options.images,
        options.out,
        score_threshold=options.score_threshold,
        overlays=not options.no_overlays,
    )
    found = f"{summary.detections} objects in {summary.images} images"
    print(
        f"{found}: {options.out / 'results.json'}"
        + ("" if options.no_overlays else " and overlays beside it")
    )
    return 2 if summary.failed else 0


def _classify(classifier: Classifier, options: Any) -> int:
    """`gcnet predict` of a classifier."""
    from gcnet.classify import classify_paths

    summary = classify_paths(
        classifier, options.images, options.out, top=options.top, sheet=not options.no_overlays
    )
    for entry in summary.results[:PRINTED]:
        if "predicted" in entry:
            print(f"{entry['file_name']}: {entry['predicted'][0]} {entry['probabilities'][0]:.2f}")
    if len(summary.results) > PRINTED:
        print(f"and {len(summary.results) - PRINTED} more")
    print(
        f"{len(summary.results) - len(summary.failed)} images: {options.out / 'results.json'}"
        + ("" if options.no_overlays else f" and {options.out / 'overview.jpg'}")
    )
    return 2 if summary.failed else 0


def _attention(argv: list[str]) -> int:
    parser = Parser("attention", "Draws where the context blocks of a model look in a picture.")
    add_model(parser)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a picture")
    parser.add_argument("--out", type=Path, default=Path("attention"), metavar="DIR", help="(attention)")
    parser.add_argument(
        "--query",
        action="append",
        metavar="X,Y",
        help="a point whose own map is drawn, for non-local blocks, as shares of width and height such as "
        "0.5,0.25; may be repeated (three points)",
    )
    parser.add_argument(
        "--layers", default="*", metavar="GLOB", help="blocks by title or module, such as 'c4.*' (all)"
    )
    options = parser.parse_args(argv)
    queries = [_point(word) for word in options.query or ()]
    check_model(options.model, options.weights)
    check_writable(options.out)
    if not options.image.is_file():
        raise GCNetError(f"{options.image} is not a file; give a picture")
    weights = fetch_weights(options.model, options.weights, options.mirror)

    from gcnet.attention import QUERIES, draw_attention

    detector = load_detector(options.model, weights, options.device)
    summary = draw_attention(
        detector, options.image, options.out, queries=queries or QUERIES, layers=options.layers
    )
    print("\n".join(summary.lines))
    if queries and not summary.per_query:
        print("these blocks share one map between all queries: --query changes nothing")
    print(f"wrote {summary.sheet} and {len(summary.files)} single maps beside it")
    return 0


def _point(word: str) -> tuple[float, float]:
    """`0.5,0.25` as numbers."""
    try:
        x, y = (float(part) for part in word.split(","))
    except ValueError:
        raise GCNetError(
            f"--query {word}: give x,y as shares of the picture's width and height, such as 0.5,0.25"
        ) from None
    return x, y


def _analyse(argv: list[str]) -> int:
    parser = Parser(
        "analyse", "Measures over a data set how much attention depends on the query, block by block."
    )
    add_model(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="a COCO data set or a folder of pictures",
    )
    parser.add_argument("--split", default="valid", help="train, valid or test of a data set (valid)")
    parser.add_argument("--images", type=int, metavar="N", help="at most so many, evenly spaced (all)")
    parser.add_argument(
        "--queries", type=int, default=128, metavar="Q", help="positions whose maps are compared (128)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of positions (0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for analysis.json and analysis.png")
    options = parser.parse_args(argv)
    for name, least in (("images", 1), ("queries", 2)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise GCNetError(f"--{name} {value}: give {least} or more")
    check_model(options.model, options.weights)
    check_data(options.data)
    out = options.out or Path("runs") / f"analyse-{Path(options.model).stem}"
    check_writable(out)

    weights = fetch_weights(options.model, options.weights, options.mirror)

    from gcnet.analyse import analyse, choose_pictures, print_analysis

    paths = choose_pictures(options.data, split=options.split, count=options.images)
    detector = load_detector(options.model, weights, options.device)
    analysis = analyse(detector, paths, out, queries=options.queries, seed=options.seed)
    print_analysis(analysis)
    print(f"wrote {out / 'analysis.json'} and {out / 'analysis.png'}")
    return 2 if analysis.failed else 0


def _models(argv: list[str]) -> int:
    parser = Parser("models", "Lists the models: size, published APs, and whether their weights are at hand.")
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="only models with all of them in a name, ours or upstream's"
    )
    parser.add_argument("--json", action="store_true", help="all that is known of each, for programs")
    options = parser.parse_args(argv)

    from gcnet.zoo.listing import matching_rows, record, table

    rows = matching_rows(options.words)
    if options.json:
        import json

        print(json.dumps([record(row) for row in rows], indent=2))
    else:
        print(table(rows, upstream=bool(options.words)))
    return 0


def _convert(argv: list[str]) -> int:
    parser = Parser("convert", "Reads any checkpoint and writes our .safetensors, which knows its classes.")
    parser.add_argument("source", metavar="IN", help=CONVERT_HELP)
    parser.add_argument("out", metavar="OUT", type=Path, help="the .safetensors file to write")
    parser.add_argument("--model", metavar="NAME", help="the model that IN holds, if it is not what is found")
    parser.add_argument("--class-names", nargs="+", metavar="NAME", help="in the order of IN's labels")
    parser.add_argument("--mirror", action="append", default=[], metavar="BASE", help=MIRROR_HELP)
    options = parser.parse_args(argv)
    if options.out.suffix != ".safetensors":
        raise GCNetError(f"{options.out}: OUT is found again by its ending; name it SOMETHING.safetensors")
    check_model(options.source, None)
    check_writable(options.out.parent)
    file = find_weights(options.source)
    name = options.model or (None if file else options.source)
    path = file or Path(str(fetch_weights(options.source, None, options.mirror)))

    from gcnet.models.weights import save_model
    from gcnet.zoo.open import describe, open_model

    detector = open_model(path, name=name, class_names=options.class_names)
    save_model(detector, options.out)
    print("\n".join(describe(detector, path)))
    print(f"wrote {options.out}\nnext: gcnet predict {options.out} IMAGES...")
    return 0


def _ablate(argv: list[str]) -> int:
    from gcnet.ablation.options import parse_ablate

    options = parse_ablate(argv)
    from gcnet.ablation.ablate import ablate

    ablate(options)
    return 0


def _benchmark(argv: list[str]) -> int:
    parser = Parser("benchmark", "Times models on this machine, beside each other or another library.")
    parser.add_argument(
        "models", nargs="*", default=["mask_rcnn_r50", "mask_rcnn_r50_gc4"], metavar="MODEL", help="names"
    )
    parser.add_argument("--against", choices=["torchvision"], help="its Mask R-CNN, with the same weights")
    parser.add_argument("--train", action="store_true", help="a training step in place of an inference")
    parser.add_argument("--parts", action="store_true", help="also the parts of the first model's inference")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32"], help="(fp32)")
    parser.add_argument("--size", default="800x1216", help="height x width, multiples of 32 (800x1216)")
    parser.add_argument("--batch", type=int, default=1, help="pictures at a time (1)")
    parser.add_argument("--repeats", type=int, default=7, help="of each measurement (7)")
    parser.add_argument("--plain", action="store_true", help="the models as they train, not optimised")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument("--out", type=Path, default=Path("benchmark"), metavar="DIR", help="(benchmark)")
    options = parser.parse_args(argv)
    sides = options.size.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) % 32 == 0 and int(side) for side in sides):
        raise GCNetError(f"--size {options.size}: give height x width in multiples of 32, such as 800x1216")
    if options.batch < 1 or options.repeats < 1:
        raise GCNetError("--batch and --repeats are 1 or more")
    rows = [find_detector(name).name for name in options.models]
    check_writable(options.out)

    from gcnet.benchmark.run import Options, run_benchmark

    run_benchmark(
        Options(
            rows=rows,
            against=options.against or "",
            device=choose_device(options.device),
            precisions=options.precision,
            size=(int(sides[0]), int(sides[1])),
            batch=options.batch,
            repeats=options.repeats,
            train=options.train,
            parts=options.parts,
            optimized=not options.plain,
        ),
        options.out,
    )
    return 0


VERBS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "demo": (_demo, "generate pictures, train on them, score, draw: the whole path in minutes"),
    "train": (_train, "train a detector on a COCO-format data set, a classifier on folders of pictures"),
    "eval": (_eval, "box and mask AP of a model on a data set"),
    "predict": (_predict, "find objects in pictures"),
    "attention": (_attention, "draw where the context blocks look in a picture"),
    "analyse": (_analyse, "measure how much attention depends on the query, over a data set"),
    "models": (_models, "list the models"),
    "ablate": (_ablate, "compare context blocks: the paper's studies, trained and tabulated"),
    "benchmark": (_benchmark, "time models on this machine, beside each other or another library"),
    "convert": (_convert, "turn an mmdetection checkpoint into our file"),
}
