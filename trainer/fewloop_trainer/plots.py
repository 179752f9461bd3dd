"""The benchmark's plots, by the Python that has matplotlib: `python -m fewloop_trainer.plots DOCUMENT.json OUT.md`.

Prints the names of the files, as JSON.
"""

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from fewloop_trainer.comparison import finished, hits_of, mean_and_spread, risk_coverage


def plot(document: dict, out: Path) -> list[str]:
    """Writes `out`-methods.png and `out`-risk.png (`out` without its suffix); the names of the files."""
    cells, settings = finished(document), document["settings"]
    tasks = [task for task in settings["tasks"] if any(t == task for t, _ in cells)]
    written: list[str] = []
    if not tasks:
        return written
    methods = [method for method in settings["methods"] if any(m == method for _, m in cells)]
    columns = min(3, len(tasks))
    shape = -(-len(tasks) // columns), columns
    size = 5.2 * columns, 3.6 * shape[0]
    for name, draw in (("methods", _bars), ("risk", _curves)):
        figure, axes = plt.subplots(*shape, figsize=size, squeeze=False)
        for axis in axes.flat[len(tasks) :]:
            axis.set_visible(False)
        for axis, task in zip(axes.flat, tasks, strict=False):
            draw(axis, {method: cells[task, method] for method in methods if (task, method) in cells})
            axis.set_title(task)
        figure.tight_layout()
        written.append(f"{out.stem}-{name}.png")
        figure.savefig(out.with_name(written[-1]), dpi=110)
        plt.close(figure)
    return written


def _bars(axis, found: dict[str, list[dict]]) -> None:
    """Accuracy of each method, the spread as a line."""
    told = [mean_and_spread([100 * hits_of(cell).mean() for cell in cells]) for cells in found.values()]
    axis.barh(list(found), [mean for mean, _ in told], xerr=[spread or 0.0 for _, spread in told], color="#7aa6c2")
    axis.invert_yaxis()
    axis.set_xlabel("accuracy, %")
    axis.tick_params(labelsize=7)


def _curves(axis, found: dict[str, list[dict]]) -> None:
    """Error rate among the most confident rows, the mean over a method's cells."""
    for method, cells in found.items():
        curves = [risk_coverage(np.array(cell["confidence"]), hits_of(cell)) for cell in cells]
        axis.plot(100 * curves[0][0], 100 * np.mean([risk for _, risk in curves], axis=0), label=method, linewidth=1)
    axis.set(xlabel="coverage, %", ylabel="errors among covered, %")
    axis.legend(fontsize=6)


if __name__ == "__main__":
    print(json.dumps(plot(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))))
