"""Cross-fitting and the ensemble's weights.

Every teacher's out-of-fold predictions come from models that did not see the row, so that weights and temperature are
fitted on what teachers do with new texts.
"""

from collections.abc import Sequence

import numpy as np

EPSILON = 1e-12

PRIOR_ROWS = 10.0
"""Rows' worth of evidence for uniform weights, of all members together: a handful of labels would give one member
everything. As many for each member leave a committee of six with 32 rows at uniform weights, whatever these say."""


def folds_of(classes: np.ndarray, groups: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """Fold [N] of each row: rows of one of `groups` [N] together, groups stratified by the class of their first row."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(first), dtype=np.int64)
    next_fold = 0
    for c in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes[first] == c))
        fold[members] = (np.arange(len(members)) + next_fold) % folds
        next_fold += len(members)
    return fold[group]


def fit_weights(
    distributions: np.ndarray, wanted: np.ndarray, prior_rows: float = 0.0, iterations: int = 200
) -> np.ndarray:
    """Non-negative weights, sum 1, most probable given `wanted` [N] and a Dirichlet prior of `prior_rows` in all.

    Expectation-maximisation of mixture proportions (McLachlan & Peel 2000, section 2.8); concave, so it finds the best.
    """
    likelihood = distributions[:, np.arange(len(wanted)), wanted] + EPSILON  # [T, N]
    weights = np.full(len(distributions), 1.0 / len(distributions))
    for _ in range(iterations):
        share = weights[:, None] * likelihood
        weights = (share / share.sum(0)).sum(1) + prior_rows / len(weights)
        weights /= weights.sum()
    return weights


def weights_of_rows(distributions: np.ndarray, wanted: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """[T, N]: the weights that each row's folds elsewhere are fitted to, so that no row has a part in its own."""
    weights = np.zeros(distributions.shape[:2])
    for part in np.unique(fold):
        held = fold == part
        weights[:, held] = fit_weights(distributions[:, ~held], wanted[~held], PRIOR_ROWS)[:, None]
    return weights


def choose_weights(
    distributions: np.ndarray, wanted: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Fitted weights where their gain in log-likelihood, on folds they were not fitted on, exceeds one standard error;
    else uniform ones. Also the gain (nats a row) and its standard error."""
    members, rows = len(distributions), len(wanted)
    uniform = np.full(members, 1.0 / members)
    if members == 1 or rows < 4 or len(np.unique(fold)) < 2:
        return uniform, {"gain": 0.0, "standardError": 0.0, "fitted": False}
    likelihood = distributions[:, np.arange(rows), wanted] + EPSILON
    fitted_elsewhere = weights_of_rows(distributions, wanted, fold)
    gain = np.log((fitted_elsewhere * likelihood).sum(0)) - np.log(uniform @ likelihood)
    mean, error = float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(rows))
    fitted = mean > error
    weights = fit_weights(distributions, wanted, PRIOR_ROWS) if fitted else uniform
    return weights, {"gain": mean, "standardError": error, "fitted": fitted}
