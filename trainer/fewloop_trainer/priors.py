"""Matching predicted label frequencies to a prior, as the service's `inference/priors.ts` does for zero-shot."""

import numpy as np

from fewloop_trainer.pet import distribution


def match_priors(logits: np.ndarray, prior: np.ndarray, iterations: int = 500, tolerance: float = 1e-6) -> np.ndarray:
    """Offsets [C] (mean zero) for which the mean distribution over rows [N, C] is `prior`."""
    offsets = np.zeros(logits.shape[1])
    for _ in range(iterations):
        mean = distribution(logits, offsets).mean(0)
        if np.abs(mean - prior).max() < tolerance:
            break
        offsets += np.log(prior + 1e-12) - np.log(mean + 1e-12)
        offsets -= offsets.mean()
    return offsets
