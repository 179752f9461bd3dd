"""What a run needs of a method, the same of each: encode items, start a model, train it, ask it, store it, export it.

`PetLearner` knows something before it is trained and tunes its head first; the others start from nothing but the
encoder. Scores [N, C] are before offsets: a softmax over labels, or for label sets a sigmoid of each, makes them
probabilities.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
import torch
from transformers import BertForMaskedLM

from fewloop_trainer import auxiliary, classifier, efl, embedding, export, head, pairs, pet
from fewloop_trainer.augment import parse_strategy
from fewloop_trainer.classifier import Classifier
from fewloop_trainer.encoder import copy_of, load_model
from fewloop_trainer.export import round_to_half
from fewloop_trainer.pairs import PairClassifier
from fewloop_trainer.render import Renderer
from fewloop_trainer.scores import NOT_LISTED, shortlist_of
from fewloop_trainer.task import Task
from fewloop_trainer.training import AtWork, TrainSettings, labels_alone, nobody_waits

Write = Callable[[str, object], dict[str, str]]
"""Puts a JSON file of that name beside the member's graph; its entry for the manifest."""
OnStep = Callable[[int, float], None]
TEACHER_RATES = {"encoder_rate": 1.2e-4, "head_rate": 1.2e-4}
"""PET's, fast: how far teachers then go from the base is chosen out of fold (docs/results/trainer-settings.md). A
student, which hundreds of texts teach, may go all the way."""
FEWEST_CLASSIFIER_STEPS, HEAD_STEPS = 120, 2
"""At least, and times PET's: a head that starts from nothing needs more than one that knows words."""


class Learner(Protocol):
    """`knows`: predicts before it is trained. `template`: what a bundle's member is rendered by."""

    method: str
    graph: str
    template: str
    strategy: str
    knows: bool

    def encode(self, items: Sequence[dict]) -> list[Any]: ...
    def tokens(self, rows: Sequence[Any]) -> float: ...
    def step_tokens(self, rows: Sequence[Any]) -> float: ...
    @property
    def passes(self) -> float: ...
    def wished_steps(self, wished: int) -> int: ...
    def rates(self, student: bool) -> dict[str, float]: ...
    def start(self) -> Any: ...
    def train(
        self,
        model: Any,
        rows: Sequence[Any],
        wanted: np.ndarray,
        balance: np.ndarray,
        settings: TrainSettings,
        on_step: OnStep,
    ) -> None: ...
    def predict(
        self, model: Any, rows: Sequence[Any], fast: bool = False, at_work: AtWork = nobody_waits
    ) -> np.ndarray: ...
    def state(self, model: Any) -> dict[str, torch.Tensor]: ...
    def restore(self, state: dict[str, torch.Tensor]) -> Any: ...
    def export(self, model: Any, base_folder: Path, path: Path) -> None: ...
    def served(self, session: onnxruntime.InferenceSession, model: Any, rows: Sequence[Any]) -> np.ndarray: ...
    def golden(self, row: Any) -> dict[str, object]: ...
    def member(self, model: Any, write: Write) -> dict[str, object]: ...


class _OneRowAnItem:
    """What methods share whose items are a row each. `further_passes`: of what is not the strategy's. `rows_a_text`: in
    a training batch; where they are many it is of few texts, and as many passes over the texts take more steps."""

    strategy: str
    further_passes = 0.0
    rows_a_text = 1

    def tokens(self, rows: Sequence[Any]) -> float:
        return sum(len(row.ids) for row in rows)

    @property
    def passes(self) -> float:
        return parse_strategy(self.strategy).passes + self.further_passes

    def restore(self, state: dict[str, torch.Tensor]) -> Any:
        """The model of a stored state, its weights as a graph will hold them."""
        model = self.start()
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
        round_to_half(model)
        return model.eval()


class PetLearner(_OneRowAnItem):
    """`offsets` [C], added to scores in training, are matched by the run once it has asked the base model. On items
    `unlabelled` training has the task's auxiliary loss, if it has one."""

    method, graph, knows = "pet", "pet", True

    def __init__(
        self, base: BertForMaskedLM, renderer: Renderer, task: Task, classes: int, template: str, strategy: str
    ):
        self.base, self.renderer, self.task, self.classes = base, renderer, task, classes
        self.template, self.strategy = template, strategy
        self.offsets = np.zeros(classes)
        self.unlabelled: Sequence[dict] = ()
        self._hidden: dict[int, torch.Tensor] = {}
        self._texts: list[pet.Encoded] | None = None

    def encode(self, items: Sequence[dict]) -> list[pet.Encoded]:
        return pet.encode(self.task, self.renderer, self.template, items)

    def step_tokens(self, rows: Sequence[pet.Encoded]) -> float:
        return self.passes * TrainSettings.batch_rows * self.tokens(rows) / len(rows)

    def wished_steps(self, wished: int) -> int:
        return wished

    def rates(self, student: bool) -> dict[str, float]:
        return {} if student else TEACHER_RATES

    def start(self) -> BertForMaskedLM:
        return copy_of(self.base)

    def remember(self, rows: Sequence[pet.Encoded]) -> None:
        """Keeps what the base's encoder says of rows whose head will be tuned several times."""
        self._hidden = {
            id(row): hidden for row, hidden in zip(rows, head.hidden_at_masks(self.base, rows), strict=True)
        }

    def share(self, other: "PetLearner", rows: Sequence[pet.Encoded]) -> None:
        """Takes what a learner of the same template remembers of the same items, in order."""
        self._hidden = dict(zip((id(row) for row in rows), other._hidden.values(), strict=True))

    def tune_head(
        self, model: BertForMaskedLM, rows: Sequence[pet.Encoded], wanted: np.ndarray, balance: np.ndarray, seed: int
    ) -> None:
        """On rows that are remembered, with labels `wanted` [N]."""
        head.tune(model, rows, [self._hidden[id(row)] for row in rows], wanted, self.offsets, balance, seed)

    def train(self, model, rows, wanted, balance, settings, on_step) -> None:
        further = self._auxiliary(model, settings).add if self._has_auxiliary else labels_alone
        pet.train(model, rows, wanted, self.strategy, settings, self.offsets, on_step, balance, further)

    @property
    def further_passes(self) -> float:
        return auxiliary.PASSES if self._has_auxiliary else 0.0

    @property
    def _has_auxiliary(self) -> bool:
        return self.task.adaptation.auxiliary > 0 and len(self.unlabelled) > 0

    def _auxiliary(self, model: BertForMaskedLM, settings: TrainSettings) -> auxiliary.Auxiliary:
        if self._texts is None:
            self._texts = self.encode(self.unlabelled)
        weight = self.task.adaptation.auxiliary
        return auxiliary.Auxiliary(model, self._texts, self.renderer.tokenizer, weight, settings)

    def predict(
        self,
        model: BertForMaskedLM,
        rows: Sequence[pet.Encoded],
        fast: bool = False,
        at_work: AtWork = nobody_waits,
    ) -> np.ndarray:
        return pet.predict(model, rows, self.classes, fast=fast, at_work=at_work)

    def state(self, model: BertForMaskedLM) -> dict[str, torch.Tensor]:
        """Only what training moves: embeddings stay the base's."""
        kept = ("bert.encoder.", "cls.predictions.transform.")
        return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(kept)}

    def export(self, model: BertForMaskedLM, base_folder: Path, path: Path) -> None:
        try:
            # By the base as it is published: a run may have adapted its own.
            export.export_from(base_folder / "model.onnx", load_model(base_folder), model, path)
        except (ValueError, FileNotFoundError):
            export.export_pet(model, path)  # a base model of one's own, with no graph beside it

    def served(self, session: onnxruntime.InferenceSession, model: Any, rows: Sequence[pet.Encoded]) -> np.ndarray:
        """Scores [N, C] of what was exported, in one batch; rows have equally many masks."""
        batch = pet.collate(rows)
        feeds = {name: value.numpy() for name, value in zip(export.PET_INPUTS, batch.inputs, strict=True)}
        (words,) = session.run(["word_logits"], feeds)
        return pet.label_logits(torch.from_numpy(words), batch.word_labels, self.classes).double().numpy()

    def golden(self, row: pet.Encoded) -> dict[str, object]:
        return {"ids": row.ids, "typeIds": [0] * len(row.ids), "maskPositions": row.mask_positions}

    def member(self, model: Any, write: Write) -> dict[str, object]:
        return {"labelWords": self.task.label_words}


class ClassifierLearner(_OneRowAnItem):
    """Fine-tuning, EFL on pairs, and the embedding member, whose pairs are embedded each side alone: one output a
    label."""

    graph, knows = "classifier", False

    def __init__(self, base: BertForMaskedLM, renderer: Renderer, task: Task, method: str, strategy: str):
        self.base, self.renderer, self.task = base, renderer, task
        self.method, self.strategy = method, strategy
        self.template = task.input
        self.label_sets = task.kind == "multi-label"
        self.outputs = len(task.labels)
        self.embeds_pairs = method == "embedding" and task.kind == "sentence-pair"

    def encode(self, items: Sequence[dict]) -> list[classifier.Encoded]:
        if self.method == "efl":
            return efl.encode_pairs(self.renderer, items)
        return classifier.encode(self.renderer, self.template, items)

    def step_tokens(self, rows: Sequence[classifier.Encoded]) -> float:
        batch = embedding.BATCH_ROWS if self.method == "embedding" else TrainSettings.batch_rows
        return self.passes * batch * self.tokens(rows) / len(rows)

    def wished_steps(self, wished: int) -> int:
        if self.method == "embedding":
            return pairs.STEPS if self.embeds_pairs else embedding.STEPS
        return max(FEWEST_CLASSIFIER_STEPS, HEAD_STEPS * wished)

    def rates(self, student: bool) -> dict[str, float]:
        if self.method == "embedding":
            rate = pairs.ENCODER_RATE if self.embeds_pairs else embedding.ENCODER_RATE
            return {"encoder_rate": rate, "batch_rows": embedding.BATCH_ROWS}
        return {"encoder_rate": classifier.ENCODER_RATE, "head_rate": classifier.HEAD_RATE}

    def start(self) -> Classifier | PairClassifier:
        if self.embeds_pairs:
            return pairs.pair_classifier_of(self.base, self.outputs)
        return classifier.classifier_of(self.base, self.outputs, self.method == "embedding", self.label_sets)

    def train(self, model, rows, wanted, balance, settings, on_step) -> None:
        if self.method == "embedding":
            embedding.tune(model, rows, wanted, settings, on_step, balance)
            embedding.fit_head(model, rows, wanted, self.label_sets)
        elif self.method == "efl":
            name, each = self.task.efl.negative_label, self.task.efl.negatives
            negative = None if name is None else self.task.label_names.index(name)
            efl.train_pairs(
                model, self.renderer, rows, wanted, balance, negative, each, self.strategy, settings, on_step
            )
        else:
            classifier.train(model, rows, wanted, self.strategy, settings, on_step, balance)

    def predict(
        self,
        model: Classifier | PairClassifier,
        rows: Sequence[classifier.Encoded],
        fast: bool = False,
        at_work: AtWork = nobody_waits,
    ) -> np.ndarray:
        return classifier.predict(model, rows, fast=fast, at_work=at_work)

    def state(self, model: Classifier | PairClassifier) -> dict[str, torch.Tensor]:
        return {name: t for name, t in model.state_dict().items() if name.startswith(("bert.encoder.", "head."))}

    def export(self, model: Classifier | PairClassifier, base_folder: Path, path: Path) -> None:
        export.export_classifier(model, path)

    def served(
        self, session: onnxruntime.InferenceSession, model: Any, rows: Sequence[classifier.Encoded]
    ) -> np.ndarray:
        return _classifier_outputs(session, "logits", rows)

    def golden(self, row: classifier.Encoded) -> dict[str, object]:
        return {"ids": row.ids, "typeIds": row.type_ids, "maskPositions": []}

    def member(self, model: Any, write: Write) -> dict[str, object]:
        return {"labelWords": {}}


class TaggingLearner(ClassifierLearner):
    """EFL on single texts: each label's description is a hypothesis, each text asks all of them, or where there are
    more than `efl.shortlist` those whose vectors are nearest to it. The vectors are a part of the model."""

    def __init__(self, base: BertForMaskedLM, renderer: Renderer, task: Task, strategy: str):
        super().__init__(base, renderer, task, "efl", strategy)
        self.template = efl.beside_hypothesis(task.input)
        self.label_sets, self.outputs = False, 2
        self.hypotheses = efl.Hypotheses(renderer, [label.description for label in task.labels])
        self.size = min(task.efl.shortlist, len(task.labels))
        self.lists = self.size < len(task.labels)
        self.rows_a_text = 1 + task.efl.negatives

    def encode(self, items: Sequence[dict]) -> list[efl.Tagging]:
        return self.hypotheses.encode(items)

    def wished_steps(self, wished: int) -> int:
        return self.rows_a_text * super().wished_steps(wished)

    def tokens(self, rows: Sequence[efl.Tagging]) -> float:
        alone = sum(len(row.ids) for row in rows)
        return self.size * (alone + len(rows) * self._hypothesis_tokens) + (alone if self.lists else 0)

    def step_tokens(self, rows: Sequence[efl.Tagging]) -> float:
        alone = sum(len(row.ids) for row in rows) / len(rows)
        return self.passes * TrainSettings.batch_rows * (alone + self._hypothesis_tokens)

    @cached_property
    def _hypothesis_tokens(self) -> float:
        return float(np.mean([len(encoded.ids) - 1 for encoded in self.hypotheses.alone()]))

    def start(self) -> Classifier:
        model = super().start()
        if self.lists:
            model.register_buffer("vectors", torch.zeros(len(self.task.labels), model.bert.config.hidden_size))
        return model

    def train(self, model, rows, wanted, balance, settings, on_step) -> None:
        negatives = self.task.efl.negatives
        efl.train_tagging(model, self.hypotheses, rows, wanted, balance, negatives, self.strategy, settings, on_step)
        if self.lists:
            model.vectors.copy_(torch.from_numpy(efl.label_vectors(model, self.hypotheses, rows, wanted)))

    def predict(
        self, model: Classifier, rows: Sequence[efl.Tagging], fast: bool = False, at_work: AtWork = nobody_waits
    ) -> np.ndarray:
        return efl.predict_tagging(model, self.hypotheses, rows, self._shortlist(model), fast=fast, at_work=at_work)

    def _shortlist(self, model: Classifier) -> tuple[np.ndarray, int] | None:
        return (model.vectors.double().cpu().numpy(), self.size) if self.lists else None

    def state(self, model: Classifier) -> dict[str, torch.Tensor]:
        return super().state(model) | ({"vectors": model.vectors} if self.lists else {})

    def served(
        self, session: onnxruntime.InferenceSession, model: Classifier, rows: Sequence[efl.Tagging]
    ) -> np.ndarray:
        return np.concatenate([self._served(session, model, row) for row in rows])

    def _served(self, session: onnxruntime.InferenceSession, model: Classifier, row: efl.Tagging) -> np.ndarray:
        scores = np.full((1, len(self.hypotheses.texts)), NOT_LISTED)
        listed = np.ones(scores.shape, dtype=bool)
        if self.lists:
            (state,) = _classifier_outputs(session, "pooled_embedding", [row])
            listed = shortlist_of(state[None], *self._shortlist(model))
        asked = np.flatnonzero(listed[0])
        logits = _classifier_outputs(session, "logits", [self.hypotheses.beside(row, label) for label in asked])
        scores[0, asked] = logits[:, 1] - logits[:, 0]
        return scores

    def golden(self, row: efl.Tagging) -> dict[str, object]:
        beside = (self.hypotheses.beside(row, label) for label in range(len(self.task.labels)))
        rows = [{"ids": encoded.ids, "typeIds": encoded.type_ids} for encoded in beside]
        return {**rows[0], "maskPositions": [], "rows": rows}

    def member(self, model: Classifier, write: Write) -> dict[str, object]:
        entry: dict[str, object] = {
            "labelWords": {},
            "hypotheses": dict(zip(self.task.label_names, self.hypotheses.texts, strict=True)),
        }
        if self.lists:
            vectors = {n: v.tolist() for n, v in zip(self.task.label_names, model.vectors.double(), strict=True)}
            entry["shortlist"] = {"size": self.size, "embeddings": write("labels", vectors)}
        return entry


def learner_of(
    base: BertForMaskedLM, renderer: Renderer, task: Task, classes: int, method: str, template: int, strategy: str
) -> PetLearner | ClassifierLearner:
    """The learner of one teacher; `template` is an index, for PET alone."""
    if method == "pet":
        return PetLearner(base, renderer, task, classes, task.templates[template], strategy)
    if method == "efl" and task.kind != "sentence-pair":
        return TaggingLearner(base, renderer, task, strategy)
    return ClassifierLearner(base, renderer, task, method, strategy)


def _classifier_outputs(
    session: onnxruntime.InferenceSession, output: str, rows: Sequence[classifier.Encoded]
) -> np.ndarray:
    inputs = classifier.collate(rows)
    feeds = {name: value.numpy() for name, value in zip(export.CLASSIFIER_INPUTS, inputs, strict=True)}
    return session.run([output], feeds)[0].astype(np.float64)
