"""`gcnet ablate`: its options. What comes of them: tests/ablation."""

from __future__ import annotations

import pytest

from gcnet.cli import main
from gcnet.commands.ablate import parse_ablate

TINY = "mask_rcnn_tiny_gc4"


def test_options_of_data_and_of_context_shapes(shapes):
    own = parse_ablate(["ratio", "--data", str(shapes), "--lr", "0.5", "--seed", "4", "--jobs=3"])
    assert (own.grid, own.model, own.data, own.jobs, own.seeds) == ("ratio", TINY, shapes, 3, 3)
    assert (own.recipe.epochs, own.recipe.lr, own.recipe.seed) == (120, 0.5, 4)
    drawn = parse_ablate(["ratio"])
    assert drawn.data is None
    assert drawn.recipe.epochs < 10
    assert drawn.recipe.color_jitter == 0
    assert not drawn.imagenet
    assert parse_ablate(["ratio", "--validation-loss", "--seeds", "2"]).recipe.validation_loss
    assert not parse_ablate(["--validation-loss", "false", "ratio"]).recipe.validation_loss
    assert parse_ablate(["ratio", "--model", "mask_rcnn_r50_gc4"]).imagenet


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "which study? There are block, position"),
        (["blok"], 'did you mean "block"'),
        (["block", "--model", "mask_rcnn_tiny_gc5"], 'did you mean "mask_rcnn_tiny_gc4'),
        (["block", "--sedes", "3"], 'did you mean "--seeds"'),
        (["block", "--seeds", "0"], "--seeds: give 1 or more, not 0"),
        (["block", "--data", "nowhere"], "--data nowhere does not exist"),
        (["block", "--epochs", "0"], "epochs is 0"),
        (["block", "--report"], "holds no study"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["ablate", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("gcnet: error: ")
    assert len(err.splitlines()) == 1
    assert expected in err
    assert not list(tmp_path.iterdir())
