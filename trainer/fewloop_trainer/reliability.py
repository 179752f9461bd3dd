"""How far confidence can be relied on: risk against coverage, and conformal sets."""

import math
import warnings

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

COVERAGES = (0.25, 0.5, 0.75, 0.9, 1.0)
ALPHA = 0.1
"""Of the right labels, the share that conformal sets may miss."""
FEWEST_ROWS = math.ceil(1 / ALPHA) - 1
"""With n rows the quantile's rank is ceil((n + 1) (1 - alpha)); of fewer it is beyond the last of them, and the only
set with a guarantee holds every label (Vovk et al. 2005; Angelopoulos & Bates 2023, section 1)."""

FEWEST_CALIBRATING = FEWEST_ROWS + 1
"""MAPIE asks for one more."""


def risk_coverage(confidence: np.ndarray, hit: np.ndarray) -> dict[str, object]:
    """Of rows [N] answered in the order of their confidence: `augrc`, and the error rate among the surest share.

    AUGRC (Traub et al. 2024, "Overcoming common flaws in the evaluation of selective classification systems"): the area
    under the share of all rows that are answered and wrong, over the share answered. 0 is perfect; confidence
    that says nothing comes to half the error rate. Rows of equal confidence are answered together.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~hit[order])
    last_of_equals = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    rows = len(hit)
    coverage = np.append(0, last_of_equals + 1) / rows
    joint_risk = np.append(0, wrong[last_of_equals]) / rows
    answered = [max(1, math.ceil(share * rows)) for share in COVERAGES]
    return {
        "augrc": float(np.trapezoid(joint_risk, coverage)),
        "errorAtCoverage": {f"{s:g}": float(wrong[n - 1] / n) for s, n in zip(COVERAGES, answered, strict=True)},
    }


def conformal_sets(
    probabilities: np.ndarray, wanted: np.ndarray, names: list[str] | None, seed: int
) -> dict[str, object]:
    """Split conformal sets (Sadinle et al. 2019, least ambiguous; MAPIE) of rows [N, C] with labels [N].

    Each half of the rows in turn calibrates the other, so that coverage is measured on rows that it was not fitted to.
    `names`: of the labels, for what is said of each; None where they are no classes.
    """
    statements = _too_few(wanted, names)
    shared = {"alpha": ALPHA, "rows": len(wanted), "fewestRows": FEWEST_ROWS, "statements": statements}
    halves = np.array_split(np.random.default_rng(seed).permutation(len(wanted)), 2)
    if min(len(half) for half in halves) < FEWEST_CALIBRATING:
        needed = f"half of {len(wanted)} rows calibrates the other, and {FEWEST_CALIBRATING} are needed"
        said = f"no guarantee at all: {needed}"
        return shared | {"coverage": None, "meanSize": None, "statements": [said, *statements]}
    sets = np.zeros(probabilities.shape, dtype=bool)
    for own, other in (halves, halves[::-1]):
        sets[own] = _sets(probabilities[other], wanted[other], probabilities[own])
    covered = sets[np.arange(len(wanted)), wanted]
    by_label = None
    if names is not None:
        by_label = {n: float(covered[wanted == i].mean()) for i, n in enumerate(names) if (wanted == i).any()}
    return shared | {
        "coverage": float(covered.mean()),
        "meanSize": float(sets.sum(1).mean()),
        "emptySets": float((~sets.any(1)).mean()),
        "coverageByLabel": by_label,
    }


def _too_few(wanted: np.ndarray, names: list[str] | None) -> list[str]:
    if names is None:
        return []
    counts = np.bincount(wanted, minlength=len(names))
    return [
        f"{name}: {count} rows, under the {FEWEST_ROWS} that a guarantee of {1 - ALPHA:.0%} for this label alone needs"
        for name, count in zip(names, counts, strict=True)
        if count < FEWEST_ROWS
    ]


class _Given(ClassifierMixin, BaseEstimator):
    """A classifier in scikit-learn's sense whose inputs are the probabilities that it answers."""

    def __init__(self, classes: int = 2):
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, probabilities, wanted):
        return self

    def predict(self, probabilities):
        return np.asarray(probabilities).argmax(-1)

    def predict_proba(self, probabilities):
        return np.asarray(probabilities)


def _sets(calibrating: np.ndarray, wanted: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Of each row asked [M, C], whether each label is in its set."""
    # Imported here alone: the rest of the trainer does without it.
    from mapie.classification import SplitConformalClassifier

    given = _Given(calibrating.shape[1])
    conformal = SplitConformalClassifier(given, confidence_level=1 - ALPHA, conformity_score="lac", prefit=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of labels without rows: `statements` has them
        conformal.conformalize(_summing_to_one(calibrating), wanted)
    return conformal.predict_set(_summing_to_one(asked))[1][:, :, 0]


def _summing_to_one(probabilities: np.ndarray) -> np.ndarray:
    return probabilities / probabilities.sum(-1, keepdims=True)
