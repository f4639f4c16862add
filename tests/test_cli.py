"""The command line: quick to start, one line for every mistake."""

from __future__ import annotations

import errno
import os
import resource
import shlex
import subprocess
import sys

import pytest
import torch

from gcnet.cli import main
from gcnet.commands import models
from gcnet.errors import GCNetError

TINY = "mask_rcnn_tiny_gc4"
GPU_FULL = "gcnet: error: the GPU's memory is full; use a smaller batch size, image size or --device cpu"


def run_fresh(*words: str) -> tuple[int, str, str, float]:
    """Exit code, stdout, stderr and CPU seconds of `gcnet WORDS` in a new process; HEAVY in stdout is bad."""
    script = (
        "import sys; from gcnet.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'cv2', 'torchvision'} & set(sys.modules);"
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
        (["train", "mask_rcnn_r50_gc61", "--data", "x"], 2, 'did you mean "mask_rcnn_r50_gc16'),
        (["predict", "mask_rcnn_tinny", "x.jpg"], 2, 'did you mean "mask_rcnn_tiny'),
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train", "which model?"),
        (f"train {TINY}", "which images? give --data"),
        (f"train {TINY} mask_rcnn_r50 --data x", "one model at a time"),
        (f"train {TINY} --data x --lr abc", "argument --lr: give NUMBER, not abc"),
        (f"train {TINY} --data x --image-size 96", "give INTEGER,INTEGER, not 96"),
        (f"train {TINY} --data x --optimizer adam", "sgd"),
        (f"train {TINY} --data x --steps 1,x", "argument --steps: give INTEGER,..., not 1,x"),
        ("train --config", "--config: expected one argument"),
        ("train --config nowhere.yaml", "No such file or directory: nowhere.yaml"),
        (f"train {TINY} --data nowhere-at-all", "nowhere-at-all"),
        (f"eval {TINY} --data x", "no published weights: add --weights FILE"),
        (f"eval {TINY} --data x --weights coco", "no published weights"),
        ("models vit swin", "no model has 'vit' and 'swin' in its names"),
        ("predict mask_rcnn_r50_gc16 nowhere.jpg", "nowhere.jpg does not exist"),
        (f"eval {TINY} --data x --weights nowhere.pth", "no such file or folder: nowhere.pth"),
        (f"eval {TINY} --data x --batch-size 0", "--batch-size: give 1 or more, not 0"),
        (f"eval {TINY} --data x --workers -1", "--workers: give 0 or more, not -1"),
        ("eval nowhere.safetensors --data x", "no such file or folder"),
        ("eval mask_rcnn_r50", "which images? give --data"),
        (f"predict {TINY}", "IMAGES"),
        (f"predict {TINY} x.jpg --score-thresh 1", 'did you mean "--score-threshold"?'),
        (f"attention {TINY} x.jpg", "add --weights FILE"),
        (f"attention {TINY} x.jpg --query 3", "give x,y as shares"),
        (f"analyse {TINY} --data x --images 0", "give 1 or more"),
        ("demo --seed one", "argument --seed: give 0 or more, not one"),
        (f"convert {TINY}", "OUT"),
        (f"convert {TINY} x.safetensors", "no published weights"),
        ("convert nowhere.pth x.safetensors", "no such file or folder: nowhere.pth"),
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


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (GCNetError("data.json: broken;\n  fix it"), 2, "gcnet: error: data.json: broken; fix it"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            2,
            "gcnet: error: No space left on device: out/x; free space",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried ..."), 2, GPU_FULL),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: ..."
            ),
            2,
            "gcnet: error: the memory is full; use a smaller batch size or image size, or fewer --workers",
        ),
        (
            ModuleNotFoundError("No module named 'torch._x'", name="torch._x"),
            2,
            "gcnet: error: this needs torch, which is not installed: pip install gcnet with all it needs",
        ),
        (KeyboardInterrupt(), 130, "gcnet: interrupted"),
    ],
)
def test_what_a_verb_raises_becomes_one_line(error, code, line, monkeypatch, capsys):
    def fail(argv):
        raise error

    monkeypatch.setattr(models, "run", fail)
    assert main(["models"]) == code
    assert capsys.readouterr().err.splitlines() == [line]


@pytest.mark.parametrize(
    ("changes", "words", "expected"),
    [
        ({"HOME": None, "user": "12345"}, ["models"], "/.cache/gcnet/weights"),
        (
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            ["trän"],
            r"no command 'tr\udcc3\udca4n'",
        ),
        ({"PYTHONIOENCODING": "ascii"}, ["\x1b[31mred\n" + 400 * "x"], r"no command '\x1b[31mred\nxxx"),
    ],
)
def test_odd_surroundings(changes, words, expected):
    environment = {name: value for name, value in os.environ.items() if name not in ("GCNET_HOME", *changes)}
    user = int(changes.pop("user")) if "user" in changes else None
    environment |= {name: value for name, value in changes.items() if value is not None}
    become = f"import os; os.setuid({user});" if user and os.getuid() == 0 else ""
    script = (
        f"import locale, pwd, sys, gcnet.cli, gcnet.commands.models; {become}"  # it may not read them later
        "from gcnet.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, env=environment
    )
    assert expected in (done.stderr if done.returncode else done.stdout)
    assert len(done.stderr.splitlines()) == (done.returncode == 2)
    assert len(done.stderr) < 300


def test_a_bug_keeps_its_traceback_and_debug_shows_all(monkeypatch):
    def fail(argv):
        raise {"bug": ZeroDivisionError, "user": GCNetError}[argv[0]]("x")

    monkeypatch.setattr(models, "run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["models", "bug"])
    monkeypatch.setenv("GCNET_DEBUG", "1")
    with pytest.raises(GCNetError):
        main(["models", "user"])
