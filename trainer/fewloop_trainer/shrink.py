"""How far labels may take the teachers from the base model.

A base model with templates knows more than a handful of labels do. So teachers tune their head near the base first
(head.py); only rows that they have not seen may send them further: to weights between the head-tuned model's and the
wholly tuned one's (WiSE-FT, Wortsman et al. 2022), judged by logits between the two in the place of weights, which
costs no further pass. Where the base knows nothing (on the labelled rows no better than a guess, by a standard error),
there is nothing to lose: teachers are wholly tuned unless those rows clearly say otherwise. Offsets match predictions
to the prior once more after training, where there is a prior, unless those rows clearly say otherwise.

Active learning asks about what is hard. Of few hard rows the mean loss says little: what is chosen must beat what
stands by more than one standard error. Of the labels' shares such rows say nothing: that they lean to one label is to
be beyond chance (three standard errors) before it overrules the prior.
"""

from dataclasses import dataclass

import numpy as np

from fewloop_trainer.calibrate import fit_temperature
from fewloop_trainer.scores import apply_temperature, distribution_of, match_priors

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FEWEST_MATCHING_TEXTS = 50


@dataclass(frozen=True)
class Shrinkage:
    """`share` of the way from the head-tuned model (0) to the wholly tuned one (1); `matched`: offsets are matched
    after training. `losses`: the ensemble's mean tempered loss (nats a row) of each choice."""

    share: float
    matched: bool
    losses: dict[str, float]
    base_knows: bool = True


@dataclass(frozen=True)
class OutOfFold:
    """Logits of T teachers' models that have not seen what they judge: labelled `rows` [T, N, C], `texts` [T, M, C]."""

    rows: np.ndarray
    texts: np.ndarray


def choose(
    near: OutOfFold,
    far: OutOfFold | None,
    offsets: np.ndarray,
    prior: np.ndarray | None,
    wanted: np.ndarray,
    base_knows: bool = True,
) -> tuple[Shrinkage, np.ndarray, np.ndarray]:
    """The choice between head-tuned (`near`) and wholly tuned models (`far`; None where there are none), given the
    labels `wanted` [N]; with its distributions of the rows [T, N, C] and of the texts [T, M, C].

    The loss is that of the teachers' mean at its own temperature, since that is how it will be served.
    """
    may_match = prior is not None and near.texts.shape[1] >= FEWEST_MATCHING_TEXTS
    found: dict[tuple[float, bool], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for share in SHARES if far is not None else (0.0,):
        rows, texts = (_between(near, far, share, of) for of in ("rows", "texts"))
        for matched in (True, False) if may_match else (False,):
            served = np.stack([match_priors(t, prior) for t in texts]) if matched else offsets
            of_rows = np.stack([distribution_of(x, o) for x, o in zip(rows, served, strict=True)])
            of_texts = np.stack([distribution_of(x, o) for x, o in zip(texts, served, strict=True)])
            found[share, matched] = tempered_losses(of_rows.mean(0), wanted), of_rows, of_texts
    loss_of = {key: losses for key, (losses, _, _) in found.items()}

    def share_of(matched: bool) -> float:
        """The best share, where it beats by more than a standard error what stands: head-tuned models, or, where
        the base knows nothing, wholly tuned ones."""
        stands = 0.0 if base_knows or far is None else 1.0
        best = min((share for share, m in found if m == matched), key=lambda share: loss_of[share, matched].mean())
        return best if gain_exceeds(1, loss_of[stands, matched] - loss_of[best, matched]) else stands

    # Matched to a prior that the rows deny, further training may seem to gain nothing: the share is chosen again.
    share = share_of(may_match)
    matched = may_match and not gain_exceeds(3, loss_of[share, True] - loss_of[share, False])
    share = share_of(matched)
    losses = {f"{s:g}{' matched' if m else ''}": round(float(found[s, m][0].mean()), 4) for s, m in found}
    return Shrinkage(share, matched, losses, base_knows), *found[share, matched][1:]


def beats_guessing(distributions: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether the mean of the members' distributions [T, N, C], tempered, is better than a uniform guess at the labels
    `wanted` [N] by more than a standard error."""
    guess = np.log(distributions.shape[-1])
    return gain_exceeds(1, guess - tempered_losses(distributions.mean(0), wanted))


def _between(near: OutOfFold, far: OutOfFold | None, share: float, of: str) -> np.ndarray:
    return getattr(near, of) if far is None else (1 - share) * getattr(near, of) + share * getattr(far, of)


def tempered_losses(distribution: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Nats of each row [N] at the temperature that fits them best."""
    tempered = apply_temperature(distribution, fit_temperature(distribution, wanted))
    return -np.log(tempered[np.arange(len(wanted)), wanted] + 1e-12)


def gain_exceeds(errors: float, gains: np.ndarray) -> bool:
    """Whether the mean of gains [N] is over that many of its standard errors."""
    return bool(gains.mean() > errors * gains.std(ddof=1) / np.sqrt(len(gains)))
