"""The benchmark's plots, by the Python that has matplotlib: `python -m fewloop_trainer.plots DOCUMENT.json OUT.md`.

Prints the names of the files, as JSON.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from fewloop_trainer.comparison import (
    Cells,
    by_size,
    finished,
    hits_of,
    mean_and_spread,
    mean_with_interval,
    risk_coverage,
    row_differences,
)

BLUE = "#7aa6c2"
Draw = Callable[[Axes, str, Cells, list[str]], None]
"""Draws the cells of a task by methods, in their order."""
BASELINES = ("fine-tune", "pet", "full")
"""What the bars of differences are against: the plain methods, and the recipe for its own variants."""


def plot(document: dict, out: Path) -> list[str]:
    """Writes `out`-methods.png, `out`-minus-….png for each baseline that something is compared with, `out`-risk.png,
    and `out`-rows.png where there are both single splits and `all` (`out` without its suffix); the files' names."""
    found = finished(document)
    few, whole = by_size(found)
    main = few or whole
    both = {place: cells for place, cells in found.items() if place in few and place in whole}
    charts: list[tuple[str, Cells, Draw]] = [("methods", main, _bars)]
    charts += [(f"minus-{name}", _compared(main, name), partial(_differences, baseline=name)) for name in BASELINES]
    charts += [("risk", main, _curves), ("rows", both, _label_efficiency)]
    return [_panels(name, cells, draw, document["settings"], out) for name, cells, draw in charts if cells]


def _panels(name: str, cells: Cells, draw: Draw, settings: dict, out: Path) -> str:
    """A panel a task; the file's name."""
    tasks = [task for task in settings["tasks"] if any(t == task for t, _ in cells)]
    columns = min(3, len(tasks))
    shape = -(-len(tasks) // columns), columns
    figure, axes = plt.subplots(*shape, figsize=(5.2 * columns, 3.6 * shape[0]), squeeze=False)
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    for axis, task in zip(axes.flat, tasks, strict=False):
        draw(axis, task, cells, [method for method in settings["methods"] if (task, method) in cells])
        axis.set_title(task)
    figure.tight_layout()
    file = f"{out.stem}-{name}.png"
    figure.savefig(out.with_name(file), dpi=110)
    plt.close(figure)
    return file


def _compared(cells: Cells, baseline: str) -> Cells:
    """The cells of tasks where another method has splits and seeds of the baseline."""
    tasks = {t for t, m in cells if m != baseline and row_differences(cells, t, m, baseline) is not None}
    return {place: found for place, found in cells.items() if place[0] in tasks}


def _bars(axis: Axes, task: str, cells: Cells, methods: list[str]) -> None:
    """Accuracy of each method, the spread as a line."""
    told = [mean_and_spread([100 * hits_of(cell).mean() for cell in cells[task, method]]) for method in methods]
    axis.barh(methods, [mean for mean, _ in told], xerr=[spread or 0.0 for _, spread in told], color=BLUE)
    axis.invert_yaxis()
    axis.set_xlabel("accuracy, %")
    axis.tick_params(labelsize=7)


def _differences(axis: Axes, task: str, cells: Cells, methods: list[str], baseline: str) -> None:
    """What each method is over the baseline, with its 95 % interval; grey where that holds 0."""
    found = {method: row_differences(cells, task, method, baseline) for method in methods if method != baseline}
    told = {method: mean_with_interval([rows]) for method, rows in found.items() if rows is not None}
    mean, low, high = 100 * np.array(list(told.values())).T
    colours = [BLUE if least > 0 or most < 0 else "#c4c4c4" for least, most in zip(low, high, strict=True)]
    axis.barh(list(told), mean, xerr=np.maximum(0, [mean - low, high - mean]), color=colours)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.invert_yaxis()
    axis.set_xlabel(f"accuracy minus {baseline}, points")
    axis.tick_params(labelsize=7)


def _label_efficiency(axis: Axes, task: str, cells: Cells, methods: list[str]) -> None:
    """Accuracy over labelled rows: the mean of single splits, and all five together, with their spread."""
    for method in methods:
        points = []
        for found in (group[task, method] for group in by_size(cells)):
            mean, spread = mean_and_spread([100 * hits_of(cell).mean() for cell in found])
            points.append((np.mean([cell["trainRows"] for cell in found]), mean, spread or 0.0))
        rows, mean, spread = zip(*points, strict=True)
        axis.errorbar(rows, mean, yerr=spread, label=method, marker="o", markersize=3, linewidth=1, capsize=2)
    axis.set(xlabel="labelled rows", ylabel="accuracy, %", xscale="log")
    axis.legend(fontsize=6)


def _curves(axis: Axes, task: str, cells: Cells, methods: list[str]) -> None:
    """Error rate among the most confident rows, the mean over a method's cells."""
    for method in methods:
        curves = [risk_coverage(np.array(cell["confidence"]), hits_of(cell)) for cell in cells[task, method]]
        axis.plot(100 * curves[0][0], 100 * np.mean([risk for _, risk in curves], axis=0), label=method, linewidth=1)
    axis.set(xlabel="coverage, %", ylabel="errors among covered, %")
    axis.legend(fontsize=6)


if __name__ == "__main__":
    print(json.dumps(plot(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))))
