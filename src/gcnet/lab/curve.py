"""A learning curve: the same training on a quarter, a half and all of the images, and what more would give.

Each run is a process of its own, as in a study (`gcnet.lab.runs`). All have the same number of iterations, so
that only the images differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gcnet.data.divide import part_of
from gcnet.files import write_atomically, write_json
from gcnet.lab.runs import failed_runs, load_data, make_runs, start_process
from gcnet.lab.study import Run, Study
from gcnet.lab.sureness import t95
from gcnet.weights.catalog import find_detector

SHARES = (0.25, 0.5, 1.0)


def curve_runs(study: Study) -> list[Run]:
    """A run for each seed and share of the images."""
    spec, names = find_detector(study.model).spec, {share: f"{share:.0%}" for share in SHARES}
    return [
        study.run(f"{name} of the images", study.out / "runs" / name.rstrip("%"), seed, spec, share)
        for seed in study.all_seeds
        for share, name in names.items()
    ]


@dataclass(frozen=True)
class Fit:
    """The error 1 - AP as a power of the number of images: how fast it falls, with 95 % bounds.

    `error` is that with all images; `doubling` is what AP gains with twice as many, with its bounds.
    """

    exponent: float
    error: float
    doubling: float
    low: float
    high: float


def fit_power_law(images: Sequence[int], scores: Sequence[float]) -> Fit | None:
    """Least squares on logarithms; none where all runs are of one size, or too few to tell how sure it is."""
    x, y = np.log2(np.array(images, float)), np.log2(1 - np.array(scores, float).clip(max=0.999))
    freedom, spread = len(x) - 2, float(((x - x.mean()) ** 2).sum())
    if freedom < 1 or len(set(images)) < 2:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    error = float(2 ** (y.mean() + slope * (x.max() - x.mean())))
    left = y - y.mean() - slope * (x - x.mean())
    off = t95(freedom) * math.sqrt(float((left**2).sum()) / freedom / spread)

    def gained(exponent: float) -> float:
        return error * (1 - 2**-exponent)

    return Fit(-slope, error, gained(-slope), gained(-slope - off), gained(-slope + off))


def verdict(fit: Fit | None, images: int) -> str:
    """A sentence on what doubling the images would give."""
    if fit is None:
        return "What more images would give cannot be told from so few runs."
    gain = f"{fit.doubling:+.3f} box AP (95% between {fit.low:+.3f} and {fit.high:+.3f})"
    if fit.low <= 0:
        return f"Whether more images help cannot be told from these runs: twice as many might give {gain}."
    return f"Twice as many images ({2 * images}) would give about {gain}, if it goes on as it went."


def draw_curve(study: Study, *, start: Callable[[Run], Any] = start_process) -> None:
    """Trains the missing runs, then writes `curve.json` and `curve.png` in `study.out`.

    Raises:
        GCNetError: the folder holds runs of something else, the data cannot be used, or runs failed.
        KeyboardInterrupt, SystemExit: a signal; the same command goes on.
    """
    train_set, runs = load_data(study.data_folder)["train"], curve_runs(study)
    study.claim(runs)
    print(f"{len(runs)} runs, of {len(train_set)} images and parts of them, in {study.out}", flush=True)
    if failed := make_runs(runs, start, jobs=study.jobs):
        raise failed_runs(failed, len(runs))
    points = []
    for run in runs:
        assert run.result is not None  # or it had failed
        share = run.values["share"]
        part = part_of(train_set, share, run.seed, study.recipe.group_by)
        points.append({"images": len(part), "share": share, **run.result})
    images, scores = [one["images"] for one in points], [one["box_AP"] for one in points]
    fit = fit_power_law(images, scores)
    said = verdict(fit, len(train_set))
    values = {"model": study.model, "data": str(study.data), "runs": points, "verdict": said}
    write_json(study.out / "curve.json", values | {"fit": asdict(fit) if fit else None})
    _plot(study, images, scores, fit, said)
    for share in SHARES:
        own = [one for one in points if one["share"] == share]
        each = ", ".join(f"{one['box_AP']:.3f}" for one in own)
        print(f"{own[0]['images']} images: box AP {each}")
    print(f"{said}\nwrote {study.out / 'curve'}.json and .png")


def _plot(study: Study, images: Sequence[int], scores: Sequence[float], fit: Fit | None, said: str) -> None:
    """AP against images, on a logarithmic axis that goes on to twice as many."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(images, scores, color="#1b6ca8", zorder=3, label="one run each")
    most = max(images)
    if fit:
        x = np.geomspace(min(images), 2 * most, 60)
        fitted = 1 - fit.error * (x / most) ** -fit.exponent
        axes.plot(x, fitted, color="#d1495b", label="fit: 1 - AP is a power of the number of images")
        bounds = 1 - fit.error + np.array([fit.low, fit.high])
        said_of = "95 % interval for twice as many images"
        axes.vlines([2 * most], *bounds.clip(0, 1), color="#d1495b", linewidth=3, label=said_of)
    ticks = sorted({*images, 2 * most})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="training images", ylabel="box AP", ylim=(0, 1), title=f"Learning curve of {study.model}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.supxlabel(said, fontsize=9, wrap=True)
    write_atomically(study.out / "curve.png", lambda file: figure.savefig(file, format="png", dpi=120))
