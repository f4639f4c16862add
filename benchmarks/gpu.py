"""All figures of a GPU in one command: correctness first, then speed, then training.

    python benchmarks/gpu.py --minutes 9 --out gpu
    python benchmarks/gpu.py --device cpu --tiny --out dry      # every step, with tiny models and sizes

Steps are in the order of their worth. `gpu.json` and `gpu.png` are written after each one; a step that the
minutes left do not hold is passed over, one that fails leaves its error, and the same command run again does
only what is missing. Nothing is fetched: weights are random numbers, but for the golden detections, whose
weights are the reference's own formula (tests/golden).
"""

# ruff: noqa: E402 (the imports after sys.path is set)

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "golden")]

import loader as loading
import published_rows
from test_detections import CASCADE, DEFORMABLE, GC4, R50, compare
from test_training import strided

from conftest import PICTURES, read_json, reference_state
from gcnet import predict
from gcnet.files import prepare_folder, write_json
from gcnet.lab.benchmark import Run, describe_machine, peak_bytes, time_in_turn
from gcnet.lab.subjects import (
    busy_detector,
    inference,
    random_batch,
    random_targets,
    total_loss,
    twin_inference,
    twin_loss,
    twin_of,
)
from gcnet.models.detector import Detector
from gcnet.types import Batch, Detections
from gcnet.weights.catalog import find_detector
from gcnet.weights.create import create_model

Record = dict[str, Any]
LAST: Any = torch.channels_last


@dataclass(frozen=True)
class Setting:
    """Where and how much is measured. `rows` are a model and the same with blocks."""

    device: str
    tiny: bool
    out: Path

    @property
    def rows(self) -> list[str]:
        return (
            ["mask_rcnn_tiny", "mask_rcnn_tiny_gc4"] if self.tiny else ["mask_rcnn_r50", "mask_rcnn_r50_gc4"]
        )

    @property
    def size(self) -> tuple[int, int]:
        return (64, 96) if self.tiny else (800, 1216)

    @property
    def batches(self) -> list[int]:
        return [1, 2] if self.tiny else [1, 8]

    @property
    def repeats(self) -> int:
        return 1 if self.tiny else 15

    @property
    def gpu(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def batch(self, images: int) -> Batch:
        return random_batch(images, self.size).to(self.device)

    def medians(self, runs: dict[str, Run]) -> dict[str, float]:
        """Milliseconds of each run, timed in turn."""
        warmup = 1 if self.tiny else 4
        times = time_in_turn(runs, repeats=self.repeats, warmup=warmup, device=self.device)
        return {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}


# Is it right? -----------------------------------------------------------------------------------------


def environment(setting: Setting) -> Record:
    """The machine and what is installed on it."""
    free, whole = torch.cuda.mem_get_info() if setting.gpu else (0, 0)
    return describe_machine(setting.device) | {
        "commit": commit(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "free MB": free >> 20,
        "memory MB": whole >> 20,
    }


def golden_detections(setting: Setting) -> Record:
    """mmdetection's detections, in fp32 without TensorFloat-32: eager, and the optimised copy.

    Of the copy as it computes a first image, and as it is recorded on a GPU. 0 problems is parity.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    cases = {R50: "img1"} if setting.tiny else {R50: "img1", GC4: "img0", CASCADE: "img0", DEFORMABLE: "img0"}
    found = {}
    for row, image in cases.items():
        detector = reference_model(row, setting.out).to(setting.device)
        theirs = read_json("detections.json.gz")[f"{row}/{image}"]
        copies = {"optimized": detector.optimize()} | ({} if setting.tiny else {"eager": detector})
        for name, one in copies.items():
            times = 4 if setting.gpu and name == "optimized" else 1
            for number, seen in enumerate([one.predict_images(PICTURES[image])[0] for _ in range(times)]):
                problems = compare(seen, theirs)
                key = f"{row} {name}{', recorded' if number > 2 else ''}"
                found[key] = {"problems": len(problems), "first": problems[:2]}
    return found


def reference_model(row: str, folder: Path) -> Detector:
    """A row with the weights that the golden numbers were made with."""
    file = folder / "reference.pth"
    torch.save({"meta": {"CLASSES": ("a",)}, "state_dict": reference_state(row)}, file)
    try:
        detector = create_model(row, weights=file)
    finally:
        file.unlink()
    assert isinstance(detector, Detector)
    return detector


def training_step(setting: Setting) -> Record:
    """Losses and gradients of one step here and on the CPU, from the same weights and samples."""
    given: dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}
    for device in ("cpu", setting.device):
        detector = busy_detector(setting.rows[1]).to(device).train()
        detector.rpn.sample = detector.roi_heads.sample = on_its_device(strided)
        detector.shapes = "static"  # as on a GPU
        targets = [one.to(device) for one in random_targets(1, setting.size, 80)]
        losses = detector.losses(random_batch(1, setting.size).to(device), targets)
        torch.stack(list(losses.values())).sum().backward()
        gradients = {n: p.grad.norm().cpu() for n, p in detector.named_parameters() if p.grad is not None}
        given[device] = {n: v.detach().cpu() for n, v in losses.items()}, gradients
    (losses, gradients), (ours, our_gradients) = given["cpu"], given[setting.device]
    errors = [relative(our_gradients[name], norm) for name, norm in gradients.items()]
    return {
        "losses, largest relative difference": max(relative(ours[n], v) for n, v in losses.items()),
        "gradient norms, median difference": statistics.median(errors),
        "gradient norms, 95th percentile": float(np.quantile(errors, 0.95)),
    }


def on_its_device(sample: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """The sampler's results where its arguments are."""

    def run(marked: Tensor, limit: Tensor, size: int) -> tuple[Tensor, Tensor]:
        index, taken = sample(marked, limit, size)
        return index.to(marked.device), taken.to(marked.device)

    return run


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The difference as a share of the reference."""
    return float((ours - theirs).abs() / theirs.abs().clamp(min=1e-6))


def sync_batch_norm(setting: Setting) -> Record:
    """A trained SyncBatchNorm in one process is a BatchNorm."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 9, 7, device=setting.device)
    norm, sync = nn.BatchNorm2d(8).to(setting.device), nn.SyncBatchNorm(8).to(setting.device)
    return {"largest difference": (norm(x) - sync(x)).abs().max().item() if setting.gpu else "needs a GPU"}


def precisions(setting: Setting) -> Record:
    """How far the optimised copies of all precisions are from eager in fp32."""
    found = {}
    for row in setting.rows:
        detector, batch = busy_detector(row).to(setting.device), setting.batch(1)
        exact = detector.predict(batch)[0].to("cpu")
        widths: list[Any] = ["fp32", "bf16", *(["fp16"] if setting.gpu else [])]
        for width in widths:
            ours = detector.optimize(precision=width).predict(batch)[0]
            found[f"{row} {width}"] = apart(ours.to("cpu"), exact)
    return found


def apart(ours: Detections, exact: Detections) -> Record:
    """Largest differences of what both found: the same label, and boxes less than a pixel apart."""
    distance = (ours.boxes[:, None] - exact.boxes[None]).abs().amax(-1)
    distance[ours.labels[:, None] != exact.labels[None]] = float("inf")
    nearest = distance.min(0) if len(ours) and len(exact) else None
    if nearest is None:
        return {"ours": len(ours), "exact": len(exact)}
    both = nearest.values < 1
    scores = (ours.scores[nearest.indices] - exact.scores).abs()[both]
    return {
        "not found": int((~both).sum()),
        "box px": float(nearest.values[both].max()) if both.any() else None,
        "score": float(scores.max()) if both.any() else None,
    }


# Is it fast? ------------------------------------------------------------------------------------------


def from_pixels(setting: Setting) -> Record:
    """uint8 pixels on the device to masks there: milliseconds a batch, and the block's cost."""
    widths = ["fp32", "tf32", "fp16", "bf16"] if setting.gpu else ["fp32"]
    found = {}
    for images in setting.batches:
        for width in widths:
            runs = {row: inference(ready(row, width, setting), setting.batch(images)) for row in setting.rows}
            # Before anything is recorded: what is recorded is held between two runs.
            memory = {
                name: [peak_bytes(run, setting.device) or 0 for _ in range(2)] for name, run in runs.items()
            }
            medians = setting.medians(runs)
            plain, block = medians.values()
            found[f"{width}, {images}"] = {
                "ms": medians,
                "images/s": {name: 1e3 * images / ms for name, ms in medians.items()},
                "blocks cost": block / plain,
                "MB": {name: second >> 20 for name, (_, second) in memory.items()},
            }
    return found


def ready(row: str, width: str, setting: Setting, *, compiled: bool = False) -> Detector:
    """An optimised copy; "tf32" is fp32 with TensorFloat-32 products."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = width == "tf32"
    precision: Any = "fp32" if width == "tf32" else width
    return busy_detector(row).to(setting.device).optimize(precision=precision, compiled=compiled)


def beside_torchvision(setting: Setting) -> Record:
    """torchvision's model with the same weights: as it is, and at its best (autocast, channels-last)."""
    width = "fp16" if setting.gpu else "bf16"
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[width]
    found = {}
    for images in setting.batches[:1] if setting.tiny else setting.batches:
        batch = setting.batch(images)
        twin = twin_of(busy_detector("mask_rcnn_r50")).to(setting.device)
        twin.transform.min_size, twin.transform.max_size = (min(setting.size),), max(setting.size)
        last = copy.deepcopy(twin).to(memory_format=LAST)
        runs = {
            "torchvision": twin_inference(twin, batch),
            f"torchvision {width}, channels-last": under_autocast(
                twin_inference(last, batch), setting.device, dtype
            ),
            **{f"{row} {width}": inference(ready(row, width, setting), batch) for row in setting.rows},
        }
        found[str(images)] = setting.medians(runs)
    return found


def under_autocast(run: Run, device: str, dtype: torch.dtype) -> Run:
    """The run in mixed precision."""

    def cast() -> Any:
        with torch.autocast(torch.device(device).type, dtype):
            return run()

    return cast


def end_to_end(setting: Setting) -> Record:
    """A picture in memory to run-length encodings, one after the other, and the parts of that.

    Then a folder of pictures as `gcnet predict` takes it, where the CPU works beside the GPU.
    """
    width: Any = "fp16" if setting.gpu else "fp32"
    runs = {row: published_rows.end_to_end(ready(row, width, setting), 1) for row in setting.rows}
    detector = ready(setting.rows[0], width, setting)
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    batch = detector.prepare(picture)
    found = detector.predict(batch)[0]
    kept = found.on_cpu().arrays()
    parts: dict[str, Run] = {
        "resized and on the device": lambda: detector.prepare(picture),
        "predicted": lambda: detector.predict(batch),
        "edges found, on the CPU": found.on_cpu,
        "encoded": kept.encoded,
    }
    folder = setting.out / "pictures"
    folder.mkdir(exist_ok=True)
    for number in range(4 if setting.tiny else 400):
        (folder / f"{number}.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    began = time.perf_counter()
    options = {"out": setting.out / "predicted", "overlays": False, "progress": False, "precision": width}
    predict(busy_detector(setting.rows[0]).to(setting.device), folder, **options)
    images_s = len(list(folder.iterdir())) / (time.perf_counter() - began)
    return setting.medians(runs | parts) | {"a folder, images/s": images_s}


def other_ways(setting: Setting) -> Record:
    """Without recordings, as a shape is computed that comes for the first time."""
    runs: dict[str, Run] = {}
    for row in setting.rows:
        fast = ready(row, "fp16" if setting.gpu else "fp32", setting)
        fast.recordings = None
        runs[f"{row}, not recorded"] = inference(fast, setting.batch(1))
    return setting.medians(runs)


def compiled(setting: Setting) -> Record:
    """With torch.compile, and how far from eager that is."""
    if not setting.gpu:
        return {"left out": "it is for GPUs"}
    found: Record = {}
    for row in setting.rows:
        batch = setting.batch(1)
        fast, exact = ready(row, "fp16", setting, compiled=True), ready(row, "fp16", setting)
        found[row] = apart(fast.predict(batch)[0].to("cpu"), exact.predict(batch)[0].to("cpu"))
        found |= setting.medians({f"{row}, ms": inference(fast, batch)})
    return found


def all_rows(setting: Setting) -> Record:
    """Every published row beside what mmdetection measured on a V100, one image at a time."""
    options = argparse.Namespace(compile=False, end_to_end=False, repeats=setting.repeats)
    rows = [find_detector(name) for name in setting.rows] if setting.tiny else published_rows.published()
    width = "fp16" if setting.gpu else "fp32"
    records: list[Record] = []
    for family in published_rows.families(rows):
        records += published_rows.measure(family, width, 1, setting.device, options)
    return {record.pop("model"): record for record in records}


def where_time_waits(setting: Setting) -> Record:
    """The costliest operations of one prediction, how many kernels it launches, and how often it waits."""
    fast, batch = ready(setting.rows[1], "fp16" if setting.gpu else "fp32", setting), setting.batch(1)
    run = torch.no_grad()(lambda: fast.predict(batch))
    for _ in range(4):  # recorded by then
        run()
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if setting.gpu else []
    with torch.profiler.profile(activities=activities) as profile:
        run()
    events = profile.key_averages()
    key = "device_time_total" if setting.gpu else "cpu_time_total"
    costly = sorted(events, key=lambda event: getattr(event, f"self_{key}"), reverse=True)[:15]
    counts = {event.key: event.count for event in events}
    return {
        "ms": {event.key[:70]: getattr(event, f"self_{key}") / 1e3 for event in costly},
        "kernels": sum(count for name, count in counts.items() if "LaunchKernel" in name),
        "waits for the device": sum(n for name, n in counts.items() if "Synchronize" in name),
        "copies": sum(count for name, count in counts.items() if "MemcpyAsync" in name),
    }


# Does it train? ---------------------------------------------------------------------------------------


def training_speed(setting: Setting) -> Record:
    """Forward and backward pass beside torchvision's, in fp32 and in mixed precision."""
    images = setting.batches[-1]
    batch = setting.batch(images)
    targets = [one.to(setting.device) for one in random_targets(images, setting.size, 80)]
    losses = {}
    if not setting.tiny:
        twin = twin_of(busy_detector("mask_rcnn_r50")).to(setting.device)
        losses["torchvision"] = twin_loss(twin, batch, targets)
    for row in setting.rows:
        detector = busy_detector(row).to(setting.device, memory_format=LAST)  # as `gcnet train` has it
        losses[row] = total_loss(detector, batch, targets)
    runs = {name: backward(total) for name, total in losses.items()}
    dtype = torch.bfloat16
    runs |= {f"{name}, bf16": under_autocast(run, setting.device, dtype) for name, run in runs.items()}
    memory = {f"{name}, MB": (peak_bytes(run, setting.device) or 0) >> 20 for name, run in runs.items()}
    return setting.medians(runs) | memory


def backward(total: Callable[[], Tensor]) -> Run:
    """The gradients of a loss; they add up, which changes no time."""
    return lambda: total().backward()


def loader_speed(setting: Setting) -> Record:
    """Images a second of the training loader, with nobody computing on them."""
    folder = setting.out / "loader"
    folder.mkdir(exist_ok=True)
    pictures, images, workers = (4, 4, [0]) if setting.tiny else (64, 400, [4, 8, 16])
    dataset = loading.make_dataset(folder, pictures)
    return {
        f"{n} workers": loading.images_a_second(
            loading.make_loader(dataset, 2 if setting.tiny else 8, n), images
        )
        for n in workers
    }


def context_shapes(setting: Setting) -> Record:
    """The demo: generated pictures, a training from random weights, box AP50, and seconds."""
    if setting.tiny:
        return {"left out": "`make demo` is this on a CPU"}
    began = time.perf_counter()
    command = [sys.executable, "-m", "gcnet", "demo", "--out", str(setting.out / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if "AP50" in line]
    return {
        "s": time.perf_counter() - began,
        "said": said,
        "error": done.stderr[-500:] if done.returncode else "",
    }


# One after the other ----------------------------------------------------------------------------------

# Seconds that each may take on an H100, in the order of their worth.
STEPS: list[tuple[Callable[[Setting], Record], int]] = [
    (environment, 1),
    (golden_detections, 30),
    (training_step, 10),
    (sync_batch_norm, 1),
    (precisions, 15),
    (from_pixels, 45),
    (beside_torchvision, 20),
    (end_to_end, 20),
    (training_speed, 40),
    (all_rows, 60),
    (where_time_waits, 5),
    (other_ways, 5),
    (loader_speed, 10),
    (context_shapes, 90),
    (compiled, 150),
]


def main() -> None:
    """Runs what there is time for."""
    options = parse()
    setting = Setting(options.device, options.tiny, options.out)
    prepare_folder(options.out)
    file = options.out / "gpu.json"
    report: Record = json.loads(file.read_text()) if file.exists() else {}
    if report.get("environment", {}).get("commit") not in (None, commit()):
        sys.exit(f"{file} was measured on another commit: give another --out")
    ends = time.monotonic() + 60 * options.minutes
    for step, seconds in chosen(options.steps):
        name = step.__name__
        if name in report and "error" not in report[name]:
            continue
        if time.monotonic() + seconds > ends:
            print(f"{name}: passed over, it may take {seconds} s", flush=True)
            continue
        began = time.monotonic()
        report[name] = attempt(step, setting)
        print(f"{name}: {time.monotonic() - began:.1f} s, {json.dumps(report[name])[:400]}", flush=True)
        write_json(file, report)
        draw(report, options.out / "gpu.png")
    failed = [name for name, record in report.items() if record.get("error")]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def chosen(names: Iterable[str]) -> list[tuple[Callable[[Setting], Record], int]]:
    """The steps of these names, or all."""
    wanted = set(names) or {step.__name__ for step, _ in STEPS}
    return [(step, seconds) for step, seconds in STEPS if step.__name__ in wanted]


def attempt(step: Callable[[Setting], Record], setting: Setting) -> Record:
    """What a step measured, or why it failed: what comes after it is worth having all the same."""
    try:
        with ExitStack() as after:
            after.callback(torch.cuda.empty_cache)
            return step(setting)
    except Exception:
        return {"error": traceback.format_exc()[-1500:]}


def draw(report: Record, file: Path) -> None:
    """What there is of: images a second by precision, beside torchvision's, training steps, all rows."""
    from matplotlib import pyplot

    speed, beside, steps, rows = (
        {name: one for name, one in report.get(step, {}).items() if name != "error"}
        for step in ("from_pixels", "beside_torchvision", "training_speed", "all_rows")
    )
    panels = {
        "images/s (precision, images a batch)": {
            f"{row} {setting}": rate
            for setting, one in speed.items()
            for row, rate in one["images/s"].items()
        },
        "ms a batch (images a batch)": {
            f"{row} ({count})": ms for count, times in beside.items() for row, ms in times.items()
        },
        "ms a training step": {row: ms for row, ms in steps.items() if not row.endswith("MB")},
        "images/s, one at a time; grey: mmdetection on a V100, published": {
            row: one["images_per_s"] for row, one in rows.items()
        },
    }
    panels = {label: bars for label, bars in panels.items() if bars} or {"nothing is measured yet": {}}
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(7 * len(panels), 5.5), layout="constrained", squeeze=False
    )
    for axis, (label, bars) in zip(axes[0], panels.items(), strict=True):
        colours = ["tab:grey" if name.startswith("torchvision") else "tab:blue" for name in bars]
        axis.barh(list(bars), list(bars.values()), color=colours)
        for place, value in enumerate(bars.values()):
            axis.text(value, place, f" {value:.3g}", va="center", fontsize="small")
        axis.set_xlabel(label)
        axis.invert_yaxis()
        axis.margins(x=0.12)
    if rows:
        published = [one["published_v100"] or 0 for one in rows.values()]
        axes[0, -1].barh(list(rows), published, height=0.4, color="tab:grey")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def commit() -> str:
    """What is measured; "unknown" where git is not there."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return (
            subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
        )
    except OSError:
        return "unknown"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9, help="after which nothing more is begun (9)")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder for gpu.json and gpu.png (gpu)")
    parser.add_argument("--device", default="cuda", help="(cuda)")
    parser.add_argument("--tiny", action="store_true", help="tiny models and sizes: a dry run")
    parser.add_argument("--steps", nargs="+", default=[], help="names of steps (all)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
