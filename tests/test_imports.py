"""What importing costs: the parts that only know names and numbers must not load torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gcnet
from gcnet.cli import VERBS

TINY = "mask_rcnn_tiny_gc4"
HEAVY = (
    "torch",
    "torch._dynamo",
    "torchvision",
    "cv2",
    "matplotlib",
    "scipy",
    "huggingface_hub",
)


def loaded_after(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter holds after `code`."""
    script = f"{code}\nimport sys\nprint(' '.join(n for n in {HEAVY} if n in sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True
        ).stdout.split()
    )


def test_commands_and_light_modules_load_nothing_heavy():
    commands = [f"gcnet.commands.{module}" for module, _ in VERBS.values()]
    light = ["gcnet.cli", "gcnet.models.spec", "gcnet.recipe", "gcnet.weights.catalog"]
    assert loaded_after(f"import {', '.join(light + commands)}") == set()


def test_listing_models_loads_nothing_heavy():
    assert loaded_after("import gcnet\nassert gcnet.list_models()") == set()


def test_the_blocks_load_torch_and_nothing_else():
    names = "GlobalContext, NonLocal, SimplifiedNonLocal, SqueezeExcitation, insert"
    assert loaded_after(f"from gcnet.context import {names}") == {"torch"}


def test_predicting_loads_torch_and_opencv_alone(tmp_path):
    """And no garbage is looked for while they are imported; afterwards it is."""
    gcnet.save_model(gcnet.create_model("mask_rcnn_tiny_gc4"), tmp_path / "m.safetensors")
    load = (
        "from gcnet.weights.start import load_trained\nfrom gcnet.weights.fetch import find_source\n"
        f"load_trained(find_source({str(tmp_path / 'm.safetensors')!r}), 'cpu')"
    )
    collected = "assert gc.isenabled() and gc.get_freeze_count() > 100_000"
    predict = "import gcnet.prediction.files"
    assert loaded_after(f"import gc, gcnet\n{load}\n{predict}\n{collected}") == {"torch", "cv2"}


def test_predicting_with_an_export_needs_no_torch():
    assert "torch" not in loaded_after("import gcnet.prediction.files, gcnet.commands.predict")


def test_every_public_name_exists():
    for name in gcnet.__all__:
        assert getattr(gcnet, name) is not None
    assert dir(gcnet) == sorted(gcnet.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = gcnet.no_such_thing


def test_what_only_unix_has_is_imported_under_guard():
    unix_only = {"resource", "fcntl", "pwd", "grp", "termios"}
    for path in Path(gcnet.__file__).parent.rglob("*.py"):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:  # those in a `try` lie deeper
            if isinstance(statement, ast.Import):
                assert not unix_only & {name.name for name in statement.names}, path
            if isinstance(statement, ast.ImportFrom):
                assert statement.module not in unix_only, path
