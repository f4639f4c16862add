"""`gcnet convert` reads a checkpoint and writes it as our .safetensors with structure and class names."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gcnet.api.predict import predict
from gcnet.commands.arguments import Parser, number
from gcnet.errors import GCNetError
from gcnet.files import check_file, prepare_folder, remove_leftovers
from gcnet.weights.catalog import find
from gcnet.weights.fetch import find_source

if TYPE_CHECKING:
    from gcnet.models.classifier import Classifier
    from gcnet.models.detector import Detector
    from gcnet.weights.mmdet_config import Config

SOURCE_HELP = (
    "a checkpoint of mmdetection, torchvision, detectron2 or the GCNet authors, a .safetensors of ours, a "
    "run folder, OWNER/NAME on the Hugging Face hub, or a name that `gcnet models` lists"
)


def run(argv: list[str]) -> int:
    """Recognises the model in a file, describes it, and writes the .safetensors."""
    options = _parser().parse(argv)
    if options.out.suffix != ".safetensors":
        raise GCNetError(f"{options.out}: files of models end in .safetensors; name it SOMETHING.safetensors")
    check_file(options.out)
    source = find_source(options.source)
    row = find(options.model) if options.model else source.row
    file = source.fetch(options.mirror)

    from gcnet.weights.files import save_model
    from gcnet.weights.load import read_model

    model = read_model(file, row, options.class_names, told=_told(options), part=options.part)
    remove_leftovers(prepare_folder(options.out.parent), options.out.name)
    save_model(model, options.out)
    print("\n".join(_describe(model, file.path)))
    print(f"wrote {options.out}\nnext: gcnet predict {options.out} IMAGES...")
    return 0


def _told(options: Namespace) -> Config:
    """The facts about the model that options give; they overrule its file."""
    from gcnet.weights.mmdet_config import Config, read_config

    config = Config()
    if options.config:
        if not options.config.is_file():
            raise GCNetError(f"--config: no such file: {options.config}")
        config = read_config(options.config.read_text(errors="replace"))
        if config is None:
            raise GCNetError(
                f"--config {options.config} is no configuration in Python or JSON: give the whole one that "
                "a run of mmdetection wrote beside its checkpoints"
            )
    size = options.image_size and (max(options.image_size), min(options.image_size))
    return config.overruled_by(Config(style=options.style, channels=options.channel_order, image_size=size))


def _describe(model: Detector | Classifier, path: Path) -> list[str]:
    """Prints what was recognised in a file, part by part, and what the file says of itself."""
    from gcnet.weights.parts import describe_parts

    said = model.provenance
    lines = [f"{path}: {model.spec.name}", *describe_parts(model.spec, said.get("told_by"))]
    if "note" in said:
        lines.append(f"note: {said['note']}")
    origin = [
        f"{key} {value}" for key, value in said.items() if key not in ("file", "note", "sha256", "told_by")
    ]
    return lines + ([f"from: {', '.join(origin)}"] if origin else [])


def _parser() -> Parser:
    parser = Parser("convert", "IN OUT.safetensors", __doc__)
    parser.add_option("source", str, SOURCE_HELP, metavar="IN")
    parser.add_option("out", Path, "the .safetensors file to write")
    parser.add_option("--model", str, "name of the model in IN, if it is not recognised")
    parser.add_option("--class-names", str, "class names in the order of IN's labels", nargs="+")
    parser.add_option("--part", str, "which of several models in IN: teacher, student or another key")
    parser.add_option("--config", Path, "the configuration that IN was trained with; it is parsed, not run")
    parser.add_option("--style", Literal["pytorch", "caffe"], "style of IN's residual blocks")
    parser.add_option("--channel-order", Literal["rgb", "bgr"], "channel order of the images that IN takes")
    sides = "(long, short) side that images are resized to"
    parser.add_option("--image-size", number(int, 32), sides, nargs=2)
    parser.add_options(predict, ("mirror",))
    return parser
