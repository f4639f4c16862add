"""`gcnet convert`: any checkpoint as a file of ours."""

from __future__ import annotations

from pathlib import Path

from gcnet.commands.arguments import (
    Parser,
    add_mirror,
    check_model,
    check_writable,
    fetch_weights,
    find_weights,
)
from gcnet.errors import GCNetError

SOURCE_HELP = (
    "a .pth of mmdetection or of the GCNet authors, a .safetensors of ours, a run folder, or a name that "
    "`gcnet models` lists"
)


def run(argv: list[str]) -> int:
    """Finds out what a file holds, says it, and writes the .safetensors."""
    options = _parser().parse_args(argv)
    if options.out.suffix != ".safetensors":
        raise GCNetError(f"{options.out}: OUT is found again by its ending; name it SOMETHING.safetensors")
    check_model(options.source, None)
    check_writable(options.out.parent)
    file = find_weights(options.source)
    name = options.model or (None if file else options.source)
    path = file or Path(str(fetch_weights(options.source, None, options.mirror)))

    from gcnet.files import prepare_folder
    from gcnet.weights.files import save_model
    from gcnet.weights.open import describe, open_model

    model = open_model(path, name=name, class_names=options.class_names)
    prepare_folder(options.out.parent)
    save_model(model, options.out)
    print("\n".join(describe(model, path)))
    print(f"wrote {options.out}\nnext: gcnet predict {options.out} IMAGES...")
    return 0


def _parser() -> Parser:
    parser = Parser("convert", "Reads any checkpoint and writes our .safetensors, which knows its classes.")
    parser.add_argument("source", metavar="IN", help=SOURCE_HELP)
    parser.add_argument("out", metavar="OUT", type=Path, help="the .safetensors file to write")
    parser.add_argument("--model", metavar="NAME", help="the model that IN holds, if it is not what is found")
    parser.add_argument("--class-names", nargs="+", metavar="NAME", help="in the order of IN's labels")
    add_mirror(parser)
    return parser
