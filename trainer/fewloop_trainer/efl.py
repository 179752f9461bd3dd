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
from fewloop_trainer.scores import NOT_LISTED, shortlist_of
from fewloop_trainer.training import AtWork, Drawn, TrainSettings, batches, nobody_waits

ALONE = "{text}"
"""Of a hypothesis, as a text of its own."""
PART = 8192
"""Rows that are held at a time."""
ATTEMPTS = 20
"""To find a row with another second sentence, before a pair gets no random one."""


@dataclass(frozen=True)
class Pair(Encoded):
    """`ids` and `type_ids` of an item, and the item, to make random pairs of."""

    item: dict


def encode_pairs(renderer: Renderer, items: Sequence[dict]) -> list[Pair]:
    return [
        Pair(e.ids, e.type_ids, item)
        for e, item in zip(classifier.encode(renderer, renderer.input, items), items, strict=True)
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
    goal = torch.tensor(wanted, dtype=torch.float32)
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


def beside_hypothesis(template: str) -> str:
    """The template of a text beside what a label says of it; `template` is that of the text alone."""
    return template + "{sep}{hypothesis}"


@dataclass(frozen=True)
class Tagging(Encoded):
    """An item alone, and the item, to be rendered beside hypotheses."""

    item: dict


class Hypotheses:
    """The labels' descriptions, beside which items are rendered only as they are asked for: a hundred labels make a
    hundred rows of every text."""

    def __init__(self, renderer: Renderer, texts: Sequence[str]):
        self.renderer, self.texts = renderer, list(texts)

    def encode(self, items: Sequence[dict]) -> list[Tagging]:
        alone = classifier.encode(self.renderer, self.renderer.input, items)
        return [Tagging(e.ids, e.type_ids, item) for e, item in zip(alone, items, strict=True)]

    def beside(self, row: Tagging, label: int) -> Encoded:
        asked = row.item | {"hypothesis": self.texts[label]}
        return classifier.encode(self.renderer, beside_hypothesis(self.renderer.input), [asked])[0]

    def alone(self) -> list[Encoded]:
        """The hypotheses as texts of their own."""
        return classifier.encode(self.renderer, ALONE, [{"text": text} for text in self.texts])


def train_tagging(
    model: Classifier,
    hypotheses: Hypotheses,
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
    draws = _tagging_draws(hypotheses, rows, wanted, balance, negatives, settings)
    classifier.train_on(model, draws, strategy, settings, on_step)


def _tagging_draws(
    hypotheses: Hypotheses,
    rows: Sequence[Tagging],
    wanted: np.ndarray,
    balance: np.ndarray,
    negatives: int,
    settings: TrainSettings,
) -> Iterator[Drawn]:
    rng = np.random.default_rng(settings.seed + 2)
    own = max(1, round(settings.batch_rows / (1 + negatives)))
    for chosen in batches(balance, rows, replace(settings, batch_rows=own)):
        asked = [(i, label) for i in chosen for label in _asked(wanted[i], negatives, rng)]
        entailed = torch.tensor([wanted[i, label] for i, label in asked]).float()
        drawn = [hypotheses.beside(rows[i], label) for i, label in asked]
        yield Drawn(drawn, torch.stack([1 - entailed, entailed], dim=-1))


def _asked(probabilities: np.ndarray, negatives: int, rng: np.random.Generator) -> list[int]:
    """A label drawn by its probability, where any has some, and as many others as that leaves of 1 + `negatives`."""
    total = probabilities.sum()
    first = [int(rng.choice(len(probabilities), p=probabilities / total))] if total > 0 else []
    others = np.setdiff1d(np.arange(len(probabilities)), first)
    return [*first, *rng.permutation(others)[: 1 + negatives - len(first)].tolist()]


def label_vectors(model: Classifier, hypotheses: Hypotheses, rows: Sequence[Tagging], wanted: np.ndarray) -> np.ndarray:
    """[C, hidden], L2-normalised: what shortlists are ranked by, the mean of the states of a label's hypothesis and of
    the `rows` in the proportion `wanted` [N, C] that they have it."""
    own = classifier.embeddings(model, hypotheses.alone())
    mean = own + wanted.T @ classifier.embeddings(model, rows)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def predict_tagging(
    model: Classifier,
    hypotheses: Hypotheses,
    rows: Sequence[Tagging],
    shortlist: tuple[np.ndarray, int] | None = None,
    batch_tokens: int = 2048,
    fast: bool = False,
    at_work: AtWork = nobody_waits,
) -> np.ndarray:
    """Scores [N, C], fp64: the log-odds that each hypothesis is entailed. With a `shortlist`, label vectors and its
    size, only the nearest labels are asked about; the others score `NOT_LISTED`."""
    scores = np.full((len(rows), len(hypotheses.texts)), NOT_LISTED)
    listed = np.ones(scores.shape, dtype=bool)
    if shortlist is not None:
        listed = shortlist_of(classifier.embeddings(model, rows, batch_tokens, fast, at_work), *shortlist)
    asked = np.argwhere(listed)
    # In parts: rows of all texts beside all labels would be gigabytes.
    for part in np.array_split(asked, max(1, -(-len(asked) // PART))):
        beside = [hypotheses.beside(rows[i], label) for i, label in part]
        logits = classifier.predict(model, beside, batch_tokens, fast, at_work)
        scores[part[:, 0], part[:, 1]] = logits[:, 1] - logits[:, 0]
    return scores
