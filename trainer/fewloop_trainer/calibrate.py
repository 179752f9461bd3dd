"""Temperatures (Guo et al. 2017), with a Gaussian prior on log T and bounds, because there are few rows; of label sets
offsets and thresholds, too."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from fewloop_trainer.scores import NOT_LISTED, apply_temperature, independent_of

CALIBRATED_ROWS = 100
"""Labelled rows that a temperature needs before predictions may call themselves calibrated. With 100 rows the standard
error of an accuracy near 90 % is 3 points, about what a routing threshold can bear."""

FEWEST_POSITIVES = 8
"""Of a label, for a threshold of its own: the F1 of fewer is a matter of one row."""

LOG_BOUNDS = (np.log(0.25), np.log(4.0))
LOG_DEVIATION = 0.5
EPSILON = 1e-12
OFFSET_DEVIATION = 2.0
OFFSET_ROUNDS = 10
"""Of offsets and temperature by turns; further ones move no probability by a hundredth."""


def fit_temperature(distribution: np.ndarray, wanted: np.ndarray) -> float:
    """The maximum a posteriori temperature of rows [N, C] with labels [N]; 1 without rows."""
    if not len(wanted):
        return 1.0

    def cost(log_t: float) -> float:
        p = apply_temperature(distribution, float(np.exp(log_t)))[np.arange(len(wanted)), wanted]
        return float(-np.log(p + EPSILON).sum() + 0.5 * (log_t / LOG_DEVIATION) ** 2)

    return float(np.exp(minimize_scalar(cost, bounds=LOG_BOUNDS, method="bounded").x))


def match_confidence(distribution: np.ndarray, confidence: float) -> float:
    """The temperature, within the bounds, at which the mean confidence of rows [N, C] is `confidence`."""
    if not len(distribution):
        return 1.0

    def excess(log_t: float) -> float:
        return float(apply_temperature(distribution, float(np.exp(log_t))).max(-1).mean() - confidence)

    low, high = LOG_BOUNDS
    if excess(low) <= 0:
        return float(np.exp(low))
    if excess(high) >= 0:
        return float(np.exp(high))
    return float(np.exp(brentq(excess, low, high, xtol=1e-6)))


def fit_offsets(scores: np.ndarray, wanted: np.ndarray, temperature_of: Callable[[np.ndarray], float]) -> np.ndarray:
    """Of label sets: the maximum a posteriori offset of each label [C] for rows' scores [N, C] whose probabilities are
    to be `wanted` [N, C]. The mean of a label's is then about its share of the rows (that list it, of a shortlist).

    That is so at the temperature that `temperature_of` fits to probabilities [N, C]: it moves them towards a half, and
    with them the mean of a rare label.
    """
    offsets, temperature = np.zeros(scores.shape[1]), 1.0
    for _ in range(OFFSET_ROUNDS if len(scores) else 0):
        offsets = np.array([_offset(s, w, temperature) for s, w in zip(scores.T, wanted.T, strict=True)])
        temperature = temperature_of(independent_of(scores, offsets))
    return offsets


def _offset(scores: np.ndarray, wanted: np.ndarray, temperature: float) -> float:
    listed = scores != NOT_LISTED
    scores, wanted = scores[listed], wanted[listed]

    def slope(offset: float) -> float:
        missing = (wanted - independent_of(scores / temperature, offset / temperature)).sum() / temperature
        return float(missing - offset / OFFSET_DEVIATION**2)

    # Beyond these the prior outweighs all rows together.
    most = OFFSET_DEVIATION**2 * len(scores) / temperature + EPSILON
    return float(brentq(slope, -most, most, xtol=1e-6))


def fit_thresholds(probabilities: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Of label sets [N, C]: for each label the probability from which taking it gives the best F1 on these rows.

    Labels with fewer than `FEWEST_POSITIVES` rows share one threshold, the best for the F1 of all labels together.
    """
    grid = np.linspace(0.05, 0.95, 19)
    chosen = probabilities[None] >= grid[:, None, None]  # [thresholds, N, C]
    hits, both = (chosen & wanted).sum(1), chosen.sum(1) + wanted.sum(0)
    shared = grid[_best(2 * hits.sum(1) / np.maximum(1, both.sum(1)), grid)]
    own = np.array([grid[_best(2 * h / np.maximum(1, b), grid)] for h, b in zip(hits.T, both.T, strict=True)])
    return np.where(wanted.sum(0) >= FEWEST_POSITIVES, own, shared)


def _best(scores: np.ndarray, grid: np.ndarray) -> int:
    """Index of the best score; of equals the one nearest to a half, which makes the least of few rows."""
    return int(min(np.flatnonzero(scores == scores.max()), key=lambda i: abs(grid[i] - 0.5)))
