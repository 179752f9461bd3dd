"""Accuracy, macro-F1, calibration error and AUGRC of distributions, each with a 95 % interval."""

from collections.abc import Callable

import numpy as np
from scipy.stats import binomtest, bootstrap

from fewloop_trainer.reliability import risk_coverage
from fewloop_trainer.scores import least_certain

BINS = 10
FEWEST_ROWS = 10
"""Of fewer a bootstrap says nothing."""
RESAMPLES = 500


def evaluate(distribution: np.ndarray, wanted: np.ndarray, seed: int = 0) -> dict[str, object]:
    """Of rows [N, C] with labels [N]: accuracy (Wilson's interval), macroF1, ece and augrc (bootstrap over rows)."""
    rows = len(wanted)
    if rows == 0:
        return {"rows": 0}
    predicted, confidence = distribution.argmax(-1), distribution.max(-1)
    hits = int((predicted == wanted).sum())
    wilson = binomtest(hits, rows).proportion_ci(method="wilson")
    result: dict[str, object] = {
        "rows": rows,
        "accuracy": {"value": hits / rows, "interval": [float(wilson.low), float(wilson.high)]},
        "logLoss": float(-np.log(distribution[np.arange(rows), wanted] + 1e-12).mean()),
    }

    def f1(index: np.ndarray) -> float:
        return macro_f1(predicted[index], wanted[index])

    def ece(index: np.ndarray) -> float:
        return calibration_error(confidence[index], (predicted == wanted)[index])

    def augrc(index: np.ndarray) -> float:
        return risk_coverage(confidence[index], (predicted == wanted)[index])["augrc"]

    return result | with_intervals({"macroF1": f1, "ece": ece, "augrc": augrc}, rows, seed)


def with_intervals(statistics: dict[str, Callable[[np.ndarray], float]], rows: int, seed: int) -> dict[str, object]:
    """Each statistic of all rows, and from ten rows on its interval over resampled ones."""
    everything, result = np.arange(rows), {}
    for name, statistic in statistics.items():
        result[name] = {"value": statistic(everything)}
        if rows >= FEWEST_ROWS:
            interval = bootstrap(
                (everything,), statistic, n_resamples=RESAMPLES, vectorized=False, method="percentile", rng=seed
            ).confidence_interval
            result[name] |= {"interval": [float(interval.low), float(interval.high)]}
    return result


def figure_of(found: dict[str, object], rows: int, digest: str | None) -> dict[str, object]:
    """A figure of a version's report, of as many rows, with their digest; null with a reason where there is none."""
    figure = {"value": None, "interval": None, "digest": digest} | found
    if figure["interval"] is not None:
        return figure
    few = f"{rows} rows, and an interval takes {FEWEST_ROWS}"
    return figure | {"reason": few if rows else "there is no labelled row that it was not trained on"}


def evaluate_sets(
    probabilities: np.ndarray, wanted: np.ndarray, thresholds: np.ndarray, seed: int = 0
) -> dict[str, object]:
    """Of label sets [N, C] given as probabilities: accuracy (of whole sets, Wilson's interval), macroF1 over labels
    that occur, microF1, ece over all decisions, a label taken or left, and augrc of whole sets."""
    rows = len(wanted)
    if rows == 0:
        return {"rows": 0}
    chosen = probabilities >= thresholds
    whole = (chosen == wanted).all(1)
    hits = int(whole.sum())
    wilson = binomtest(hits, rows).proportion_ci(method="wilson")
    right = np.where(wanted, probabilities, 1 - probabilities)
    sure = np.maximum(probabilities, 1 - probabilities)
    confidence = least_certain(probabilities, chosen)
    result: dict[str, object] = {
        "rows": rows,
        "accuracy": {"value": hits / rows, "interval": [float(wilson.low), float(wilson.high)]},
        "logLoss": float(-np.log(right + 1e-12).mean()),
    }
    statistics = {
        "macroF1": lambda i: sets_f1(chosen[i], wanted[i])[0],
        "microF1": lambda i: sets_f1(chosen[i], wanted[i])[1],
        "ece": lambda i: calibration_error(sure[i].ravel(), ((probabilities[i] >= 0.5) == wanted[i]).ravel()),
        "augrc": lambda i: risk_coverage(confidence[i], whole[i])["augrc"],
    }
    return result | with_intervals(statistics, rows, seed)


def sets_f1(chosen: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Macro (over labels that occur) and micro F1 of label sets [N, C]; 1 where no label occurs."""
    hits, both = (chosen & wanted).sum(0), chosen.sum(0) + wanted.sum(0)
    occurs = both > 0
    if not occurs.any():
        return 1.0, 1.0
    return float((2 * hits[occurs] / both[occurs]).mean()), float(2 * hits.sum() / both.sum())


def macro_f1(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Mean F1 of the labels that occur. By counting, which the bootstrap can afford: a library's took seconds a run."""
    occurs = np.bincount(predicted, minlength=wanted.max() + 1) + np.bincount(wanted, minlength=predicted.max() + 1)
    hits = np.bincount(wanted[predicted == wanted], minlength=len(occurs))
    return float((2 * hits[occurs > 0] / occurs[occurs > 0]).mean())


def calibration_error(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Expected calibration error over bins of equal mass (Nixon et al. 2019)."""
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return float(sum(len(p) * abs(confidence[p].mean() - hit[p].mean()) for p in parts) / len(confidence))
