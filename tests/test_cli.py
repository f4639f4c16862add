"""The command line: quick to start, one line for every mistake, later words win."""

from __future__ import annotations

import errno
import json
import re
import resource
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from gcnet import cli
from gcnet.arguments import check_writable, find_weights, parse_train, split_train
from gcnet.cli import VERBS, main
from gcnet.data.context_shapes import write_context_shapes
from gcnet.engine.recipe import Recipe
from gcnet.errors import GCNetError
from gcnet.models.weights import load_model, save_model
from gcnet.zoo.catalog import find, list_models
from gcnet.zoo.create import create_model

ROOT = Path(__file__).parent.parent
TINY = "mask_rcnn_tiny_gc4"
GPU_FULL = "gcnet: error: the GPU's memory is full; use a smaller batch size, image size or --device cpu"


def run_fresh(*words: str) -> tuple[int, str, str, float]:
    """Exit code, stdout, stderr and CPU seconds of `gcnet WORDS` in a new process; HEAVY in stdout is bad."""
    script = (
        "import sys; from gcnet.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'cv2', 'lightning', 'torchvision'} & set(sys.modules);"
        "print('HEAVY', heavy) if heavy else None; sys.exit(code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, done.stdout, done.stderr, seconds


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--help"], 0, "usage: gcnet COMMAND"),
        ([], 0, "usage: gcnet COMMAND"),
        (["--version"], 0, "gcnet 0."),
        (["models"], 0, "mask_rcnn_r50_gc16"),
        (["models", "--json"], 0, '"name": "mask_rcnn_r50_gc16"'),
        (["predict", "mask_rcnn_r50", "nowhere.jpg"], 2, "nowhere.jpg does not exist"),
        (["trian", "x"], 2, 'did you mean "train"?'),
        (["train", "mask_rcnn_r50_gc61", "--data", "x"], 2, "did you mean mask_rcnn_r50_gc16"),
        (["predict", "mask_rcnn_tinny", "x.jpg"], 2, "did you mean mask_rcnn_tiny"),
        (["train", TINY, "--data", "x", "--epoch", "3"], 2, 'did you mean "--epochs"?'),
        (["ablate", "blok"], 2, 'did you mean "block"?'),
    ],
)
def test_names_and_help_are_quick_and_load_no_torch(words, code, expected):
    returned, out, err, seconds = run_fresh(*words)
    assert returned == code
    assert expected in out + err
    assert "HEAVY" not in out
    assert len(err.splitlines()) == (code == 2)
    assert seconds < 1.0


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as done:
        main([verb, "--help"])
    assert done.value.code == 0
    assert f"gcnet {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train", "which model?"),
        (f"train {TINY}", "add --data DIR"),
        (f"train {TINY} mask_rcnn_r50 --data x", "one model at a time"),
        (f"train {TINY} --data x --lr abc", 'option "lr": Expected'),
        (f"train {TINY} --data x --optimizer adam", "sgd"),
        (f"train {TINY} --data x --steps 1,2", 'option "steps"'),
        ("train --config", "--config needs a value"),
        ("train --config nowhere.yaml", "No such file or directory: nowhere.yaml"),
        (f"train {TINY} --data nowhere-at-all", "nowhere-at-all"),
        (f"eval {TINY} --data x", "no published weights: add --weights FILE"),
        (f"eval {TINY} --data x --weights coco", "no published weights"),
        ("models vit swin", "no model has 'vit' and 'swin' in its names"),
        ("predict mask_rcnn_r50_gc16 nowhere.jpg", "nowhere.jpg does not exist"),
        (f"eval {TINY} --data x --weights nowhere.pth", "no such file: nowhere.pth"),
        ("eval nowhere.safetensors --data x", "no such file or folder"),
        (f"eval {TINY}", "--data"),
        (f"predict {TINY}", "IMAGES"),
        (f"predict {TINY} x.jpg --score-thresh 1", 'did you mean "--score-threshold"?'),
        (f"attention {TINY} x.jpg", "add --weights FILE"),
        (f"attention {TINY} x.jpg --query 3", "give x,y as shares"),
        (f"analyse {TINY} --data x --images 0", "give 1 or more"),
        ("demo --seed one", "invalid int value: 'one'"),
        (f"convert {TINY}", "OUT"),
        (f"convert {TINY} x.safetensors", "no published weights"),
        ("convert nowhere.pth x.safetensors", "there is no model 'nowhere.pth'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(words)) == 2
    err = capsys.readouterr().err
    assert err.startswith("gcnet: error: ")
    assert len(err.splitlines()) == 1
    assert expected in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["train", "eval", "predict", "convert", "demo", "attention", "analyse"])
def test_output_that_cannot_be_written_is_an_error_before_any_work(verb, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file where a folder should be")
    (tmp_path / "model.safetensors").write_text("")
    out = str(tmp_path / "taken" / "run")
    words = {
        "train": [TINY, "--data", str(tmp_path)],
        "eval": [str(tmp_path / "model.safetensors"), "--data", str(tmp_path)],
        "predict": [str(tmp_path / "model.safetensors"), str(tmp_path)],
        "convert": [str(tmp_path / "model.safetensors"), out + "/x.safetensors"],
        "demo": [],
        "attention": [str(tmp_path / "model.safetensors"), str(tmp_path / "x.jpg")],
        "analyse": [str(tmp_path / "model.safetensors"), "--data", str(tmp_path)],
    }[verb]
    assert main([verb, *words, *([] if verb == "convert" else ["--out", out])]) == 2
    assert "is not a folder; choose another" in capsys.readouterr().err


def test_check_writable_makes_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (GCNetError("data.json: broken;\n  fix it"), 2, "gcnet: error: data.json: broken; fix it"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            2,
            "gcnet: error: No space left on device: out/x",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried ..."), 2, GPU_FULL),
        (KeyboardInterrupt(), 130, "gcnet: interrupted"),
    ],
)
def test_what_a_verb_raises_becomes_one_line(error, code, line, monkeypatch, capsys):
    def fail(argv):
        raise error

    monkeypatch.setitem(cli.VERBS, "models", (fail, ""))
    assert main(["models"]) == code
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_bug_keeps_its_traceback_and_debug_shows_all(monkeypatch):
    def fail(argv):
        raise {"bug": ZeroDivisionError, "user": GCNetError}[argv[0]]("x")

    monkeypatch.setitem(cli.VERBS, "models", (fail, ""))
    with pytest.raises(ZeroDivisionError):
        main(["models", "bug"])
    monkeypatch.setenv("GCNET_DEBUG", "1")
    with pytest.raises(GCNetError):
        main(["models", "user"])


# --- gcnet train: recipe of the model < --config < command line ----------------------------------------


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


def test_printed_config_gives_the_same_run(tmp_path, capsys):
    words = [TINY, "--data", "x", "--epochs", "5", "--image_size", "[320,256]", "--precision", "bf16"]
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr: abc", 'option "lr"'),
        ("learning_rate: 1", "learning_rate"),
        ("- a\n- b", "option: value"),
        ("a: [", "not YAML"),
        ("model: mask_rcnn_tinny", "did you mean mask_rcnn_tiny"),
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
    assert options.given == {"data", "batch_size", "epochs", "lr"}
    assert options.weights == "auto"
    assert parse_train([TINY, "--data", "x", "--weights", "none"])[0].weights is None


def test_the_model_is_found_wherever_it_stands():
    assert split_train(["--lr", "1", "name", "--resume", "--data=x"]) == (
        "name",
        None,
        ["--lr", "1", "--resume", "--data=x"],
    )
    assert split_train(["--resume", "name", "--config", "c"]) == ("name", "c", ["--resume"])


# --- which model ---------------------------------------------------------------------------------------


def test_a_run_folder_stands_for_its_best_model(tmp_path):
    with pytest.raises(GCNetError, match="not a run"):
        find_weights(str(tmp_path))
    (tmp_path / "last.safetensors").touch()
    assert find_weights(str(tmp_path)) == tmp_path / "last.safetensors"
    (tmp_path / "best.safetensors").touch()
    assert find_weights(str(tmp_path)) == tmp_path / "best.safetensors"
    assert find_weights(str(tmp_path / "last.safetensors")) == tmp_path / "last.safetensors"
    assert find_weights(TINY) is None


def test_a_file_and_weights_contradict_each_other(tmp_path, capsys):
    (tmp_path / "best.safetensors").touch()
    assert main(["eval", str(tmp_path), "--data", "x", "--weights", "y.pth"]) == 2
    assert "leave out --weights" in capsys.readouterr().err


# --- the whole path ------------------------------------------------------------------------------------


def test_train_eval_predict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_context_shapes("shapes", train=4, valid=2, size=96)
    tiny = (
        "--data shapes --out run --epochs 1 --batch-size 2 --workers 0 --accelerator cpu --image-size [96,96]"
    )
    assert main(["train", TINY, *tiny.split()]) == 0
    assert {path.name for path in Path("run").iterdir()} >= {
        "best.safetensors",
        "last.safetensors",
        "recipe.yaml",
    }

    options, recipe = parse_train(["--config", "run/recipe.yaml"])
    assert (options.model, options.data, options.out) == (TINY, "shapes", "run")
    assert recipe == replace(
        find(TINY).recipe, epochs=1, batch_size=2, workers=0, accelerator="cpu", image_size=(96, 96)
    )
    assert main(["train", "--config", "run/recipe.yaml", "--out", "run"]) == 2
    assert "--resume" in capsys.readouterr().err

    assert (
        main(["eval", "run", "--data", "shapes", "--out", "scores", "--workers", "0", "--device", "cpu"]) == 0
    )
    assert Path("scores/results.json").is_file()
    assert "AP50" in capsys.readouterr().out

    Path("broken.png").write_bytes(b"no image")
    words = ["predict", "run/last.safetensors", "shapes/valid", "--out", "found", "--device", "cpu"]
    assert main(words) == 0
    assert len(list(Path("found").glob("*.png"))) == 2
    assert main([*words, "broken.png"]) == 2
    assert "broken.png" in capsys.readouterr().err
    assert main(["eval", "run", "--data", "shapes", "--split", "test"]) == 2
    assert "it has train, valid" in capsys.readouterr().err


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
    assert out[1].startswith(f"classes: 1 of {len(names)} keep their trained rows ({known}); new: ")
    assert out[2] == "frozen: nothing"
    assert yaml.safe_load(Path("run/recipe.yaml").read_text())["weights"] == "old/best.safetensors"
    assert load_model("run/last.safetensors").provenance["fine_tuned_from"]["classes_kept"] == [known]

    Path("old/best.safetensors").unlink()
    assert main(["train", "--config", "run/recipe.yaml", "--epochs", "2", "--resume"]) == 0
    assert yaml.safe_load(Path("run/recipe.yaml").read_text())["weights"] == "old/best.safetensors"
    assert main(["train", "--config", "run/recipe.yaml", "--out", "again"]) == 2
    assert "no such file: old/best.safetensors" in capsys.readouterr().err


def test_convert_onto_a_full_disk_and_by_name(tmp_path, monkeypatch, capsys):
    source = tmp_path / "ours.safetensors"
    save_model(create_model(TINY, num_classes=2), source)
    wrong = ["convert", str(source), str(tmp_path / "x.safetensors"), "--model", "mask_rcnn_tiny"]
    assert main(wrong) == 2
    assert "does not fit this model" in capsys.readouterr().err
    assert main(["convert", str(source), str(tmp_path / "x.pth")]) == 2
    assert "SOMETHING.safetensors" in capsys.readouterr().err

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["convert", str(source), str(tmp_path / "y.safetensors")]) == 2
    assert capsys.readouterr().err == "gcnet: error: No space left on device\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ours.safetensors"]


# --- the documents -------------------------------------------------------------------------------------


def documented_commands() -> list[str]:
    """Every `gcnet ...` line in the shell blocks of the README and the guides."""
    commands = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(), re.DOTALL):
            commands += [line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [command for command in commands if command.startswith(("gcnet", "make"))]


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_exist(command, capsys):
    """Names of commands, options and models are real; nothing is run."""
    name, *words = shlex.split(command, comments=True)
    if name == "make":
        assert all(f"\n{word}:" in (ROOT / "Makefile").read_text() for word in words)
        return
    with pytest.raises(SystemExit):
        main([words[0], "--help"])
    options = set(re.findall(r"--[a-z_-]+", capsys.readouterr().out))
    for word in words[1:]:
        if word.startswith("--"):
            given = word.split("=")[0]
            assert given in options or given.replace("-", "_").replace("__", "--", 1) in options
        elif word.startswith(("mask_rcnn", "cascade")) and "." not in word:
            assert find(word)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/looking-in.md",
        "docs/train-your-own.md",
        "docs/weights.md",
    ],
)
def test_links_between_documents_lead_somewhere(page):
    for target in re.findall(r"\]\(([^):]+\.md)\)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).is_file(), target
