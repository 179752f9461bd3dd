"""EFL (Wang et al. 2021): classification as entailment between two sentences, told by a classifier on [CLS].

Two uses. **Pairs**: the label of (text, textPair), with random negatives drawn anew for every batch, a row's text
beside another row's second sentence, under the label that a random pair has (`negativeLabel`), if any has. **Tagging**:
a text against each label's description as its hypothesis, two outputs (not entailed, entailed), with `negatives`
hypotheses of other labels for each right one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fewloop_trainer import classifier
from fewloop_trainer.classifier import Classifier, Encoded
from fewloop_trainer.render import Renderer
from fewloop_trainer.training import Drawn, TrainSettings, batches

PAIR = "{text}{sep}{textPair}"
TAGGING = "{text}{sep}{hypothesis}"
ATTEMPTS = 20
"""To find a row with another second sentence, before a pair gets no random one."""


@dataclass(frozen=True)
class Pair(Encoded):
    """`ids` and `type_ids` of an item, and the item, to make random pairs of."""

    item: dict


def encode_pairs(renderer: Renderer, items: Sequence[dict]) -> list[Pair]:
    return [
        Pair(e.ids, e.type_ids, item) for e, item in zip(classifier.encode(renderer, PAIR, items), items, strict=True)
    ]


def train_pairs(
    model: Classifier,
    renderer: Renderer,
    rows: Sequence[Pair],
    wanted: np.ndarray,
    balance: np.ndarray,
    negative: int | None,
    negatives: float,
    strategy: str,
    settings: TrainSettings,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Trains `model` in place on pairs with distributions `wanted` [N, C], and `negatives` random pairs for each (on
    the mean) of label `negative`; none where that is None. A batch has `settings.batch_rows` rows in all."""
    draws = _pair_draws(renderer, rows, wanted, balance, negative, negatives, settings)
    classifier.train_on(model, draws, strategy, settings, on_step)


def _pair_draws(
    renderer: Renderer,
    rows: Sequence[Pair],
    wanted: np.ndarray,
    balance: np.ndarray,
    negative: int | None,
    negatives: float,
    settings: TrainSettings,
) -> Iterator[Drawn]:
    goal = torch.from_numpy(wanted).float()
    rng = np.random.default_rng(settings.seed + 2)
    of_negatives = 0.0 if negative is None else negatives
    own = max(1, round(settings.batch_rows / (1 + of_negatives)))
    for chosen in batches(balance, rows, replace(settings, batch_rows=own)):
        drawn, targets = [rows[i] for i in chosen], [goal[i] for i in chosen]
        for i in rng.choice(chosen, round(len(chosen) * of_negatives)):
            other = _other_pair(rows, rows[i].item, rng)
            if other is not None:
                drawn += encode_pairs(renderer, [rows[i].item | {"textPair": other["textPair"]}])
                targets.append(torch.eye(goal.shape[1])[negative])
        yield Drawn(drawn, torch.stack(targets))


def _other_pair(rows: Sequence[Pair], item: dict, rng: np.random.Generator) -> dict | None:
    """An item of another text with another second sentence."""
    for drawn in rng.integers(len(rows), size=ATTEMPTS):
        other = rows[drawn].item
        if other["textPair"] != item["textPair"] and other["text"] != item["text"]:
            return other
    return None


Tagging = list[Encoded]
"""An item beside each label's hypothesis, in label order."""


def encode_tagging(renderer: Renderer, hypotheses: Sequence[str], items: Sequence[dict]) -> list[Tagging]:
    return [classifier.encode(renderer, TAGGING, [item | {"hypothesis": h} for h in hypotheses]) for item in items]


def train_tagging(
    model: Classifier,
    rows: Sequence[Tagging],
    wanted: np.ndarray,
    balance: np.ndarray,
    negatives: int,
    strategy: str,
    settings: TrainSettings,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Trains `model` (two outputs) in place on `rows`, given the probability `wanted` [N, C] of each hypothesis:
    for each item a hypothesis drawn by these and `negatives` others. A batch has about `settings.batch_rows` rows, but
    at least one item's."""
    classifier.train_on(model, _tagging_draws(rows, wanted, balance, negatives, settings), strategy, settings, on_step)


def _tagging_draws(
    rows: Sequence[Tagging], wanted: np.ndarray, balance: np.ndarray, negatives: int, settings: TrainSettings
) -> Iterator[Drawn]:
    rng = np.random.default_rng(settings.seed + 2)
    own = max(1, round(settings.batch_rows / (1 + negatives)))
    # Sorted by the length beside the first hypothesis.
    for chosen in batches(balance, [row[0] for row in rows], replace(settings, batch_rows=own)):
        asked = [(i, label) for i in chosen for label in _asked(wanted[i], negatives, rng)]
        entailed = torch.tensor([wanted[i, label] for i, label in asked]).float()
        yield Drawn([rows[i][label] for i, label in asked], torch.stack([1 - entailed, entailed], dim=-1))


def _asked(probabilities: np.ndarray, negatives: int, rng: np.random.Generator) -> list[int]:
    """A label drawn by its probability, where any has some, and as many others as that leaves of 1 + `negatives`."""
    total = probabilities.sum()
    first = [int(rng.choice(len(probabilities), p=probabilities / total))] if total > 0 else []
    others = np.setdiff1d(np.arange(len(probabilities)), first)
    return [*first, *rng.permutation(others)[: 1 + negatives - len(first)].tolist()]


def predict_tagging(
    model: Classifier, rows: Sequence[Tagging], labels: int, batch_tokens: int = 2048, fast: bool = False
) -> np.ndarray:
    """Scores [N, labels], fp64: the log-odds that each hypothesis is entailed."""
    logits = classifier.predict(model, [encoded for row in rows for encoded in row], batch_tokens, fast)
    return (logits[:, 1] - logits[:, 0]).reshape(len(rows), labels)
