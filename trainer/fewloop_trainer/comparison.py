"""What the benchmark's table says of finished cells: means and spreads, paired differences, risk over coverage.

Rows of a test set are the same in every split and seed, so what is drawn again in a bootstrap is rows, each with the
mean of what all its cells did: splits and seeds are not counted as if they were other rows.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 2000

Cells = dict[tuple[str, str], list[dict]]
"""Finished cells by task and method, by split and seed."""


def finished(document: dict) -> Cells:
    cells: Cells = defaultdict(list)
    for cell in document["cells"]:
        if cell["state"] == "done":
            cells[cell["task"], cell["method"]].append(cell)
    return {place: sorted(found, key=lambda c: (c["split"], c["seed"])) for place, found in cells.items()}


def hits_of(result: dict) -> np.ndarray:
    """[N] 1.0 where the prediction of a finished cell is the row's label."""
    return np.array(list(result["hits"]), dtype=np.float64)


def mean_and_spread(accuracies: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation over splits and seeds; None of one cell."""
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    return float(np.mean(accuracies)), spread


def mean_with_interval(tasks: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float, float]:
    """The mean over tasks of the means of row values [N], with its 95 % interval: rows are drawn within each task."""
    drawn = np.zeros(RESAMPLES)
    for number, rows in enumerate(tasks):
        if len(rows) > 1 and np.ptp(rows) > 0:
            rng = np.random.default_rng([seed, number])
            again = bootstrap((rows,), np.mean, n_resamples=RESAMPLES, method="percentile", vectorized=True, rng=rng)
            drawn += again.bootstrap_distribution / len(tasks)
        else:
            drawn += float(np.mean(rows)) / len(tasks)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.mean([np.mean(rows) for rows in tasks])), float(low), float(high)


def row_differences(cells: Cells, task: str, method: str, reference: str) -> np.ndarray | None:
    """[N] mean difference of each test row's hits over the splits and seeds that both have; None without any."""
    ours, theirs = ({(c["split"], c["seed"]): c for c in cells.get((task, m), [])} for m in (method, reference))
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return None
    return np.mean([hits_of(ours[place]) - hits_of(theirs[place]) for place in both], axis=0)


def difference_in_words(tasks: Sequence[np.ndarray]) -> str:
    """The mean of row differences in points, with its interval; bold where that excludes 0."""
    mean, low, high = mean_with_interval(tasks)
    text = f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def by_size(cells: Cells) -> tuple[Cells, Cells]:
    """The cells of single splits, and those of all five train files together."""
    few, whole = (
        {
            place: own
            for place, found in cells.items()
            if (own := [c for c in found if (c["split"] == "all") == is_whole])
        }
        for is_whole in (False, True)
    )
    return few, whole


def risk_coverage(confidence: np.ndarray, hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage [N] and the share of errors among what is covered [N], the most confident rows first.

    Rows of equal confidence count with their mean: their order would be an accident.
    """
    error = _errors_by_confidence(confidence, hit)
    count = np.arange(1, len(error) + 1)
    return count / len(error), np.cumsum(error) / count


def augrc(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Area under the generalised risk coverage curve (Traub et al. 2024): the mean over coverages of the share of all
    rows that are covered and wrong. 0 is best; half of the error rate is what a random order gets."""
    error = _errors_by_confidence(confidence, hit)
    return float(np.cumsum(error).mean() / len(error))


def _errors_by_confidence(confidence: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """[N] errors, the most confident first; each group of equal confidence has its mean."""
    _, group, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    mean = np.bincount(group, weights=1.0 - hit) / count
    return np.repeat(mean, count)
