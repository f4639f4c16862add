"""The command line: `gcnet COMMAND ...`.

A mistake of the user ends in one line on stderr and exit code 2 (`GCNET_DEBUG=1` shows the traceback). The
exit code is 1 if a command did its work but could not read some of many images.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from gcnet.console import did_you_mean, one_line, shown
from gcnet.engine.stop import ended_by_signals
from gcnet.errors import GCNetError

# Name: its module in gcnet.commands, imported when it is called, and its line in the overview.
VERBS = {
    "demo": ("demo", "generate images, train on them, score, draw: the whole path in minutes"),
    "data": ("data", "a page on a data set: classes, sizes, faults, what training leaves out"),
    "train": ("train", "train a detector on outlines or boxes, or a classifier on folders of images"),
    "eval": ("evaluate", "score a model: box and mask AP of a detector, accuracy of a classifier"),
    "compare": ("compare", "score two models on a data set: is one better, and where"),
    "curve": ("curve", "estimate what more images would give, by training on parts of them"),
    "predict": ("predict", "find objects in images, or name the images' classes"),
    "video": ("video", "find objects in a video or a camera's frames, and follow them"),
    "serve": ("serve", "run a model as an HTTP service, with a page to try it on"),
    "export": ("export", "write a model for ONNX Runtime, OpenVINO or torch.export, and check it"),
    "convert": ("convert", "turn a checkpoint of mmdetection, torchvision or detectron2 into our file"),
    "models": ("models", "list the models by name"),
    "attention": ("attention", "draw where the context blocks look in an image"),
    "analyse": ("analyse", "measure on a data set how much attention depends on the query"),
    "ablate": ("ablate", "compare context blocks: the paper's studies, trained and tabulated"),
    "benchmark": ("benchmark", "time models on this machine, beside each other or another library"),
}


# What to do about an error of the system.
HINTS = {
    errno.ENOSPC: "; free space",
    errno.EDQUOT: "; free space in your quota",
    errno.EMFILE: "; raise `ulimit -n`",
    errno.ENFILE: "; the system has no more file handles, close other programs",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 or 2 as above, 130 after Ctrl-C."""
    set_up_output()
    # Threads that wait for each other otherwise spin: with another busy process on the same cores, a
    # training step on the CPU then takes four times as long. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with ended_by_signals():
            return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        print("gcnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `gcnet models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (GCNetError, OSError, RuntimeError, MemoryError, ModuleNotFoundError) as error:
        line = _one_line(error)
        if line is None or os.environ.get("GCNET_DEBUG"):
            raise
        print(f"gcnet: error: {line}", file=sys.stderr)
        return 2


class _Lines(logging.Formatter):
    """Formats each warning as one line, whatever names it contains."""

    def format(self, record: logging.LogRecord) -> str:
        return f"gcnet: {one_line(record.getMessage())}"


def set_up_output() -> None:
    """Makes warnings lines, and lets the output streams take every character in any locale."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(handlers=[handler])


def _dispatch(argv: list[str]) -> int:
    verb, *words = argv or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if verb == "--version":
        from gcnet import __version__

        print(f"gcnet {__version__}")
        return 0
    if verb not in VERBS:
        raise GCNetError(
            f"no command '{shown(verb)}'; {did_you_mean(verb, VERBS, '`gcnet --help` lists them')}"
        )
    module, _ = VERBS[verb]
    return import_module(f"gcnet.commands.{module}").run(words)


def _overview() -> str:
    rows = "\n".join(f"  {name:10}{line}" for name, (_, line) in VERBS.items())
    return (
        "usage: gcnet COMMAND ...\n\n"
        "Mask R-CNN with global context blocks: train, evaluate, predict, look inside.\n\n"
        f"{rows}\n\n`gcnet COMMAND --help` explains one of them. Exit codes: 0, all is done; 1, some images "
        "could not\nbe read; 2, one line says what is wrong; 129, 130 and 143, interrupted."
    )


def _one_line(error: Exception) -> str | None:
    """The message for the user; None if the error is a bug."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return one_line(f"{error.strerror}{where}{HINTS.get(error.errno or 0, '')}")
    if isinstance(error, GCNetError | OSError):
        return one_line(str(error), 500) or type(error).__name__  # with an address to copy
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("gcnet"):
        package = error.name.partition(".")[0]
        return f"this needs {package}, which is not installed: pip install gcnet with all it needs"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: " in str(error):  # torch's own
        return "the memory is full; use a smaller batch size or image size, or fewer --workers"
    if type(error).__name__ == "OutOfMemoryError":  # torch's; torch may not be imported here
        return "the GPU's memory is full; use a smaller batch size, image size or --device cpu"
    return None
