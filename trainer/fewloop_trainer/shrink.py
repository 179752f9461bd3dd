"""How far labels may take the teachers from the base model: as far as out-of-fold predictions say.

A base model with templates knows more than a handful of labels do, and a model tuned on them alone forgets it. Weights
between the base's and the tuned ones keep both (WiSE-FT, Wortsman et al. 2022). How far to go is judged on rows that
the tuned models have not seen, with logits between the two in the place of weights, which costs no further pass; so is
whether offsets should match predictions to the prior once more after training, which undoes a bias that few labels
bring and takes away what many say of the labels' shares.
"""

from dataclasses import dataclass

import numpy as np

from fewloop_trainer.pet import distribution
from fewloop_trainer.priors import match_priors

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FEWEST_MATCHING_TEXTS = 50


@dataclass(frozen=True)
class Shrinkage:
    """`share` of the way from the base (0) to the tuned weights (1); `matched`: offsets are matched after training.
    `losses`: the ensemble's mean loss (nats a row) of each choice."""

    share: float
    matched: bool
    losses: dict[str, float]


def choose(
    base: np.ndarray,
    tuned: np.ndarray,
    base_texts: np.ndarray,
    tuned_texts: np.ndarray,
    offsets: np.ndarray,
    prior: np.ndarray | None,
    wanted: np.ndarray,
) -> tuple[Shrinkage, np.ndarray, np.ndarray]:
    """The choice with the least out-of-fold loss of the teachers' mean, the nearest to the base of equals.

    Logits of the base and of fold models that have not seen the row: of labelled rows [T, N, C] with labels [N], and of
    unlabelled texts [T, M, C]. Also answers the chosen distributions of both.
    """
    best: tuple[float, Shrinkage, np.ndarray, np.ndarray] | None = None
    losses: dict[str, float] = {}
    may_match = prior is not None and base_texts.shape[1] >= FEWEST_MATCHING_TEXTS
    for share in SHARES:
        rows, texts = (1 - share) * base + share * tuned, (1 - share) * base_texts + share * tuned_texts
        for matched in (False, True) if may_match and share > 0 else (False,):
            served = np.stack([match_priors(t, prior) for t in texts]) if matched else offsets
            of_rows = np.stack([distribution(x, o) for x, o in zip(rows, served, strict=True)])
            loss = float(-np.log(of_rows.mean(0)[np.arange(len(wanted)), wanted] + 1e-12).mean())
            losses[f"{share:g}{' matched' if matched else ''}"] = round(loss, 4)
            if best is None or loss < best[0]:
                of_texts = np.stack([distribution(x, o) for x, o in zip(texts, served, strict=True)])
                best = loss, Shrinkage(share, matched, losses), of_rows, of_texts
    assert best is not None
    return best[1:]
