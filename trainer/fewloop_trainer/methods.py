"""What `fewloop benchmark` measures: a method is a function from a cell to distributions [N test rows, C].

Nothing here looks at a test row's label, and no method chooses anything by test rows. Steps are fixed by the number of
labelled rows: with 32 of them, the best step on a dev set of 32 is a draw.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from fewloop_trainer import augment, classifier, embedding, pairs, peers, pet, recipe
from fewloop_trainer.auxiliary import MASK_RATE, PAPER_WEIGHT, Auxiliary
from fewloop_trainer.cell import Cell
from fewloop_trainer.data import targets
from fewloop_trainer.encoder import copy_of, load_model, load_tokenizer
from fewloop_trainer.fewclue import TASKS
from fewloop_trainer.learners import HEAD_STEPS, learner_of
from fewloop_trainer.processes import settle
from fewloop_trainer.recipe import Changes
from fewloop_trainer.render import Renderer
from fewloop_trainer.scores import combine_members, distribution_of, match_priors
from fewloop_trainer.starts import LESSONS, TAPT, TAPT_PASSES, adapted_base, started_from, taught_base
from fewloop_trainer.task import Task
from fewloop_trainer.training import TrainSettings, labels_alone

MATCHING_TEXTS = 300
"""Unlabelled texts that offsets are matched to the uniform prior on: FewCLUE's classes are balanced."""
PASSES, FEWEST_STEPS, MOST_STEPS = 4, 100, 600
"""Passes over the labelled rows, in steps of a batch: on 400 dev rows of TNEWS 100 steps had 50.0, 200 had 45.8 %."""


@dataclass(frozen=True)
class Method:
    """`settings` are part of a result's key: what changes a method's results must change them (`version`, where nothing
    else does). `refuses` gives the reason why a task is none for the method; `absent` why it cannot run here at all."""

    predict: Callable[[Cell], np.ndarray]
    settings: dict[str, object]
    refuses: Callable[[Task], str | None] = lambda task: None
    absent: Callable[[], str | None] = lambda: None
    libraries: Callable[[], dict[str, str]] = field(default=dict)
    reads: tuple[str, ...] | None = ("kind", "labels", "templates", "maxLength")
    """Keys of the task's definition that a result depends on; None: all."""
    lessons: tuple[str, ...] = ()
    """Tasks whose train rows, of all splits, it learns from first; of the cell's own it never does."""
    of_pairs: dict[str, object] = field(default_factory=dict)
    """Further settings, where the task is of pairs."""
    of_texts: dict[str, object] = field(default_factory=dict)
    """The same, where it is not."""

    def settings_for(self, task: Task) -> dict[str, object]:
        return self.settings | (self.of_pairs if task.kind == "sentence-pair" else self.of_texts)


class Prompted:
    """The base model with the task's templates, its encoded rows and the offsets that match them to the prior."""

    def __init__(self, cell: Cell):
        settle(cell.threads)
        self.cell, self.task = cell, cell.task
        self.base = load_model(cell.base).eval()
        self.renderer = Renderer(load_tokenizer(cell.base), cell.task)

    def encode(self, template: int, rows: list[dict]) -> list[pet.Encoded]:
        return pet.encode(self.task, self.renderer, self.task.templates[template], rows)

    def offsets(self, template: int) -> np.ndarray:
        """[C] at which zero-shot predictions of unlabelled texts are uniform; zeros where labels are choices."""
        if self.task.kind == "multiple-choice":
            return np.zeros(self.cell.classes)
        pool = self.cell.unlabelled or self.cell.train
        drawn = np.random.default_rng(self.cell.seed + 1).permutation(len(pool))[:MATCHING_TEXTS]
        logits = pet.predict(self.base, self.encode(template, [pool[i] for i in drawn]), self.cell.classes, fast=True)
        return match_priors(logits, np.full(self.cell.classes, 1 / self.cell.classes))

    def zero_shot(self, template: int) -> np.ndarray:
        logits = pet.predict(self.base, self.encode(template, self.cell.test), self.cell.classes)
        return distribution_of(logits, self.offsets(template))

    def tuned(self, template: int, strategy: str, auxiliary_weight: float = 0.0) -> np.ndarray:
        """All weights tuned on the labelled rows, from the base."""
        cell, model, offsets = self.cell, copy_of(self.base), self.offsets(template)
        wanted = targets(self.task, cell.train)
        # Choices are no classes that batches could be balanced by.
        balance = np.zeros_like(wanted) if self.task.kind == "multiple-choice" else wanted
        settings = TrainSettings(steps=steps_for(len(wanted)), seed=cell.seed + 101 * template)
        rows, hard = self.encode(template, cell.train), np.eye(cell.classes)[wanted]
        further = labels_alone
        if auxiliary_weight > 0 and cell.unlabelled:
            texts = self.encode(template, recipe.unlabelled_of(cell))
            further = Auxiliary(model, texts, self.renderer.tokenizer, auxiliary_weight, settings).add
        pet.train(model, rows, hard, strategy, settings, offsets, balance=balance, further=further)
        return distribution_of(pet.predict(model, self.encode(template, cell.test), cell.classes), offsets)


def steps_for(rows: int) -> int:
    return int(np.clip(PASSES * rows / TrainSettings.batch_rows, FEWEST_STEPS, MOST_STEPS))


def learned(method: str) -> Callable[[Cell], np.ndarray]:
    """Fine-tuning, EFL or the embedding member alone, as a run of the trainer trains them (learners.py)."""

    def predict(cell: Cell) -> np.ndarray:
        prompted, wanted = Prompted(cell), targets(cell.task, cell.train)
        learner = learner_of(prompted.base, prompted.renderer, cell.task, cell.classes, method, 0, "plain")
        rows, model = learner.encode(cell.train), learner.start()
        of_head = HEAD_STEPS * learner.rows_a_text * steps_for(len(wanted))
        steps = learner.wished_steps(0) if method == "embedding" else of_head
        settings = TrainSettings(steps=steps, seed=cell.seed, **learner.rates(student=False))
        learner.train(model, rows, np.eye(cell.classes)[wanted], wanted, settings, lambda step, loss: None)
        return distribution_of(learner.predict(model, learner.encode(cell.test)))

    return predict


def zero_shot(cell: Cell) -> np.ndarray:
    """The mean of the templates on the base model."""
    prompted = Prompted(cell)
    return _mean([prompted.zero_shot(template) for template in range(len(cell.task.templates))])


def pet_with(strategy: str, auxiliary_weight: float = 0.0) -> Callable[[Cell], np.ndarray]:
    """PET of the first template with one training strategy (augment.py)."""
    return lambda cell: Prompted(cell).tuned(0, strategy, auxiliary_weight)


def pet_ensemble(cell: Cell) -> np.ndarray:
    """PET of every template, the plain mean."""
    prompted = Prompted(cell)
    return _mean([prompted.tuned(template, "plain") for template in range(len(cell.task.templates))])


def _mean(distributions: list[np.ndarray]) -> np.ndarray:
    return combine_members(np.stack(distributions), np.ones(len(distributions)))


def _no_mixing(task: Task) -> str | None:
    return "choices of two rows are not the same labels and cannot be mixed" if task.kind == "multiple-choice" else None


def _no_choices(task: Task) -> str | None:
    return "candidates are no classes, and it knows no others" if task.kind == "multiple-choice" else None


PROMPT = {"version": 1, "matchingTexts": MATCHING_TEXTS}
PET = PROMPT | {
    "passes": PASSES,
    "steps": [FEWEST_STEPS, MOST_STEPS],
    "rates": [TrainSettings.encoder_rate, TrainSettings.head_rate],
    "batchRows": TrainSettings.batch_rows,
    "optimiser": "AdamW, fused",
}
LEARNED = PET | {
    "headSteps": HEAD_STEPS,
    "rates": [classifier.ENCODER_RATE, classifier.HEAD_RATE, classifier.DROPOUT],
    "embedding": [embedding.STEPS, embedding.ENCODER_RATE, embedding.BATCH_ROWS, embedding.INVERSE_REGULARISATION],
}
EMBEDDED_PAIRS = {
    "pairs": [
        pairs.STEPS,
        pairs.ENCODER_RATE,
        pairs.SCALE,
        pairs.COSINE_WEIGHT,
        pairs.INVERSE_REGULARISATION,
    ]
}
AUGMENT = {
    "mixupAlpha": augment.MIXUP_ALPHA,
    "rDropAlpha": augment.R_DROP_ALPHA,
    "epsilon": augment.EPSILON,
    "pgd": [augment.PGD_STEPS, augment.PGD_RATE],
}
AUXILIARY = {"auxiliary": PAPER_WEIGHT, "maskRate": MASK_RATE, "auxiliaryRows": recipe.UNLABELLED_ROWS}
STRATEGIES = ("mixup", "manifold-mixup", "fgm", "pgd", "r-drop", "r-drop+fgm", "manifold-mixup+r-drop")
ROUNDS = 3
READ_BY_A_RUN = ("name", "kind", "method", "labels", "templates", "input", "efl", "maxLength", "serving", "learning")
"""Where members are of more methods than PET."""
SELECTIONS = ("top_confidence", "confident_contested", "fused")


def _augmented(strategy: str) -> Method:
    return Method(pet_with(strategy), PET | AUGMENT, _no_mixing if "mixup" in strategy else lambda task: None)


def _recipe_adapted(tapt: bool) -> Method:
    """Whatever the task file says of adaptation."""
    adaptation = {"tapt": tapt, "passes": TAPT_PASSES, "budgetShare": 0.3, "auxiliary": 0}
    settings = {"version": recipe.VERSION, "policy": "ensemble", "adaptation": adaptation}
    if tapt:
        settings |= {"tapt": TAPT}
    return Method(lambda cell: recipe.predict(cell, Changes(adaptation=adaptation))["ensemble"], settings, reads=None)


def _recipe(policy: str, selection: str | None = None, **more) -> Method:
    changes = Changes(selection, **more)
    settings = {"version": recipe.VERSION, "policy": policy, "selection": selection} | more
    return Method(lambda cell: recipe.predict(cell, changes)[policy], settings, reads=None)


def _committee(*members: str) -> Method:
    """The recipe with teachers of several methods, which are wrong elsewhere, whatever the task file's are."""
    return replace(_recipe("ensemble", methods=members), refuses=_no_choices, reads=READ_BY_A_RUN)


def _pet_alone(task: Task) -> str | None:
    return "its task file has members of PET alone: that is full" if set(task.methods) == {"pet"} else None


def _recipe_of_lessons() -> Method:
    alone = _recipe("ensemble")
    # Its runs are of a base that goes with the cell's end, and go with it.
    predict = started_from(
        lambda cell: taught_base(cell, "pet"), lambda cell: alone.predict(replace(cell, work=cell.base / "runs"))
    )
    return replace(alone, predict=predict, settings=alone.settings | {"lessons": LESSONS}, lessons=TASKS)


def _learned(method: str, *kinds: str, **settings: dict[str, object]) -> Method:
    """Refuses what the service's table of methods and kinds does (`src/task/support.ts`)."""

    def refuses(task: Task) -> str | None:
        return None if task.kind in kinds else f"{method} does not go with {task.kind}"

    reads = ("kind", "labels", "maxLength", "efl", "input")
    return Method(learned(method), LEARNED, refuses, reads=reads, **settings)


def _efl_from(other: str) -> Method:
    alone = _learned("efl", "sentence-pair")
    predict = started_from(lambda cell: taught_base(cell, "efl"), alone.predict)
    return replace(alone, predict=predict, settings=LEARNED | {"lessons": LESSONS}, lessons=(other,))


def _peer(name: str) -> Method:
    return Method(
        lambda cell: peers.predict(cell, name),
        {"version": peers.VERSION} | peers.SETTINGS[name],
        _no_choices,
        lambda: peers.absent(name),
        lambda: peers.libraries(name),
        ("kind", "labels"),
    )


METHODS: dict[str, Method] = {
    "zero-shot": Method(zero_shot, PROMPT),
    "pet": Method(pet_with("plain"), PET),
    "pet-ensemble": Method(pet_ensemble, PET),
    **{f"pet+{strategy}": _augmented(strategy) for strategy in STRATEGIES},
    "pet+auxiliary": Method(pet_with("plain", PAPER_WEIGHT), PET | AUXILIARY),
    "pet<tapt": Method(started_from(adapted_base, pet_with("plain")), PET | {"tapt": TAPT}),
    "pet<multi-task": Method(
        started_from(lambda cell: taught_base(cell, "pet"), pet_with("plain")),
        PET | {"lessons": LESSONS},
        lessons=TASKS,
    ),
    "full": _recipe("ensemble"),
    "full-uniform": _recipe("uniform"),
    "full+embedding": _committee("pet", "embedding"),
    "full-pet": replace(_recipe("ensemble", methods=("pet",)), refuses=_pet_alone),
    "full<tapt": _recipe_adapted(True),
    "full<base": _recipe_adapted(False),
    "full<multi-task": _recipe_of_lessons(),
    "full-student": _recipe("student"),
    "full@rounds": _recipe("student", rounds=ROUNDS),
    # The student: teachers are the same whatever is selected.
    **{f"full@{selection}": _recipe("student", selection) for selection in SELECTIONS},
    "fine-tune": _learned("fine-tune", "single-label", "sentence-pair"),
    "efl": _learned("efl", "single-label", "sentence-pair", of_texts={"steps": "by text"}),
    **{f"efl<{other}": _efl_from(other) for other in ("bustm", "ocnli")},
    "embedding": _learned("embedding", "single-label", "sentence-pair", of_pairs=EMBEDDED_PAIRS),
    "tf-idf": _peer("tf-idf"),
    "setfit": _peer("setfit"),
    "small-text": _peer("small-text"),
}
"""By the name that the command line and the table use."""
