"""EFL (Wang et al. 2021): classification as entailment between two sentences, told by a classifier on [CLS].

Two uses. **Pairs**: the label of (text, textPair), with random negatives drawn anew for every batch, a row's text
beside another row's second sentence, under the label that a random pair has (`negativeLabel`), if any has. **Tagging**:
a text against each label's description as its hypothesis, two outputs (not entailed, entailed), with `negatives`
hypotheses of other labels for each right one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

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


def train_pairs(
    model: Classifier,
    renderer: Renderer,
    items: Sequence[dict],
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
    draws = _pair_draws(renderer, items, wanted, balance, negative, negatives, settings)
    classifier.train_on(model, draws, strategy, settings, on_step)


def _pair_draws(
    renderer: Renderer,
    items: Sequence[dict],
    wanted: np.ndarray,
    balance: np.ndarray,
    negative: int | None,
    negatives: float,
    settings: TrainSettings,
) -> Iterator[Drawn]:
    rows = classifier.encode(renderer, PAIR, items)
    goal = torch.from_numpy(wanted).float()
    rng = np.random.default_rng(settings.seed + 2)
    of_negatives = 0.0 if negative is None else negatives
    own = max(1, round(settings.batch_rows / (1 + of_negatives)))
    for chosen in batches(balance, rows, replace(settings, batch_rows=own)):
        drawn, targets = [rows[i] for i in chosen], [goal[i] for i in chosen]
        for i in rng.choice(chosen, round(len(chosen) * of_negatives)):
            partner = _other_pair(items, int(i), rng)
            if partner is not None:
                drawn += classifier.encode(renderer, PAIR, [items[i] | {"textPair": items[partner]["textPair"]}])
                targets.append(torch.eye(goal.shape[1])[negative])
        yield Drawn(drawn, torch.stack(targets))


def _other_pair(items: Sequence[dict], row: int, rng: np.random.Generator) -> int | None:
    for other in rng.integers(len(items), size=ATTEMPTS):
        if items[other]["textPair"] != items[row]["textPair"] and items[other]["text"] != items[row]["text"]:
            return int(other)
    return None


def train_tagging(
    model: Classifier,
    renderer: Renderer,
    hypotheses: Sequence[str],
    items: Sequence[dict],
    wanted: np.ndarray,
    balance: np.ndarray,
    negatives: int,
    strategy: str,
    settings: TrainSettings,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Trains `model` (two outputs) in place on items beside `hypotheses` [C], given the probability that each holds,
    `wanted` [N, C]: for each item a hypothesis drawn by these and `negatives` others. A batch has about
    `settings.batch_rows` rows, but at least one item's."""
    draws = _tagging_draws(renderer, hypotheses, items, wanted, balance, negatives, settings)
    classifier.train_on(model, draws, strategy, settings, on_step)


def _tagging_draws(
    renderer: Renderer,
    hypotheses: Sequence[str],
    items: Sequence[dict],
    wanted: np.ndarray,
    balance: np.ndarray,
    negatives: int,
    settings: TrainSettings,
) -> Iterator[Drawn]:
    rng = np.random.default_rng(settings.seed + 2)
    alone = classifier.encode(renderer, "{text}", items)  # only for the lengths that batches are sorted by
    own = max(1, round(settings.batch_rows / (1 + negatives)))
    for chosen in batches(balance, alone, replace(settings, batch_rows=own)):
        drawn, held = [], []
        for i in chosen:
            for label in _asked(wanted[i], negatives, rng):
                drawn += classifier.encode(renderer, TAGGING, [items[i] | {"hypothesis": hypotheses[label]}])
                held.append(wanted[i, label])
        entailed = torch.tensor(held).float()
        yield Drawn(drawn, torch.stack([1 - entailed, entailed], dim=-1))


def _asked(probabilities: np.ndarray, negatives: int, rng: np.random.Generator) -> list[int]:
    """A label drawn by its probability, where any has some, and as many others as that leaves of 1 + `negatives`."""
    total = probabilities.sum()
    first = [int(rng.choice(len(probabilities), p=probabilities / total))] if total > 0 else []
    others = np.setdiff1d(np.arange(len(probabilities)), first)
    return [*first, *rng.permutation(others)[: 1 + negatives - len(first)].tolist()]


def predict_tagging(
    model: Classifier,
    renderer: Renderer,
    hypotheses: Sequence[str],
    items: Sequence[dict],
    batch_tokens: int = 2048,
    fast: bool = False,
) -> np.ndarray:
    """Scores [N, C], fp64: the log-odds that each hypothesis is entailed."""
    rows = [row for of_item in tagging_rows(renderer, hypotheses, items) for row in of_item]
    logits = classifier.predict(model, rows, batch_tokens, fast)
    return (logits[:, 1] - logits[:, 0]).reshape(len(items), len(hypotheses))


def tagging_rows(renderer: Renderer, hypotheses: Sequence[str], items: Sequence[dict]) -> list[list[Encoded]]:
    """[N][C]: each item beside each label's hypothesis."""
    return [
        classifier.encode(renderer, TAGGING, [item | {"hypothesis": hypothesis} for hypothesis in hypotheses])
        for item in items
    ]
