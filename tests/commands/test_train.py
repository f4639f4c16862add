"""`gcnet train`: recipe of the model < --config < command line; what it starts from and goes on with."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from foreign_files import as_mmdet, built, small
from image_folders import write_folders

from gcnet.cli import main
from gcnet.commands.train import parse_train, run
from gcnet.context_spec import ContextSpec
from gcnet.errors import GCNetError
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.recipe import ClassificationRecipe, Recipe
from gcnet.weights.catalog import find, list_models
from gcnet.weights.create import create_model
from gcnet.weights.files import save_model
from gcnet.weights.load import load_model

TINY = "mask_rcnn_tiny_gc4"
CLASSIFIER = "resnet_tiny_gc4"


def test_defaults_are_the_recipe_of_the_model():
    for name in list_models():
        options, recipe = parse_train([name, "--data", "x"])
        assert recipe == find(name).recipe
        assert (options.model, options.out, options.resume) == (name, f"runs/{name}", False)


def test_later_wins(tmp_path):
    config = tmp_path / "recipe.yaml"
    config.write_text(
        f"model: {TINY}\ndata: here\nepochs: 7\nlr: 0.5\nimage_size: [320, 256]\nsteps: [3, 5]\n"
    )
    options, recipe = parse_train(["--config", str(config), "--lr=0.25", "--batch-size", "4"])
    expected = replace(
        find(TINY).recipe, epochs=7, lr=0.25, batch_size=4, image_size=(320, 256), steps=(3, 5)
    )
    assert recipe == expected
    assert (options.model, options.data) == (TINY, "here")

    options, recipe = parse_train(
        ["--epochs", "9", "mask_rcnn_r50", "--config", str(config), "--data", "there"]
    )
    assert (options.model, options.data, recipe.epochs, recipe.optimizer) == (
        "mask_rcnn_r50",
        "there",
        9,
        "sgd",
    )


def test_upstream_names_are_understood():
    options, recipe = parse_train(["mask_rcnn_r50_fpn_r16_gcb_c3-c5_1x_coco", "--data", "x"])
    assert recipe == Recipe()
    assert options.out == "runs/mask_rcnn_r50_gc16"


def test_lists_need_no_brackets():
    words = [
        "--image-size",
        "320,256",
        "--steps",
        "8",
        "--scale-jitter",
        "0.8,1.25",
        "--class-names",
        "cat,dog",
    ]
    options, recipe = parse_train([TINY, "--data", "x", *words, "--loggers", "[]"])
    assert (recipe.image_size, recipe.steps, recipe.scale_jitter) == ((320, 256), (8,), (0.8, 1.25))
    assert options.class_names == ("cat", "dog")
    assert recipe.loggers == ()
    assert parse_train([TINY, "--data", "x", "--loggers", "tensorboard"])[1].loggers == ("tensorboard",)


def test_printed_config_gives_the_same_run(tmp_path, capsys):
    data = os.fsdecode(b"bl\xe4tter")  # a path that is no UTF-8
    words = [TINY, "--data", data, "--epochs", "5", "--image_size", "[320,256]", "--precision", "bf16"]
    words += ["--mirror", "here", "--mirror", "there"]
    with pytest.raises(SystemExit):
        parse_train([*words, "--print_config"])
    text = capsys.readouterr().out
    config = tmp_path / "recipe.yaml"
    config.write_text(text)
    assert set(yaml.safe_load(text)) >= {"model", "data", "out", *Recipe.__dataclass_fields__}
    again, recipe = parse_train(["--config", str(config)])
    first, expected = parse_train(words)
    assert recipe == expected
    assert (again.model, again.data, again.out) == (first.model, first.data, first.out)
    assert again.mirror == first.mirror == ["here", "there"]


def test_class_names_of_a_recipe_are_those_of_the_run(tmp_path):
    names = ("Bäcker 🥖", "👩‍👦", "面包", "a\x1b[31m", "bolt [m8], 'x'")
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump({"model": TINY, "class_names": list(names)}, allow_unicode=True))
    assert parse_train(["--config", str(config), "--data", "x"])[0].class_names == names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr: abc", "argument --lr: give NUMBER, not abc"),
        ("learning_rate: 1", "--learning-rate"),
        ("- a\n- b", "option: value"),
        ("a: [", "not YAML"),
        ("a: &x 3\nb: *x", "it has aliases"),
        ("model: mask_rcnn_tinny", 'did you mean "mask_rcnn_tiny'),
    ],
)
def test_a_bad_config_file_is_named(text, expected, tmp_path):
    config = tmp_path / "recipe.yaml"
    config.write_text(text)
    words = [] if text.startswith("model") else [TINY]
    with pytest.raises(GCNetError, match=re.escape(expected)):
        parse_train([*words, "--data", "x", "--config", str(config)])


def test_which_options_were_given(tmp_path):
    config = tmp_path / "recipe.yaml"
    config.write_text("lr: 0.5\n")
    options, _ = parse_train(
        [TINY, "--data", "x", "--batch-size=4", "--epochs", "3", "--config", str(config)]
    )
    assert options.given == {"batch_size": 4, "epochs": 3, "lr": 0.5}
    assert options.weights == "auto"
    assert parse_train([TINY, "--data", "x", "--weights", "none"])[0].weights == "none"


def test_a_file_says_which_model_it_is_and_is_what_it_starts_from(model_file):
    options, recipe = parse_train([str(model_file), "--data", "x"])
    assert (options.model, options.weights, recipe) == (str(model_file), "auto", find(TINY).recipe)
    with pytest.raises(GCNetError, match="brings its own weights"):
        run([str(model_file), "--data", str(model_file), "--weights", "none"])


@pytest.mark.parametrize(
    ("words", "resume"),
    [
        (["--lr", "1", TINY, "--resume", "--data=x"], True),
        (["--resume", "auto", TINY, "--data", "x"], "auto"),
        (["--resume=auto", TINY, "--data", "x"], "auto"),
        (["--data", "x", "--resume", TINY, "--lr=2"], True),
        (["--data", "x", "--crowd-as-objects", TINY], False),
        (["--data", "x", "--validation_loss", "false", TINY], False),
    ],
)
def test_the_model_is_found_wherever_it_stands(words: list[str], resume: bool | str) -> None:
    options, recipe = parse_train(words)
    assert (options.model, options.data, options.resume) == (TINY, "x", resume)
    assert recipe.crowd_as_objects == ("--crowd-as-objects" in words)
    assert not recipe.validation_loss


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "1.5"], "argument --epochs: give INTEGER, not 1.5"),
        (["--steps", "8 11"], "argument --steps: give INTEGER,..., not 8 11"),
        (["--image-size", "[8]"], "argument --image-size: give INTEGER,INTEGER, not [8]"),
        (["--optimizer", "sdg"], "argument --optimizer: give sgd|adamw, not sdg"),
        (["--image-size", "[96,96"], "argument --image-size"),
        (["--flips", "1"], 'did you mean "--flip"'),
        (["--label-smoothing", "0.1"], "there is no option 'label_smoothing' of the recipe"),
        (["another"], f"one model at a time, not {TINY} and another"),
    ],
)
def test_a_mistake_in_an_option_is_named(words: list[str], message: str) -> None:
    with pytest.raises(GCNetError, match=re.escape(message)):
        parse_train([TINY, "--data", "x", *words])


def test_classifiers_have_options_of_their_own() -> None:
    _, recipe = parse_train([CLASSIFIER, "--data", "x", "--label-smoothing", "0"])
    assert isinstance(recipe, ClassificationRecipe)
    assert recipe.label_smoothing == 0
    assert find(CLASSIFIER).recipe.epochs == recipe.epochs


def test_folders_that_are_not_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_folders(Path("photos"), train=1, valid=1)
    shutil.rmtree("photos/val/red")
    assert main(["train", CLASSIFIER, "--data", "photos"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("gcnet: error: photos/val has no folder for class 'red'")
    assert len(err.splitlines()) == 1
    assert not Path("runs").exists()


def test_a_stray_rank_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    write_context_shapes("shapes", train=1, valid=0, size=96)
    assert main(["train", TINY, "--data", "shapes", "--accelerator", "cpu"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("gcnet: error: the environment has RANK=1 without WORLD_SIZE")
    assert len(err.splitlines()) == 1


def test_resume_is_yes_no_or_auto(tmp_path):
    def resumes(*words):
        return parse_train([TINY, "--data", "x", *words])[0].resume

    config = tmp_path / "recipe.yaml"
    config.write_text("resume: auto\n")
    assert [resumes(), resumes("--resume"), resumes("--resume", "auto")] == [False, True, "auto"]
    assert resumes("--config", str(config)) == "auto"
    with pytest.raises(GCNetError, match="resume"):
        resumes("--resume=perhaps")


def test_help_has_each_field_of_the_recipe_once(capsys):
    for name in (TINY, CLASSIFIER):
        with pytest.raises(SystemExit):
            parse_train([name, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert shown.count("passes over the training images") == 1
        assert "of initialisation, sampling and augmentation (0)" in shown
        assert "train on images without objects too (false)" in shown
        assert ("share of an image's area" in shown) == (name == CLASSIFIER)


def test_fine_tuning_from_a_run_and_going_on_without_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_context_shapes("shapes", train=4, valid=2, size=96)
    names = json.loads(Path("shapes/train/_annotations.coco.json").read_text())["categories"]
    known = names[0]["name"]
    Path("old").mkdir()
    save_model(create_model(TINY, class_names=("dog", known.upper())), "old/best.safetensors")
    common = "--data shapes --batch-size 2 --workers 0 --accelerator cpu --image-size [96,96] --out run"
    words = common.split()
    assert main(["train", TINY, *words, "--epochs", "1", "--weights", "old"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "weights: old/best.safetensors"
    assert out[1].startswith(f"classes: 1 of {len(names)} keep their trained weights ({known}); new: ")
    assert out[2] == "frozen: no layer"
    assert yaml.safe_load(Path("run/recipe.yaml").read_text())["weights"] == "old/best.safetensors"
    assert load_model("run/last.safetensors").provenance["fine_tuned_from"]["classes_kept"] == [known]

    Path("old/best.safetensors").unlink()
    assert main(["train", "--config", "run/recipe.yaml", "--epochs", "2", "--resume"]) == 0
    assert yaml.safe_load(Path("run/recipe.yaml").read_text())["weights"] == "old/best.safetensors"
    assert main(["train", "--config", "run/recipe.yaml", "--out", "again"]) == 2
    assert "no such file or folder: old/best.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--add-context", "gd"],
        ["--add-context", "gc", "--ratio", "a/4"],
        ["--add-context", "gc", "--ratio", "1/0"],
        ["--add-context", "gc", "--stages", "c5-c3"],
        ["--add-context", "gc", "--stages", "c6"],
    ],
)
def test_blocks_that_cannot_be(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match=r"no context block|--ratio"):
        run(["mask_rcnn_tiny", "--data", str(tmp_path), "--out", str(tmp_path / "run"), *words])


def test_a_used_folder_is_known_before_anything_is_read(
    model_file: Path, shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").touch()
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no checkpoint")
    with pytest.raises(GCNetError, match="is not empty"):
        run([str(broken), "--data", str(shapes), "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mask_rcnn_tiny", "--add-context", "se"], '"se" would change a trained network'),
        (["mask_rcnn_tiny", "--remove-context"], "no context blocks to remove"),
        (["mask_rcnn_tiny_gc4", "--add-context", "gc"], "has context blocks already"),
    ],
)
def test_blocks_that_a_model_cannot_have_are_known_before_the_data(
    words: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "data.json").write_text("no JSON")
    with pytest.raises(GCNetError, match=message):
        run([*words, "--data", str(tmp_path / "data.json"), "--out", str(tmp_path / "run")])


@pytest.mark.parametrize("resume", ["--resume", "--resume=auto"])
@pytest.mark.parametrize("option", ["--weights", "--backbone-weights"])
def test_what_a_run_began_with_may_be_gone_when_it_goes_on(
    resume: str, option: str, shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "last.ckpt").touch()
    words = [TINY, "--data", str(shapes), "--out", str(tmp_path), resume]
    with pytest.raises(GCNetError, match=r"cannot resume from .*last\.ckpt"):
        run([*words, option, str(tmp_path / "gone.safetensors")])


def test_training_goes_on_from_any_file_that_can_be_read(shapes: Path, tmp_path: Path) -> None:
    """One of mmdetection, of a model that is in no catalog, which gets blocks; and again from its recipe."""
    source = built(small(image_size=(96, 96), backbone=replace(small().backbone, context=None)))
    names = ("board", "coil", "diode")
    torch.save({"state_dict": as_mmdet(source), "meta": {"CLASSES": names}}, tmp_path / "old.pth")
    words = ["--data", str(shapes), "--epochs", "1", "--batch-size", "2", "--workers", "0"]
    words += ["--warmup-iterations", "0", "--accelerator", "cpu"]
    added = ["--add-context", "gc", "--ratio", "1/4", "--stages", "c3-c5"]
    out = tmp_path / "run"
    assert run([str(tmp_path / "old.pth"), *words, *added, "--out", str(out)]) == 0
    trained = load_model(out / "last.safetensors")
    assert trained.spec.name == "old_gc4"
    assert trained.spec.backbone.context == ContextSpec(ratio=1 / 4)
    assert trained.spec.num_classes != 3
    again = tmp_path / "again"
    assert run(["--config", str(out / "recipe.yaml"), "--out", str(again), "--workers", "0"]) == 0
    theirs = load_model(again / "last.safetensors").state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in trained.state_dict().items())


@pytest.mark.parametrize(
    ("name", "change", "trained"),
    [
        ("mask_rcnn_tiny", "--add-context=gc", "mask_rcnn_tiny_gc16"),
        ("mask_rcnn_tiny_gc4", "--remove-context", "mask_rcnn_tiny"),
    ],
)
def test_the_recipe_of_a_run_with_other_blocks_names_what_it_started_from(
    name: str, change: str, trained: str, shapes: Path, tmp_path: Path
) -> None:
    words = [name, change, "--data", str(shapes), "--epochs", "1", "--batch-size", "2", "--workers", "0"]
    assert run([*words, "--image-size", "96,96", "--accelerator", "cpu", "--out", str(tmp_path / "run")]) == 0
    recipe = str(tmp_path / "run" / "recipe.yaml")
    assert yaml.safe_load(Path(recipe).read_text())["model"] == name
    assert run(["--config", recipe, "--out", str(tmp_path / "again")]) == 0
    one, again = (load_model(tmp_path / folder / "last.safetensors") for folder in ("run", "again"))
    assert one.spec == again.spec
    assert one.spec.name == trained
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in one.state_dict().items())
