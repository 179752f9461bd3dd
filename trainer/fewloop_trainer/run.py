"""One training run, from a run folder to a bundle.

    read ─▶ offsets ─▶ cross-fit ─▶ shrinkage, weights, temperature ─▶ teachers ─▶ pseudo-labels ─▶ student
         ─▶ calibrate ─▶ bundle

A teacher learns as its method does (learners.py). PET's tunes its head first (head.py), then, with rows enough to judge
that by, all weights.

Every model starts from the base and human labels, never from an earlier version. What a stage computed lies in `work/`
(workspace.py): a killed run, started again, goes on behind the last model that was finished. `result.json` is written
last.
"""

import json
import sys
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewloop_trainer import calibrate, ensemble
from fewloop_trainer.bundle import TrainedMember, write_bundle
from fewloop_trainer.data import RunData, RunError, file_digest, read_run, targets
from fewloop_trainer.distill import LABELLED_SHARE, student_targets
from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.files import write_json
from fewloop_trainer.keys import split_group
from fewloop_trainer.learners import ClassifierLearner, PetLearner, learner_of
from fewloop_trainer.observe import Observations
from fewloop_trainer.plan import MINIMUM_STEPS, Job, Plan
from fewloop_trainer.render import Renderer
from fewloop_trainer.scores import apply_temperature, combine_members, match_priors
from fewloop_trainer.select import PseudoLabel, select
from fewloop_trainer.shrink import FEWEST_MATCHING_TEXTS, OutOfFold, choose
from fewloop_trainer.task import Task
from fewloop_trainer.training import TrainSettings
from fewloop_trainer.workspace import Workspace

FOLDS = 2
"""A third would cost as many steps more as all teachers' own training takes (3 * 2/3 of them in place of 2 * 1/2)."""
FEWEST_ROWS_FOR_ALL_WEIGHTS = 100
"""Under these the head alone is tuned: 16 to 36 rows took wholly tuned ensembles to zero-shot or below it, 116 rows
well above (docs/results/trainer-settings.md), and out-of-fold losses of fewer cannot tell."""
PASSES = 6
"""Wished passes over the labelled rows; more than `MOST_STEPS` batches bring little."""
FEWEST_STEPS, MOST_STEPS = 40, 120
STUDENT_STEPS = 150
MATCHING_TEXTS = 300
"""Texts on which offsets are matched to the prior: the mean over 300 has a standard error below 3 points."""
CALIBRATION_TEXTS = MATCHING_TEXTS
"""Texts that no pseudo-label is taken from, for the student's temperature and what offsets come to out of fold."""
PSEUDO_CANDIDATES = 2000
PSEUDO_LABELS = 600
PSEUDO_SHARE = 0.15
"""Of the budget, at most, for scoring candidates of pseudo-labels."""


@dataclass(frozen=True)
class Teacher:
    """`template` is an index, for PET alone."""

    id: str
    method: str
    template: int
    strategy: str


class Run:
    def __init__(self, folder: Path):
        self.started = time.monotonic()
        self.folder, self.workspace = folder, Workspace(folder)
        self.fraction = 0.0
        self.seconds: dict[str, float] = {}
        self.stage, self.stage_started = "read", self.started
        self.data: RunData = read_run(folder)
        settings, self.task = self.data.settings, self.data.task
        self.seed, self.threads = int(settings["seed"]), int(settings["threads"])
        torch.set_num_threads(self.threads)
        self.base_folder = Path(settings["baseModel"]["folder"])
        digest = file_digest(self.base_folder / "model.safetensors")
        if digest != settings["baseModel"]["digest"]:
            raise RunError(
                "BAD_INPUT", f"the base model in {self.base_folder} has digest {digest}, not the one of run.json"
            )
        self.base = load_model(self.base_folder).eval()
        self.renderer = Renderer(load_tokenizer(self.base_folder), self.task)
        self.observe = Observations(self.task)
        self.wanted, self.classes = targets(self.task, self.data.train), self.data.classes
        self.goal = self.observe.goal(self.wanted, self.classes)
        self.balance = balance_of(self.task, self.wanted)
        self.teachers = plan_teachers(self.task)
        self.learners = {t.id: self._learner(t) for t in self.teachers}
        self.rows = [self._encode(t, self.data.train) for t in self.teachers]
        order = np.random.default_rng(self.seed).permutation(len(self.data.unlabelled))
        self.calibration = [self.data.unlabelled[i] for i in order[: min(CALIBRATION_TEXTS, len(order) // 4)]]
        self.candidates = [self.data.unlabelled[i] for i in order[len(self.calibration) :]][:PSEUDO_CANDIDATES]
        self.tunes_all = len(self.wanted) >= FEWEST_ROWS_FOR_ALL_WEIGHTS
        self.plan = Plan(self.started, settings["budgetSeconds"])

    # ---- stages

    def execute(self) -> dict[str, object]:
        self.enter("offsets", 0.02)
        offsets, base_scores = self.workspace.cached("offsets", self._offsets)
        for teacher, learner in self._pet():
            learner.offsets = self._training_offsets(offsets[teacher.template])
        self._remember()
        self._measure()
        self._make_plan()
        self.enter("cross-fit", 0.08)
        # Pairs and questions share texts: what is out of fold must be of texts that the fold has not seen.
        groups = [split_group(row["text"]) for row in self.data.train]
        fold = ensemble.folds_of(self.balance, groups, FOLDS, self.seed)
        near, far = self._cross_fit(fold)
        self.served_offsets = [self._first_offsets(t, offsets) for t in self.teachers]
        oof, held = self._choose(near, far)
        weights, weighing = ensemble.choose_weights(
            self.observe.flat(oof), self.observe.flat_wanted(self.wanted), self.observe.per_row(fold, self.classes)
        )
        out_of_fold = combine_members(oof, weights)
        temperature = self._fit_temperature(out_of_fold, self.wanted)
        tempered = self.observe.temper(out_of_fold, temperature)
        self.thresholds = calibrate.fit_thresholds(tempered, self.wanted) if self.observe.sets else None
        self.enter("teachers", 0.5)
        for number, teacher in enumerate(self.teachers):
            self._teacher(teacher, number)
        self.enter("pseudo-labels", 0.7)
        pseudo, soft, candidates = self._pseudo_labels(weights, temperature)
        self.enter("student", 0.78)
        student = self._student_of(oof)
        self._student(student, pseudo, soft)
        self.enter("calibrate", 0.92)
        dev = self._dev_distributions(weights)
        student_offsets, student_dev, student_held = self._student_distributions(student)
        student_temperature, source = self._student_temperature(
            student_dev, student_held, combine_members(held, weights), temperature
        )
        enough = len(self.wanted) >= calibrate.CALIBRATED_ROWS
        student_enough = enough if source == "matched" else len(self.data.dev) >= calibrate.CALIBRATED_ROWS
        dev_wanted = targets(self.task, self.data.dev)
        report: dict[str, object] = {
            "kind": "run",
            "labelled": len(self.wanted),
            "dev": len(self.data.dev),
            "unlabelled": len(self.data.unlabelled),
            "unlabelledDropped": self.data.dropped,
            "outOfFold": {
                "folds": int(fold.max()) + 1,
                "zeroShot": self._zero_shot(base_scores, offsets, weights),
                "shrinkage": asdict(self.shrinkage),
                "members": {t.id: self._evaluate(p, self.wanted) for t, p in zip(self.teachers, oof, strict=True)},
                "ensemble": self._evaluate(tempered, self.wanted),
                "shortlistRecall": self._shortlist_recall(oof),
                "rows": [
                    {"itemKey": row.get("itemKey"), **answer_of(row), "distribution": [float(x) for x in p]}
                    for row, p in zip(self.data.train, tempered, strict=True)
                ],
            },
            "onDev": {
                "ensemble": self._evaluate(self.observe.temper(dev, temperature), dev_wanted),
                "student": self._evaluate(self.observe.temper(student_dev, student_temperature), dev_wanted),
            },
            "weights": weighing | {t.id: float(w) for t, w in zip(self.teachers, weights, strict=True)},
            "temperature": {"ensemble": temperature, "student": student_temperature, "studentFrom": source},
            "pseudoLabels": {
                "candidates": candidates,
                "selected": len(pseudo),
                "byLabel": dict(Counter(self._label_of(p) for p in pseudo)) if self.data.prior is not None else None,
                "byRule": dict(Counter(p.rule for p in pseudo)),
            },
        }
        policies = {
            "ensemble": {"temperature": temperature, "calibrated": enough},
            "student": {"temperature": student_temperature, "calibrated": student_enough},
        }
        self.enter("bundle", 0.94)
        report |= {"steps": self.workspace.steps_taken(list(self.jobs)), "seconds": self.seconds}
        write_bundle(
            self.folder / "bundle",
            self.data,
            self._members(weights, student, student_offsets),
            policies,
            self.thresholds,
            report,
            len(pseudo),
            self.threads,
        )
        self.enter("done", 1.0)
        summary = {key: report[key] for key in ("labelled", "onDev", "weights", "temperature", "pseudoLabels")}
        folded = {k: v for k, v in report["outOfFold"].items() if k != "rows"}  # type: ignore[union-attr]
        return {
            "ok": True,
            "version": self.data.settings["version"],
            "bundle": "bundle",
            "report": summary | {"outOfFold": folded, "seconds": round(time.monotonic() - self.started, 1)},
        }

    def enter(self, stage: str, fraction: float) -> None:
        now = time.monotonic()
        self.seconds[self.stage] = round(self.seconds.get(self.stage, 0.0) + now - self.stage_started, 2)
        self.stage, self.stage_started = stage, now
        self.report(fraction)

    def report(self, fraction: float, **metrics: object) -> None:
        self.fraction = max(self.fraction, fraction)
        self.workspace.progress(self.stage, self.fraction, metrics)

    # ---- offsets

    def _offsets(self) -> dict[str, np.ndarray]:
        """Offsets [templates, C] at which the base model's predictions match the prior, and its scores of the labelled
        rows [PET teachers, N, C]: the zero-shot that training starts from."""
        # With hardly any unlabelled text the labelled rows have to do: they are balanced by nothing but chance.
        rows = self.data.unlabelled if len(self.data.unlabelled) >= 50 else [*self.data.unlabelled, *self.data.train]
        chosen = np.random.default_rng(self.seed + 1).permutation(len(rows))[:MATCHING_TEXTS]
        offsets = np.zeros((len(self.task.templates), self.classes))
        scores: dict[int, np.ndarray] = {}
        for teacher, learner in self._pet():
            if teacher.template in scores:
                continue
            if self.data.prior is not None:
                texts = learner.encode([rows[i] for i in chosen])
                offsets[teacher.template] = match_priors(
                    self._predict(learner, self.base, texts, fast=True), self.data.prior
                )
            scores[teacher.template] = self._predict(learner, self.base, learner.encode(self.data.train))
        of_teachers = [scores[t.template] for t, _ in self._pet()]
        return {
            "offsets": offsets,
            "rows": np.stack(of_teachers) if of_teachers else np.zeros((0, len(self.wanted), self.classes)),
        }

    def _training_offsets(self, offsets: np.ndarray) -> np.ndarray:
        """Offsets in training: batches are balanced, so the prior's own part is left to serving."""
        return offsets - self._prior_offsets()

    def _prior_offsets(self) -> np.ndarray:
        """What balanced training leaves to be added to each label's score: the log of its share over the mean share."""
        prior = self.data.prior
        return np.zeros(self.classes) if prior is None else np.log(prior * len(prior) + 1e-12)

    def _first_offsets(self, teacher: Teacher, offsets: np.ndarray) -> np.ndarray:
        return offsets[teacher.template] if teacher.method == "pet" else self._prior_offsets()

    def _remember(self) -> None:
        """Teachers of one template share what the base's encoder says of their rows."""
        remembered: dict[int, PetLearner] = {}
        for (teacher, learner), rows in zip(self._pet(), self._pet_rows(), strict=True):
            if teacher.template in remembered:
                learner.share(remembered[teacher.template], rows)
            else:
                learner.remember(rows)
                remembered[teacher.template] = learner

    # ---- budget

    def _measure(self) -> None:
        """The cost of a step, on a copy that is thrown away."""
        learner, rows = self.learners[self.teachers[0].id], self.rows[0]
        model = learner.start()
        if self.plan.infer_cost == 0:  # the offsets came from an earlier attempt, or nothing had any
            self._predict(learner, model, rows[:32])
        first = None
        seconds: list[float] = []

        def on_step(step: int, loss: float) -> None:
            nonlocal first
            now = time.monotonic()
            if first is not None:
                seconds.append(now - first)
            first = now

        settings = TrainSettings(steps=4, seed=self.seed)
        learner.train(model, rows, self.goal, np.zeros(len(rows), int), settings, on_step)
        self.plan.train_cost = float(np.mean(seconds)) / learner.step_tokens(rows)

    def _make_plan(self) -> None:
        wished = int(np.clip(PASSES * len(self.wanted) / TrainSettings.batch_rows, FEWEST_STEPS, MOST_STEPS))
        jobs = []
        for teacher, rows in zip(self.teachers, self.rows, strict=True):
            learner = self.learners[teacher.id]
            tokens, steps = learner.step_tokens(rows), learner.wished_steps(wished)
            share = (FOLDS - 1) / FOLDS  # as many passes over fewer rows
            if self.tunes_all or not learner.knows:
                jobs += [Job(f"{teacher.id}.fold{k}", max(20, int(steps * share)), tokens) for k in range(FOLDS)]
                jobs.append(Job(teacher.id, steps, tokens))
        first = self.learners[self.teachers[0].id]
        steps = first.wished_steps(STUDENT_STEPS if self.candidates else wished)
        jobs.append(Job("student", steps, first.step_tokens(self.rows[0]) / first.passes))
        self.jobs = {job.name: job for job in jobs}
        self.plan.waiting = [job for job in jobs if not self.workspace.finished(job.name)]
        self.candidates = self._affordable_candidates()
        passes = 2 if self.tunes_all else 1
        texts = len(self.candidates) + passes * (len(self.wanted) + len(self.calibration))
        per_text = self._tokens_a_text()
        self.plan.infer_tokens = per_text * texts + (per_text + 100) * len(self.data.dev)
        self.report(
            0.06,
            trainTokensPerSecond=round(1 / self.plan.train_cost),
            inferTokensPerSecond=round(1 / self.plan.infer_cost),
            pseudoCandidates=len(self.candidates),
        )

    def _tokens_a_text(self) -> float:
        """Of all teachers together."""
        each = (self.learners[t.id].tokens(rows) / len(rows) for t, rows in zip(self.teachers, self.rows, strict=True))
        return float(sum(each))

    def _affordable_candidates(self) -> list[dict]:
        cost = self._tokens_a_text() * self.plan.infer_cost
        affordable = PSEUDO_SHARE * self.data.settings["budgetSeconds"] / max(1e-9, cost)
        return self.candidates[: max(20, int(affordable))]

    # ---- models

    def _train(
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
        settings = TrainSettings(steps=steps, seed=seed, **limits, **learner.rates(student))
        learner.train(model, rows, wanted, balance, settings, on_step)
        self.plan.trained(job, taken, time.monotonic() - started)
        self.workspace.took(name, taken, time.monotonic() - started)

    def _cross_fit(self, fold: np.ndarray) -> tuple[OutOfFold, OutOfFold | None]:
        """What first-stage and wholly tuned models say of rows and texts that they have not seen; scores.

        Each text is judged by one fold's model, which has seen as many labels as those that judged the rows.
        """
        of_rows = len(self.teachers), len(self.wanted), self.classes
        of_texts = len(self.teachers), len(self.calibration), self.classes
        found = [OutOfFold(np.zeros(of_rows), np.zeros(of_texts)) for _ in range(2 if self.tunes_all else 1)]
        folds = int(fold.max()) + 1
        fold_of_text = np.arange(len(self.calibration)) % folds
        for number, teacher in enumerate(self.teachers):
            for k in range(folds):
                name, seed = f"{teacher.id}.fold{k}", self.seed + 101 * number + k + 1
                compute = partial(self._fold, name, number, seed, fold != k, fold_of_text == k)
                rows, texts = self.workspace.cached(name, compute)
                for part, said_of_rows, said_of_texts in zip(found, rows, texts, strict=True):
                    part.rows[number, fold == k], part.texts[number, fold_of_text == k] = said_of_rows, said_of_texts
                self.report(0.08 + 0.42 * (number * folds + k + 1) / (len(self.teachers) * folds))
        return found[0], found[1] if self.tunes_all else None

    def _fold(
        self, name: str, number: int, seed: int, kept: np.ndarray, own_texts: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Scores [1 or 2, n, C] of the rows that are not `kept`, and of `own_texts`: by the head-tuned model and, where
        all weights are tuned, by the wholly tuned one. A method that has one stage says the same twice."""
        learner, encoded = self.learners[self.teachers[number].id], self.rows[number]
        asked = [encoded[i] for i in np.flatnonzero(~kept)]
        texts = learner.encode([self.calibration[i] for i in np.flatnonzero(own_texts)])
        index, model = np.flatnonzero(kept), learner.start()

        def ask() -> tuple[np.ndarray, np.ndarray]:
            return self._predict(learner, model, asked), self._predict(learner, model, texts, fast=True)

        said = []
        if isinstance(learner, PetLearner):
            self._tune_head(learner, model, number, index, seed)
            said.append(ask())
        if self.tunes_all or not learner.knows:
            rows = [encoded[i] for i in index]
            self._train(name, learner, model, rows, self.goal[index], self.balance[index], seed)
            said.append(ask())
        if not learner.knows and self.tunes_all:
            said.append(said[0])
        return {"rows": np.stack([rows for rows, _ in said]), "texts": np.stack([texts for _, texts in said])}

    def _tune_head(self, learner: PetLearner, model: Any, number: int, index: np.ndarray, seed: int) -> None:
        rows = [self.rows[number][i] for i in index]
        learner.tune_head(model, rows, self.wanted[index], self.balance[index], seed)

    def _choose(self, near: OutOfFold, far: OutOfFold | None) -> tuple[np.ndarray, np.ndarray]:
        """Shrinkage; the probabilities [T, N, C] and [T, M, C] of rows and texts out of fold."""
        # Too few candidates to match on later: then not here either.
        prior = self.data.prior if len(self.candidates) >= FEWEST_MATCHING_TEXTS else None
        by_teacher = np.stack(self.served_offsets)

        def flat(part: OutOfFold) -> OutOfFold:
            moved = by_teacher[:, None]
            return OutOfFold(self.observe.flat_scores(part.rows, moved), self.observe.flat_scores(part.texts, moved))

        offsets = np.zeros((len(by_teacher), 2)) if self.observe.sets else by_teacher
        wanted = self.observe.flat_wanted(self.wanted)
        found = choose(flat(near), None if far is None else flat(far), offsets, prior, wanted)
        self.shrinkage, oof, held = found
        return self.observe.whole(oof, self.classes), self.observe.whole(held, self.classes)

    def _teacher(self, teacher: Teacher, number: int) -> None:
        if not self.workspace.finished(teacher.id):
            learner, everything, seed = self.learners[teacher.id], np.arange(len(self.wanted)), self.seed + 101 * number
            model = learner.start()
            if isinstance(learner, PetLearner):
                self._tune_head(learner, model, number, everything, seed)
            share = self.shrinkage.share if learner.knows else 1.0
            if share > 0:
                self._train(teacher.id, learner, model, self.rows[number], self.goal, self.balance, seed, share)
            elif self.tunes_all:
                self.plan.done(self.jobs[teacher.id])
            self.workspace.save(teacher.id, learner.state(model))
        self.report(0.5 + 0.2 * (number + 1) / len(self.teachers))

    def _pseudo_labels(self, weights: np.ndarray, temperature: float) -> tuple[list[PseudoLabel], np.ndarray, int]:
        """Selected candidates, their soft labels [selected, C], and how many candidates there were.

        Thresholds are of calibrated confidence: untempered, teachers fitted to few rows are sure of nearly all.
        """
        if not self.candidates:
            return [], np.zeros((0, self.classes)), 0

        def compute() -> dict[str, np.ndarray]:
            self.candidates = self._affordable_candidates()  # the machine may have turned slow
            scores = np.zeros((len(self.teachers), len(self.candidates), self.classes))
            for number, teacher in enumerate(self.teachers):
                learner, model = self._trained(teacher)
                scores[number] = self._predict(learner, model, learner.encode(self.candidates), fast=True)
                self.report(0.7 + 0.08 * (number + 1) / len(self.teachers))
            return {"logits": scores}

        (scores,) = self.workspace.cached("pseudo", compute)
        # An earlier attempt on another machine's speed may have scored another number of candidates.
        self.candidates = self._all_candidates()[: scores.shape[1]]
        if self.shrinkage.matched and self.data.prior is not None:
            self.served_offsets = [match_priors(x, self.data.prior) for x in scores]
        members = np.stack([self.observe.probabilities(x, o) for x, o in zip(scores, self.served_offsets, strict=True)])
        tempered = np.stack([self.observe.temper(p, temperature) for p in members])
        combined = self.observe.temper(combine_members(members, weights), temperature)
        chosen = select(tempered, combined, self.task.selection, self.data.prior, PSEUDO_LABELS, self.thresholds)
        lines = [
            {
                "itemKey": self.candidates[p.row].get("itemKey"),
                **self._pseudo_answer(p, combined),
                "confidence": p.confidence,
                "contested": p.contested,
                "rule": p.rule,
                "teachers": [t.id for t in self.teachers],
            }
            for p in chosen
        ]
        (self.folder / "pseudo-labels.jsonl").write_text(
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        )
        return chosen, combined[[p.row for p in chosen]], len(self.candidates)

    def _pseudo_answer(self, pseudo: PseudoLabel, combined: np.ndarray) -> dict[str, object]:
        if not self.observe.sets:
            return {"label": self._label_of(pseudo)}
        chosen = np.flatnonzero(combined[pseudo.row] >= self.thresholds)
        return {"labels": [self.task.label_names[label] for label in chosen]}

    def _student_of(self, oof: np.ndarray) -> Teacher:
        """The student learns as the teacher does that is best out of fold, without its strategy."""
        wanted = self.observe.flat_wanted(self.wanted)
        best = self.teachers[int(np.argmin([_log_loss(self.observe.flat(p), wanted) for p in oof]))]
        student = Teacher("student", best.method, best.template, "plain")
        learner = self._learner(student)
        if isinstance(learner, PetLearner):
            learner.offsets = self.learners[best.id].offsets
        self.learners["student"] = learner
        return student

    def _student(self, student: Teacher, pseudo: list[PseudoLabel], soft: np.ndarray) -> None:
        if self.workspace.finished("student"):
            return
        learner = self.learners["student"]
        texts = learner.encode([self.candidates[p.row] for p in pseudo])
        share = min(LABELLED_SHARE, PASSES * len(self.wanted) / (STUDENT_STEPS * TrainSettings.batch_rows))
        wanted, groups = student_targets(self.balance, self.goal, soft, share)
        rows, model = [*learner.encode(self.data.train), *texts], learner.start()
        self._train("student", learner, model, rows, wanted, groups, self.seed + 10_007, student=True)
        self.workspace.save("student", learner.state(model))

    def _student_distributions(self, student: Teacher) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The student's offsets [C], and its probabilities of the dev rows and of the calibration texts."""
        learner, model = self._trained(student)
        # Until they are matched anew, those of training and the prior's part.
        offsets = self._prior_offsets() + (learner.offsets if isinstance(learner, PetLearner) else 0.0)
        texts = self._predict(learner, model, learner.encode(self.calibration))
        if self.shrinkage.matched and self.data.prior is not None and len(texts) >= FEWEST_MATCHING_TEXTS:
            offsets = match_priors(texts, self.data.prior)
        dev = self._predict(learner, model, learner.encode(self.data.dev))
        return offsets, self.observe.probabilities(dev, offsets), self.observe.probabilities(texts, offsets)

    def _dev_distributions(self, weights: np.ndarray) -> np.ndarray:
        if not self.data.dev:
            return np.zeros((0, self.classes))
        members = []
        for teacher, offsets in zip(self.teachers, self.served_offsets, strict=True):
            learner, model = self._trained(teacher)
            scores = self._predict(learner, model, learner.encode(self.data.dev))
            members.append(self.observe.probabilities(scores, offsets))
        return combine_members(np.stack(members), weights)

    def _student_temperature(
        self, dev: np.ndarray, held: np.ndarray, teachers: np.ndarray, temperature: float
    ) -> tuple[float, str]:
        if len(self.data.dev) >= calibrate.CALIBRATED_ROWS:
            return self._fit_temperature(dev, targets(self.task, self.data.dev)), "dev"
        if not len(held):
            return temperature, "ensemble"
        teachers, held = self.observe.flat(teachers), self.observe.flat(held)
        confidence = float(apply_temperature(teachers, temperature).max(-1).mean())
        return calibrate.match_confidence(held, confidence), "matched"

    def _fit_temperature(self, probabilities: np.ndarray, wanted: np.ndarray) -> float:
        return calibrate.fit_temperature(self.observe.flat(probabilities), self.observe.flat_wanted(wanted))

    def _zero_shot(self, scores: np.ndarray, offsets: np.ndarray, weights: np.ndarray) -> dict[str, object] | None:
        """Out of fold, since it has seen no row; None where no member knows anything before it is trained."""
        own = [(t, w) for t, w in zip(self.teachers, weights, strict=True) if t.method == "pet"]
        if not own:
            return None
        of_teachers = np.stack(
            [self.observe.probabilities(x, offsets[t.template]) for x, (t, _) in zip(scores, own, strict=True)]
        )
        shares = [w for _, w in own] if sum(w for _, w in own) > 0 else [1.0] * len(own)
        return self._evaluate(combine_members(of_teachers, shares), self.wanted)

    def _shortlist_recall(self, oof: np.ndarray) -> dict[str, float]:
        """Of members that ask about a shortlist of labels: the share of right labels that are in it."""
        right = self.goal > 0
        return {
            t.id: float((p[right] > 0).mean())
            for t, p in zip(self.teachers, oof, strict=True)
            if getattr(self.learners[t.id], "lists", False) and right.any()
        }

    def _evaluate(self, probabilities: np.ndarray, wanted: np.ndarray) -> dict[str, object]:
        return self.observe.evaluate(probabilities, wanted, self.thresholds)

    def _members(self, weights: np.ndarray, student: Teacher, student_offsets: np.ndarray) -> list[TrainedMember]:
        def member(teacher: Teacher, role: str, weight: float, offsets: np.ndarray) -> TrainedMember:
            learner = self.learners[teacher.id]
            served = offsets if self.data.prior is not None else None
            return TrainedMember(teacher.id, role, learner, weight, served, lambda: self._trained(teacher)[1])

        teachers = [
            member(t, "teacher", w, o) for t, w, o in zip(self.teachers, weights, self.served_offsets, strict=True)
        ]
        return [*teachers, member(student, "student", 1.0, student_offsets)]

    # ---- helpers

    def _learner(self, teacher: Teacher) -> PetLearner | ClassifierLearner:
        return learner_of(
            self.base, self.renderer, self.task, self.classes, teacher.method, teacher.template, teacher.strategy
        )

    def _pet(self) -> list[tuple[Teacher, PetLearner]]:
        found = ((teacher, self.learners[teacher.id]) for teacher in self.teachers)
        return [(teacher, learner) for teacher, learner in found if isinstance(learner, PetLearner)]

    def _pet_rows(self) -> list[list]:
        return [rows for teacher, rows in zip(self.teachers, self.rows, strict=True) if teacher.method == "pet"]

    def _trained(self, teacher: Teacher) -> tuple[PetLearner | ClassifierLearner, Any]:
        learner = self.learners[teacher.id]
        return learner, learner.restore(self.workspace.load(teacher.id))

    def _predict(
        self, learner: PetLearner | ClassifierLearner, model: Any, rows: list, fast: bool = False
    ) -> np.ndarray:
        started = time.monotonic()
        scores = learner.predict(model, rows, fast=fast)
        if rows:
            self.plan.inferred(learner.tokens(rows), time.monotonic() - started)
        return scores

    def _encode(self, teacher: Teacher, rows: list[dict]) -> list:
        return self.learners[teacher.id].encode(rows)

    def _all_candidates(self) -> list[dict]:
        order = np.random.default_rng(self.seed).permutation(len(self.data.unlabelled))
        return [self.data.unlabelled[i] for i in order[len(self.calibration) :]][:PSEUDO_CANDIDATES]

    def _label_of(self, pseudo: PseudoLabel) -> str:
        return self.task.labels_of(self.candidates[pseudo.row])[pseudo.label]


def run(folder: Path) -> int:
    """Runs the folder to its end; the exit status. Errors become result.json."""
    (folder / "result.json").unlink(missing_ok=True)
    try:
        result = Run(folder).execute()
    except RunError as error:
        result = {"ok": False, "code": error.code, "message": str(error)}
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        result = {"ok": False, "code": "INTERNAL", "message": f"{type(error).__name__}: {error}"}
    write_json(folder / "result.json", result)
    return 0 if result["ok"] else 1


def plan_teachers(task: Task) -> list[Teacher]:
    """PET: one teacher a template, strategies in turn; with fewer templates than strategies, one a strategy. Other
    methods: one a strategy; the embedding member, which has none, once."""
    strategies, teachers = task.strategies, []
    for method in task.methods:
        if method == "pet":
            templates = len(task.templates)
            for i in range(max(templates, len(strategies))):
                template, strategy = i % templates, strategies[i % len(strategies)]
                teachers.append(Teacher(f"t{template}-{strategy}", method, template, strategy))
        else:
            chosen = ("plain",) if method == "embedding" else strategies
            teachers += [Teacher(f"{method}-{strategy}", method, 0, strategy) for strategy in chosen]
    return teachers


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


def answer_of(row: dict) -> dict[str, object]:
    """What a person said of it: `label`, or `labels` of a label set."""
    return {key: row[key] for key in ("label", "labels") if key in row}


def _log_loss(distribution: np.ndarray, wanted: np.ndarray) -> float:
    return float(-np.log(distribution[np.arange(len(wanted)), wanted] + 1e-12).mean())
