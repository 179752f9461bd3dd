"""What the stages of a run share: its data, its learners, the plan of its budget, and how a model is trained and asked.

A stage is a function of a `Run` in a file of its own (run.py names them in order). What one leaves to later ones is
among the attributes at the end of `__init__`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fewloop_trainer.data import RunData, RunError, file_digest, in_reservoir, read_run, targets
from fewloop_trainer.encoder import load_model, load_tokenizer, present, require_own_tokenizer
from fewloop_trainer.learners import ClassifierLearner, Learner, PetLearner, learner_of
from fewloop_trainer.observe import Observations
from fewloop_trainer.plan import MINIMUM_STEPS, Job, Plan
from fewloop_trainer.processes import place_of, settle
from fewloop_trainer.render import Renderer
from fewloop_trainer.shrink import Shrinkage
from fewloop_trainer.task import Task
from fewloop_trainer.training import NO_SAVING, Diverged, Saving, TrainSettings, recompute
from fewloop_trainer.workspace import Workspace

FEWEST_ROWS_FOR_ALL_WEIGHTS = 100
"""Under these the head alone is tuned of a base that knows the task (shrink.py): 16 to 36 rows took wholly tuned
ensembles to zero-shot or below it, 116 rows well above (docs/results/trainer-settings.md), and out-of-fold losses of
fewer cannot tell."""
MATCHING_TEXTS = 300
"""Texts on which offsets are matched to the prior: the mean over 300 has a standard error below 3 points."""
CALIBRATION_TEXTS = MATCHING_TEXTS
"""Texts that no pseudo-label is taken from, for the student's temperature and what offsets come to out of fold."""
PSEUDO_CANDIDATES = 2000
"""Of pseudo-labels, unless the task file says how many unlabelled texts a run gets: then all of them may be."""
TRIAL_CANDIDATES = 600
"""Of the candidates, those that every fold's teachers score where several students are tried."""

SILENT_SECONDS = 30.0
"""Between two reports of a stage that is at work; the service waits for 20 minutes (`src/learning/run-worker.ts`)."""


@dataclass(frozen=True)
class Teacher:
    """`template` is an index, for PET alone; `seed` numbers those that differ in nothing else."""

    id: str
    method: str
    template: int
    strategy: str
    seed: int = 0


class Run:
    def __init__(self, folder: Path, saving: Saving = NO_SAVING):
        self.started = time.monotonic()
        self.saving, self.place = saving, place_of()
        self.folder, self.workspace = folder, Workspace(folder)
        self.fraction = 0.0
        self.said_at = self.started
        self.seconds: dict[str, float] = {}
        self.stage, self.stage_started = "read", self.started
        self.data: RunData = read_run(folder)
        digests = {"labelled": self.data.labelled_digest, "unlabelled": self.data.unlabelled_digest}
        self.workspace.take_inputs(digests, self.place.first)
        settings, self.task = self.data.settings, self.data.task
        self.seed, self.threads = int(settings["seed"]), int(settings["threads"])
        settle(self.threads, self.place)
        self.base_folder = Path(settings["baseModel"]["folder"])
        digest = file_digest(present(self.base_folder, "model.safetensors"))
        if digest != settings["baseModel"]["digest"]:
            raise RunError(
                "BAD_INPUT", f"the base model in {self.base_folder} has digest {digest}, not the one of run.json"
            )
        self.base = load_model(self.base_folder, needs_head="pet" in self.task.methods).eval()
        longest = self.base.config.max_position_embeddings
        if self.task.max_length > longest:
            raise RunError(
                "BAD_INPUT",
                f"maxLength: {self.task.max_length} tokens are more than the {longest} that the base model in "
                f"{self.base_folder} can take",
            )
        tokenizer = load_tokenizer(self.base_folder)
        require_own_tokenizer(self.base_folder, self.base, tokenizer)
        self.renderer = Renderer(tokenizer, self.task)
        self.observe = Observations(self.task)
        self.wanted, self.classes = targets(self.task, self.data.train), self.data.classes
        self.goal = self.observe.goal(self.wanted, self.classes)
        self.balance = balance_of(self.task, self.wanted)
        self.teachers = plan_teachers(self.task)
        self.learners = {t.id: self.learner(t) for t in self.teachers}
        self.rows = [encoded(self.learners[t.id], self.data.train) for t in self.teachers]
        for teacher in self.teachers:  # what dev rows lack is better told now than when all is trained
            encoded(self.learners[teacher.id], self.data.dev)
        self.calibration, self.drawn = draw(self.data.unlabelled, self.seed)
        self.candidates = self.all_candidates()
        self.tunes_all = len(self.wanted) >= FEWEST_ROWS_FOR_ALL_WEIGHTS
        self.base_knows = True
        self.trials = len(self.task.student_strategies) * (
            len(self.task.templates) if self.task.student_templates == "all" and "pet" in self.task.methods else 1
        )
        """Students that may be tried (fewer where the best teacher's method has no templates)."""
        self.tries_students = self.trials > 1 and len(self.candidates) > 0
        self.plan = Plan(self.started, settings["budgetSeconds"])
        self.jobs: dict[str, Job] = {}
        self.owner: dict[str, int] = {}
        """Of a model that any process may train or ask: the one that does (budget.py)."""
        self.shrinkage: Shrinkage
        self.thresholds: np.ndarray | None = None
        """[C], of label sets."""
        self.served_offsets: list[np.ndarray] = []
        """[C] of each teacher."""

    def all_candidates(self) -> list[dict]:
        """Whether there is time to score them or not; `candidates` are the first of them."""
        return self.drawn[: self.task.unlabelled or PSEUDO_CANDIDATES]

    def enter(self, stage: str, fraction: float) -> None:
        now = time.monotonic()
        self.seconds[self.stage] = round(self.seconds.get(self.stage, 0.0) + now - self.stage_started, 2)
        self.stage, self.stage_started = stage, now
        self.report(fraction)

    def report(self, fraction: float, **metrics: object) -> None:
        self.fraction, self.said_at = max(self.fraction, fraction), time.monotonic()
        if self.place.first:
            self.workspace.progress(self.stage, self.fraction, metrics)

    def at_work(self) -> None:
        """Reports where nothing has been for a while: the service ends a trainer that is silent for long."""
        if time.monotonic() - self.said_at >= SILENT_SECONDS:
            self.report(self.fraction)

    def alone(self, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> list[np.ndarray]:
        """Arrays that the first process computes for all, once."""
        if not self.place.first:
            self.workspace.wait_for(name, self.at_work)
        return self.workspace.cached(name, compute)

    def shared(
        self, jobs: dict[str, Callable[[], dict[str, np.ndarray]]], on_done: Callable[[int], None] = lambda done: None
    ) -> list[list[np.ndarray]]:
        """Arrays of each job, in order, computed by the process that owns it; `on_done` gets how many there are."""
        own = [name for name in jobs if self.owns(name)]
        for done, name in enumerate(own, 1):
            self.workspace.cached(name, jobs[name])
            on_done(round(len(jobs) * done / len(own)))
        for name in jobs:
            self.workspace.wait_for(name, self.at_work)
        return [self.workspace.cached(name, compute) for name, compute in jobs.items()]

    def take(self, job: Job) -> None:
        """In the place of the job of that name."""
        self.jobs[job.name] = job
        self.plan.replace(job)

    def owns(self, name: str) -> bool:
        return self.owner.get(name, 0) == self.place.rank

    def prior_offsets(self) -> np.ndarray:
        """What balanced training leaves to be added to each label's score: the log of its share over the mean share."""
        prior = self.data.prior
        return np.zeros(self.classes) if prior is None else np.log(prior * len(prior) + 1e-12)

    def learner(self, teacher: Teacher) -> PetLearner | ClassifierLearner:
        learner = learner_of(
            self.base, self.renderer, self.task, self.classes, teacher.method, teacher.template, teacher.strategy
        )
        if isinstance(learner, PetLearner):
            learner.unlabelled = self.data.unlabelled
        return learner

    def pet(self) -> list[tuple[Teacher, PetLearner]]:
        found = ((teacher, self.learners[teacher.id]) for teacher in self.teachers)
        return [(teacher, learner) for teacher, learner in found if isinstance(learner, PetLearner)]

    def pet_rows(self) -> list[list]:
        return [rows for teacher, rows in zip(self.teachers, self.rows, strict=True) if teacher.method == "pet"]

    def trained(self, teacher: Teacher) -> tuple[PetLearner | ClassifierLearner, Any]:
        learner = self.learners[teacher.id]
        self.workspace.wait_for(teacher.id, self.at_work)
        return learner, learner.restore(self.workspace.load(teacher.id))

    def predict(
        self, learner: PetLearner | ClassifierLearner, model: Any, rows: list, fast: bool = False
    ) -> np.ndarray:
        started = time.monotonic()
        scores = learner.predict(model, rows, fast=fast, at_work=self.at_work)
        if rows:
            self.plan.inferred(learner.tokens(rows), time.monotonic() - started)
        return scores

    @contextmanager
    def told_of_divergence(self, name: str) -> Iterator[None]:
        """Says which model it was, and that those before it are kept."""
        try:
            yield
        except Diverged as error:
            finished = ", ".join(self.workspace.finished_models()) or "none yet"
            raise RunError(
                "INTERNAL",
                f"the training of {name} diverged at step {error.step}: {error}. The models that were finished before "
                f"are kept in {self.workspace.work} ({finished}); look for broken weights in the base model, or take "
                "another strategy in learning.strategies",
            ) from error

    def train(
        self,
        name: str,
        learner: PetLearner | ClassifierLearner,
        model: Any,
        rows: list,
        wanted: np.ndarray,
        balance: np.ndarray,
        seed: int,
        share: float = 1.0,
        student: bool = False,
    ) -> None:
        """Trains `model` in place, `share` of the way, for as many steps as the plan has for `name`."""
        job = self.jobs[name]
        steps = self.plan.steps(job)
        started = time.monotonic()
        taken = 0

        def on_step(step: int, loss: float) -> None:
            nonlocal taken
            taken = step
            if step % 10 == 0 or step == steps:
                self.report(self.fraction, model=name, step=step, steps=steps, loss=round(loss, 4))

        limits = {"seconds": self.plan.seconds(job, steps), "least_steps": MINIMUM_STEPS, "interpolation": share}
        settings = TrainSettings(steps=steps, seed=seed, saving=self.saving, **limits, **learner.rates(student))
        if self.saving.recompute:
            recompute(model.bert)
        with self.told_of_divergence(name):
            learner.train(model, rows, wanted, balance, settings, on_step)
        self.plan.trained(job, taken, time.monotonic() - started)
        self.workspace.took(name, taken, time.monotonic() - started, self.place.rank)


def draw(unlabelled: list[dict], seed: int) -> tuple[list[dict], list[dict]]:
    """Calibration texts, of the reservoir; and the others in random order, but for MATCHING_TEXTS of the reservoir that
    come first, so that there are some to match offsets on however few there is time for."""
    order = np.random.default_rng(seed).permutation(len(unlabelled))
    sample = order[in_reservoir(unlabelled)[order]]
    held = min(CALIBRATION_TEXTS, len(sample) // 4)
    first = sample[: held + MATCHING_TEXTS]
    rows = [unlabelled[i] for i in (*first, *order[~np.isin(order, first)])]
    return rows[:held], rows[held:]


def encoded(learner: Learner, rows: list[dict]) -> list:
    """Labelled rows as the learner has them. Raises RunError (BAD_INPUT) that names the first one that the renderer
    refuses: its words cannot be spelled, or the template is too long."""
    try:
        return learner.encode(rows)
    except ValueError:
        for row in rows:
            try:
                learner.encode([row])
            except ValueError as error:
                start = row["text"][:40]
                raise RunError("BAD_INPUT", f"templates: {error} ({row['split']} row {start!r})") from error
        raise


def plan_teachers(task: Task) -> list[Teacher]:
    """PET: one teacher a template, strategies in turn (with fewer templates than strategies, one a strategy), or the
    product of both. Other methods: one a strategy; the embedding member, which has none, once. All that for each of
    `task.seeds`, the first seed's teachers first."""
    strategies = task.strategies
    found: list[tuple[str, str, int, str]] = []
    for method in task.methods:
        if method == "pet":
            pairs = product(range(len(task.templates)), strategies) if task.teachers == "product" else _in_turn(task)
            found += [(f"t{template}-{strategy}", method, template, strategy) for template, strategy in pairs]
        else:
            chosen = ("plain",) if method == "embedding" else strategies
            found += [(f"{method}-{strategy}", method, 0, strategy) for strategy in chosen]
    return [
        Teacher(f"{name}-s{seed + 1}" if seed else name, *rest, seed)
        for seed in range(task.seeds)
        for name, *rest in found
    ]


def _in_turn(task: Task) -> list[tuple[int, str]]:
    templates, strategies = len(task.templates), task.strategies
    many = max(templates, len(strategies))
    return [(i % templates, strategies[i % len(strategies)]) for i in range(many)]


def balance_of(task: Task, wanted: np.ndarray) -> np.ndarray:
    """The class [N] that batches draw equally often: the label; of label sets a row's rarest label, or having none.

    Choices are no classes: they cannot be balanced or stratified.
    """
    if task.kind == "multiple-choice":
        return np.zeros(len(wanted), dtype=np.int64)
    if task.kind != "multi-label":
        return wanted
    counts = np.where(wanted > 0, wanted.sum(0), len(wanted) + 1)
    return np.where(wanted.any(1), counts.argmin(1), wanted.shape[1])
