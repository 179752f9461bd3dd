"""Predictions and labels as observations of likelihood: what weights, temperature and shrinkage are fitted to.

A row of a single-label task is one observation, a distribution over its labels and the right one. A row of a
multi-label task is one observation a label: the distribution (not, yes), and which of them holds. So that everything
that is fitted to distributions [..., N, C] and labels [N] serves both.
"""

import numpy as np

from fewloop_trainer import calibrate
from fewloop_trainer.evaluate import calibration_error, evaluate, evaluate_sets
from fewloop_trainer.scores import (
    apply_temperature,
    chosen_of,
    distribution_of,
    independent_of,
    least_certain,
    temper_independent,
)
from fewloop_trainer.task import Task


class Observations:
    """Of one task; `wanted` are labels [N], or for label sets memberships [N, C]."""

    def __init__(self, task: Task):
        self.sets = task.kind == "multi-label"

    def probabilities(self, scores: np.ndarray, offsets: np.ndarray | float = 0.0) -> np.ndarray:
        """[..., C]: a distribution over labels, or each label's own probability."""
        return (independent_of if self.sets else distribution_of)(scores, offsets)

    def temper(self, probabilities: np.ndarray, temperature: float) -> np.ndarray:
        return (temper_independent if self.sets else apply_temperature)(probabilities, temperature)

    def goal(self, wanted: np.ndarray, classes: int) -> np.ndarray:
        """[N, C]: the probabilities that rows with labels `wanted` are to have."""
        return wanted.astype(np.float64) if self.sets else np.eye(classes)[wanted]

    def flat(self, probabilities: np.ndarray) -> np.ndarray:
        """[..., N, C] to observations: itself, or [..., N * C, 2]."""
        if not self.sets:
            return probabilities
        spread = np.stack([1 - probabilities, probabilities], axis=-1)
        return spread.reshape(*probabilities.shape[:-2], -1, 2)

    def flat_scores(self, scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """[..., N, C] to scores of observations, whose softmax is `flat` of the probabilities; label sets take their
        offsets with them."""
        if not self.sets:
            return scores
        shifted = scores + offsets
        return np.stack([np.zeros_like(shifted), shifted], axis=-1).reshape(*scores.shape[:-2], -1, 2)

    def whole(self, flat: np.ndarray, classes: int) -> np.ndarray:
        """The inverse of `flat`."""
        return flat[..., 1].reshape(*flat.shape[:-2], -1, classes) if self.sets else flat

    def flat_wanted(self, wanted: np.ndarray) -> np.ndarray:
        """Labels [N], or [N * C] of 0 and 1."""
        return wanted.ravel().astype(np.int64)

    def per_row(self, values: np.ndarray, classes: int) -> np.ndarray:
        """What each row [N] has, for each of its observations."""
        return np.repeat(values, classes) if self.sets else values

    def decisions(
        self, probabilities: np.ndarray, wanted: np.ndarray, thresholds: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Confidence [N] of each row's answer, and whether it is right; of a label set as a whole."""
        if not self.sets:
            return probabilities.max(-1), probabilities.argmax(-1) == wanted
        chosen = chosen_of(probabilities, thresholds)
        return least_certain(probabilities, chosen), (chosen == wanted).all(-1)

    def calibration_error(self, probabilities: np.ndarray, wanted: np.ndarray) -> float:
        """As `evaluate` has it."""
        flat = self.flat(probabilities)
        return calibration_error(flat.max(-1), flat.argmax(-1) == self.flat_wanted(wanted))

    def fit_temperature(self, probabilities: np.ndarray, wanted: np.ndarray) -> float:
        """Of rows [N, C]."""
        return calibrate.fit_temperature(self.flat(probabilities), self.flat_wanted(wanted))

    def evaluate(
        self, probabilities: np.ndarray, wanted: np.ndarray, thresholds: np.ndarray | None
    ) -> dict[str, object]:
        if self.sets:
            return evaluate_sets(probabilities, wanted, thresholds)
        return evaluate(probabilities, wanted)
