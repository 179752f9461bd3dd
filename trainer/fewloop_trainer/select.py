"""Which unlabelled texts become pseudo-labels (DESIGN, "The loop", 5).

- `top_confidence`: the most confident.
- `confident_contested`: contested, and ensemble confidence over threshold 1.
- `fused`: where all agree, confidence under threshold 2 and over the floor (the surest teach nothing new); where any
  dissents, confidence over threshold 3.
Classes have ceilings in proportion to the prior, never floors: a rare class is not filled with doubtful texts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewloop_trainer.scores import chosen_of, least_certain
from fewloop_trainer.task import Selection


@dataclass(frozen=True)
class PseudoLabel:
    """A selected row with where it came from: its index, label, and the strategy's rule that let it in."""

    row: int
    label: int
    confidence: float
    contested: bool
    rule: str
    round: int = 1


def select(
    members: np.ndarray,
    ensemble: np.ndarray,
    selection: Selection,
    prior: np.ndarray | None,
    limit: int,
    thresholds: np.ndarray | None = None,
    earlier: Sequence[PseudoLabel] = (),
) -> list[PseudoLabel]:
    """At most `limit` rows of member distributions [T, N, C] and their mean [N, C], most confident first by class.

    What `earlier` rounds selected is not selected again, and counts towards the limit and the ceilings.

    With `thresholds` [C] they are probabilities of labels on their own: a row is contested where a member chooses
    another set, as sure as its least certain decision, and `label` is its most probable one.
    """
    label = ensemble.argmax(-1)
    if thresholds is None:
        confidence, contested = ensemble.max(-1), (members.argmax(-1) != label).any(0)
    else:
        chosen = chosen_of(ensemble, thresholds)
        confidence = least_certain(ensemble, chosen)
        contested = (chosen_of(members, thresholds) != chosen).any((0, 2))
    rules = _rules(selection, confidence, contested)
    done, number = {p.row for p in earlier}, 1 + max((p.round for p in earlier), default=0)
    eligible = [row for row in np.argsort(-confidence, kind="stable") if rules[row] and row not in done]
    total = min(limit, len(eligible) + len(earlier))
    ceilings = None if prior is None else np.ceil(prior * total - 1e-9).astype(int)
    taken = Counter(p.label for p in earlier)
    selected = []
    for row in eligible:
        if len(selected) + len(earlier) >= total:
            break
        if ceilings is not None and taken[label[row]] >= ceilings[label[row]]:
            continue
        taken[label[row]] += 1
        selected.append(
            PseudoLabel(int(row), int(label[row]), float(confidence[row]), bool(contested[row]), rules[row], number)
        )
    return selected


def _rules(selection: Selection, confidence: np.ndarray, contested: np.ndarray) -> list[str]:
    """The name of the rule that lets each row in; empty where none does."""
    match selection.strategy:
        case "top_confidence":
            return ["most confident"] * len(confidence)
        case "confident_contested":
            chosen = contested & (confidence > selection.threshold1)
            return ["contested, over threshold 1" if c else "" for c in chosen]
        case "fused":
            agreed = ~contested & (confidence < selection.threshold2) & (confidence > selection.floor)
            dissented = contested & (confidence > selection.threshold3)
            return [
                "agreed, under threshold 2" if a else "contested, over threshold 3" if d else ""
                for a, d in zip(agreed, dissented, strict=True)
            ]
    raise ValueError(f"unknown selection strategy {selection.strategy!r}")
