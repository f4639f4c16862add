"""Files for `gcnet train --config`, read and then used as far as the first batch."""

from __future__ import annotations

import random
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from gcnet.commands.train import parse_train
from gcnet.data.load import load_splits
from gcnet.data.loader import train_loader
from gcnet.engine.schedule import lr_factor, seed_iteration
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.weights.catalog import find

VALUES = r"""
~ true [] {} 0 -1 0.0 -0.5 1.5 5000000000 1e3 1e999 -.inf .inf .nan 1e-320 123456789012345678901234567890
[1,2] [[1]] [~] [.inf,1] [1,.inf] [-1,1] [0,0] [1e9,1e9] [1,2,3] {a:1} word null auto gpu fp16 sgd "1"
'x' "" /etc/passwd /dev/zero /dev/null !!binary|aGk= 2020-01-01 0x1F 1_000 1:30 "\e[31m" "\0" "\ud800" ${HOME}
os.system !!python/name:os.system !!python/object/apply:os.system[id] gcnet.cli.main *a &a !x @x `x` %x |
""".split()  # noqa: SIM905 (a line each would be a page)
KEYS = (
    "config",
    "print_config",
    "help",
    "class_path",
    "init_args",
    "__default_config__",
    "1",
    "~",
    "a.b",
    "--lr",
)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
WHOLE = (
    BOMB,
    "a: &a [*a]\n",
    "[" * 3000,
    "{" * 3000,
    "- " * 2000,
    "? " * 2000,
    "\x00",
    "\xff\xfe",
    "just a word",
    "[1, 2]",
    "~",
    "",
    "---\n---\n",
    "%YAML 9.9\n---\na: 1\n",
    "lr: " + "9" * 5000,
    "lr: 0." + "0" * 5000 + "1",
    "x" * (2 << 20),
    "lr: 1\nlr: 2\n" * 5000,
    "!!python/object/apply:os.system ['touch /tmp/gcnet-was-here']",
    "<<: {lr: 1}\n",
)
NAMES = ("model", "data", "out", "resume", "weights", "mirror", "class_names")


def write(chance: random.Random, folder: Path) -> Path:
    """A recipe with one to three odd lines, or a file that is none."""
    path = folder / "recipe.yaml"
    if chance.random() < 0.15:
        path.write_bytes(chance.choice(WHOLE).encode("latin-1"))
        return path
    recipe = asdict(find("mask_rcnn_tiny_gc4").recipe)
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in recipe.items()}
    lines = yaml.safe_dump({"model": "mask_rcnn_tiny_gc4", **fields}, default_flow_style=None).splitlines()
    for _ in range(chance.randint(1, 3)):
        key = chance.choice([*fields, *fields, *NAMES, *KEYS])
        lines = [line for line in lines if not line.startswith(f"{key}:")]
        lines.insert(chance.randrange(len(lines) + 1), f"{key}: {chance.choice(VALUES)}")
    text = "\n".join(lines) + "\n"
    if chance.random() < 0.1:
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice(["\t", ":", "{", "\x1b", "é", "  ", "\n"]) + text[at:]
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path) -> None:
    """What `gcnet train` asks of a recipe before its first iteration, and of its first images."""
    _, recipe = parse_train(["--config", str(path), "--data", str(path.parent)])
    if recipe.image_size is not None and max(recipe.image_size) > 2000:  # a person's own wish takes memory
        return
    small = replace(recipe, workers=0, batch_size=2)
    with tempfile.TemporaryDirectory() as folder:
        write_context_shapes(Path(folder) / "data", train=2, valid=1, seed=0, size=96)
        train_set = load_splits(Path(folder) / "data", val_fraction=recipe.val_fraction)["train"]
        next(iter(train_loader(train_set, recipe=small, image_size=recipe.image_size or (96, 64))))
    seed_iteration(recipe.seed, 10**6, 7)
    lr_factor(10**6, recipe, 1000)
