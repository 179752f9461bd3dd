"""One training run, from a run folder to a bundle.

    read ─▶ offsets ─▶ cross-fit ─▶ shrinkage, weights, temperature ─▶ teachers ─▶ pseudo-labels ─▶ student
         ─▶ calibrate ─▶ bundle

A teacher tunes its head first (head.py), then, with rows enough to judge that by, all weights (pet.py).

Every model starts from the base and human labels, never from an earlier version. What a stage computed lies in
`work/`, written whole or not at all: a killed run, started again, goes on behind the last model that was finished.
`result.json` is written last.
"""

import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM

from fewloop_trainer import calibrate, ensemble, head, pet
from fewloop_trainer.augment import parse_strategy
from fewloop_trainer.bundle import TrainedMember, write_bundle
from fewloop_trainer.data import RunData, RunError, file_digest, read_run, targets
from fewloop_trainer.distill import LABELLED_SHARE, student_targets
from fewloop_trainer.encoder import copy_of, load_model, load_tokenizer
from fewloop_trainer.evaluate import evaluate
from fewloop_trainer.export import round_to_half
from fewloop_trainer.files import write_json
from fewloop_trainer.keys import split_group
from fewloop_trainer.plan import MINIMUM_STEPS, Job, Plan
from fewloop_trainer.render import Renderer
from fewloop_trainer.scores import apply_temperature, combine_members, distribution_of, match_priors
from fewloop_trainer.select import PseudoLabel, select
from fewloop_trainer.shrink import FEWEST_MATCHING_TEXTS, OutOfFold, choose

FOLDS = 2
"""A third would cost as many steps more as all teachers' own training takes (3 * 2/3 of them in place of 2 * 1/2)."""
FEWEST_ROWS_FOR_ALL_WEIGHTS = 100
"""Under these the head alone is tuned: 16 to 36 rows took wholly tuned ensembles to zero-shot or below it, 116 rows
well above (docs/results/trainer-settings.md), and out-of-fold losses of fewer cannot tell."""
PASSES = 6
"""Wished passes over the labelled rows; more than `MOST_STEPS` batches bring little."""
FEWEST_STEPS, MOST_STEPS = 40, 120
STUDENT_STEPS = 150
TEACHER = {"encoder_rate": 1.2e-4, "head_rate": 1.2e-4}
"""Fast: how far teachers then go from the base is chosen by what is out of fold (docs/results/trainer-settings.md)."""
STUDENT: dict[str, float] = {}
"""Hundreds of texts teach it: it may go all the way."""
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
    id: str
    template: int
    strategy: str


class Run:
    def __init__(self, folder: Path):
        self.started = time.monotonic()
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir(exist_ok=True)
        self.fraction = 0.0
        self.seconds: dict[str, float] = {}
        self.stage, self.stage_started = "read", self.started
        self.data: RunData = read_run(folder)
        settings, self.task = self.data.settings, self.data.task
        self.seed, self.threads = int(settings["seed"]), int(settings["threads"])
        torch.set_num_threads(self.threads)
        base = Path(settings["baseModel"]["folder"])
        digest = file_digest(base / "model.safetensors")
        if digest != settings["baseModel"]["digest"]:
            raise RunError("BAD_INPUT", f"the base model in {base} has digest {digest}, not the one of run.json")
        self.base = load_model(base).eval()
        self.renderer = Renderer(load_tokenizer(base), self.task)
        self.wanted = targets(self.task, self.data.train)
        self.classes = self.data.classes
        self.has_prior = self.data.prior is not None
        # Choices are no classes: they cannot be balanced or stratified.
        self.balance = self.wanted if self.has_prior else np.zeros(len(self.wanted), dtype=np.int64)
        self.teachers = plan_teachers(len(self.task.templates), self.task.strategies)
        self.rows = [self._encode(t, self.data.train) for t in range(len(self.task.templates))]
        self.dev = [self._encode(t, self.data.dev) for t in range(len(self.task.templates))]
        order = np.random.default_rng(self.seed).permutation(len(self.data.unlabelled))
        self.calibration = [self.data.unlabelled[i] for i in order[: min(CALIBRATION_TEXTS, len(order) // 4)]]
        self.candidates = [self.data.unlabelled[i] for i in order[len(self.calibration) :]][:PSEUDO_CANDIDATES]
        self.tunes_all = len(self.wanted) >= FEWEST_ROWS_FOR_ALL_WEIGHTS
        self.plan = Plan(self.started, settings["budgetSeconds"])

    # ---- stages

    def execute(self) -> dict[str, object]:
        self.enter("offsets", 0.02)
        self.offsets, base_rows = self._cached("offsets", self._offsets)
        self.hidden = [head.hidden_at_masks(self.base, rows) for rows in self.rows]
        self._measure()
        self._make_plan()
        self.enter("cross-fit", 0.08)
        # Pairs and questions share texts: what is out of fold must be of texts that the fold has not seen.
        groups = [split_group(row["text"]) for row in self.data.train]
        fold = ensemble.folds_of(self.balance, groups, FOLDS, self.seed)
        near, far = self._cross_fit(fold)
        by_teacher = np.stack([self.offsets[t.template] for t in self.teachers])
        # Too few candidates to match on later: then not here either.
        prior = self.data.prior if len(self.candidates) >= FEWEST_MATCHING_TEXTS else None
        self.shrinkage, oof, held = choose(near, far, by_teacher, prior, self.wanted)
        weights, weighing = ensemble.choose_weights(oof, self.wanted, fold)
        out_of_fold = combine_members(oof, weights)
        temperature = calibrate.fit_temperature(out_of_fold, self.wanted)
        self.teacher_offsets = [*by_teacher]
        self.enter("teachers", 0.5)
        for number, teacher in enumerate(self.teachers):
            self._teacher(teacher, number)
        self.enter("pseudo-labels", 0.7)
        pseudo, soft, candidates = self._pseudo_labels(weights, temperature)
        self.enter("student", 0.78)
        best = int(np.argmin([_log_loss(p, self.wanted) for p in oof]))
        template = self.teachers[best].template
        self._student(template, pseudo, soft)
        self.enter("calibrate", 0.92)
        dev = self._dev_distributions(weights)
        student_offsets, student_dev, student_held = self._student_distributions(template)
        student_temperature, source = self._student_temperature(
            student_dev, student_held, combine_members(held, weights), temperature
        )
        enough = len(self.wanted) >= calibrate.CALIBRATED_ROWS
        student_enough = enough if source == "matched" else len(self.data.dev) >= calibrate.CALIBRATED_ROWS
        dev_wanted = targets(self.task, self.data.dev)
        zero_shot = np.stack([distribution_of(x, o) for x, o in zip(base_rows, by_teacher, strict=True)])
        tempered = apply_temperature(out_of_fold, temperature)
        report: dict[str, object] = {
            "kind": "run",
            "labelled": len(self.wanted),
            "dev": len(self.data.dev),
            "unlabelled": len(self.data.unlabelled),
            "unlabelledDropped": self.data.dropped,
            "outOfFold": {
                "folds": int(fold.max()) + 1,
                "zeroShot": evaluate(combine_members(zero_shot, weights), self.wanted),
                "shrinkage": asdict(self.shrinkage),
                "members": {t.id: evaluate(p, self.wanted) for t, p in zip(self.teachers, oof, strict=True)},
                "ensemble": evaluate(tempered, self.wanted),
                "rows": [
                    {"itemKey": row.get("itemKey"), "label": row["label"], "distribution": [float(x) for x in p]}
                    for row, p in zip(self.data.train, tempered, strict=True)
                ],
            },
            "onDev": {
                "ensemble": evaluate(apply_temperature(dev, temperature), dev_wanted),
                "student": evaluate(apply_temperature(student_dev, student_temperature), dev_wanted),
            },
            "weights": weighing | {t.id: float(w) for t, w in zip(self.teachers, weights, strict=True)},
            "temperature": {"ensemble": temperature, "student": student_temperature, "studentFrom": source},
            "pseudoLabels": {
                "candidates": candidates,
                "selected": len(pseudo),
                "byLabel": dict(Counter(self._label_of(p) for p in pseudo)) if self.has_prior else None,
                "byRule": dict(Counter(p.rule for p in pseudo)),
            },
        }
        policies = {
            "ensemble": {"temperature": temperature, "calibrated": enough},
            "student": {"temperature": student_temperature, "calibrated": student_enough},
        }
        self.enter("bundle", 0.94)
        report |= {"steps": self._steps_taken(), "seconds": self.seconds}
        write_bundle(
            self.folder / "bundle",
            self.data,
            self.renderer,
            self.base,
            self._members(weights, template, student_offsets),
            policies,
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
        write_progress(self.folder, self.stage, self.fraction, metrics)

    # ---- offsets

    def _offsets(self) -> dict[str, np.ndarray]:
        """Offsets [templates, C] at which the base model's predictions match the prior, and its logits of the labelled
        rows [teachers, N, C]: the zero-shot that training starts from."""
        # With hardly any unlabelled text the labelled rows have to do: they are balanced by nothing but chance.
        rows = self.data.unlabelled if len(self.data.unlabelled) >= 50 else [*self.data.unlabelled, *self.data.train]
        chosen = np.random.default_rng(self.seed + 1).permutation(len(rows))[:MATCHING_TEXTS]
        offsets = np.zeros((len(self.task.templates), self.classes))
        if self.data.prior is not None:
            for t in range(len(offsets)):
                logits = self._predict(self.base, self._encode(t, [rows[i] for i in chosen]), fast=True)
                offsets[t] = match_priors(logits, self.data.prior)
        logits = [self._predict(self.base, rows) for rows in self.rows]
        return {"offsets": offsets, "rows": np.stack([logits[t.template] for t in self.teachers])}

    def _training_offsets(self, template: int) -> np.ndarray:
        """Offsets in training: batches are balanced, so the prior's own part is left to serving."""
        prior = self.data.prior
        return self.offsets[template] if prior is None else self.offsets[template] - np.log(prior * len(prior) + 1e-12)

    # ---- budget

    def _measure(self) -> None:
        """The cost of a step, on a copy that is thrown away."""
        if self.plan.infer_cost == 0:  # the offsets came from an earlier attempt
            self._predict(self.base, self.rows[0][:32])
        model = copy_of(self.base)
        rows = self.rows[0]
        first = None
        seconds: list[float] = []

        def on_step(step: int, loss: float) -> None:
            nonlocal first
            now = time.monotonic()
            if first is not None:
                seconds.append(now - first)
            first = now

        settings = pet.TrainSettings(steps=4, seed=self.seed)
        pet.train(model, rows, np.eye(self.classes)[self.wanted], "plain", settings, self._training_offsets(0), on_step)
        tokens = settings.batch_rows * _mean_length(rows)
        self.plan.train_cost = float(np.mean(seconds)) / tokens

    def _make_plan(self) -> None:
        wished = int(np.clip(PASSES * len(self.wanted) / pet.TrainSettings.batch_rows, FEWEST_STEPS, MOST_STEPS))
        jobs = []
        for teacher in self.teachers:
            tokens = self._step_tokens(teacher)
            share = (FOLDS - 1) / FOLDS  # as many passes over fewer rows
            if self.tunes_all:
                jobs += [Job(f"{teacher.id}.fold{k}", max(20, int(wished * share)), tokens) for k in range(FOLDS)]
                jobs.append(Job(teacher.id, wished, tokens))
        jobs.append(Job("student", STUDENT_STEPS if self.candidates else wished, self._step_tokens(self.teachers[0])))
        self.jobs = {job.name: job for job in jobs}
        self.plan.waiting = [job for job in jobs if not self._finished(job.name)]
        per_text = sum(_mean_length(self.rows[t.template]) for t in self.teachers)
        self.candidates = self._affordable_candidates()
        passes = 2 if self.tunes_all else 1
        self.plan.infer_tokens = per_text * (len(self.candidates) + passes * (len(self.wanted) + len(self.calibration)))
        self.plan.infer_tokens += (per_text + 100) * len(self.data.dev)
        self.report(
            0.06,
            trainTokensPerSecond=round(1 / self.plan.train_cost),
            inferTokensPerSecond=round(1 / self.plan.infer_cost),
            pseudoCandidates=len(self.candidates),
        )

    def _affordable_candidates(self) -> list[dict]:
        per_text = sum(_mean_length(self.rows[t.template]) for t in self.teachers)
        affordable = PSEUDO_SHARE * self.data.settings["budgetSeconds"] / max(1e-9, per_text * self.plan.infer_cost)
        return self.candidates[: max(20, int(affordable))]

    def _step_tokens(self, teacher: Teacher) -> float:
        return (
            parse_strategy(teacher.strategy).passes
            * pet.TrainSettings.batch_rows
            * _mean_length(self.rows[teacher.template])
        )

    # ---- models

    def _tune_head(self, teacher: Teacher, kept: np.ndarray, seed: int) -> BertForMaskedLM:
        """The base with its head tuned on the rows `kept`."""
        model, rows, hidden = copy_of(self.base), self.rows[teacher.template], self.hidden[teacher.template]
        kept_rows, kept_hidden = [rows[i] for i in kept], [hidden[i] for i in kept]
        offsets = self._training_offsets(teacher.template)
        head.tune(model, kept_rows, kept_hidden, self.wanted[kept], offsets, self.balance[kept], seed)
        return model

    def _tune_all(
        self, name: str, model: BertForMaskedLM, teacher: Teacher, kept: np.ndarray, seed: int, share: float = 1.0
    ) -> None:
        """Goes on with all weights of `model`, `share` of the way."""
        rows, hard = [self.rows[teacher.template][i] for i in kept], np.eye(self.classes)[self.wanted[kept]]
        rates = TEACHER | {"interpolation": share}
        self._train(name, model, teacher.template, rows, hard, teacher.strategy, self.balance[kept], seed, rates)

    def _train(
        self,
        name: str,
        model: BertForMaskedLM,
        template: int,
        rows: list,
        wanted: np.ndarray,
        strategy: str,
        balance: np.ndarray,
        seed: int,
        rates: dict[str, float],
    ) -> None:
        """Trains all weights of `model` in place, for as many steps as the plan has for `name`."""
        job = self.jobs[name]
        steps = self.plan.steps(job)
        started = time.monotonic()

        taken = 0

        def on_step(step: int, loss: float) -> None:
            nonlocal taken
            taken = step
            if step % 10 == 0 or step == steps:
                self.report(self.fraction, model=name, step=step, steps=steps, loss=round(loss, 4))

        limits = {"seconds": self.plan.seconds(job, steps), "least_steps": MINIMUM_STEPS}
        settings = pet.TrainSettings(steps=steps, seed=seed, **limits, **rates)
        pet.train(model, rows, wanted, strategy, settings, self._training_offsets(template), on_step, balance)
        self.plan.trained(job, taken, time.monotonic() - started)
        write_json(self.work / f"{name}.json", {"steps": taken, "seconds": round(time.monotonic() - started, 2)})

    def _cross_fit(self, fold: np.ndarray) -> tuple[OutOfFold, OutOfFold | None]:
        """What head-tuned and wholly tuned models say of rows and texts that they have not seen.

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
                compute = partial(self._fold, name, teacher, seed, fold != k, fold_of_text == k)
                rows, texts = self._cached(name, compute)
                for part, said_of_rows, said_of_texts in zip(found, rows, texts, strict=True):
                    part.rows[number, fold == k], part.texts[number, fold_of_text == k] = said_of_rows, said_of_texts
                self.report(0.08 + 0.42 * (number * folds + k + 1) / (len(self.teachers) * folds))
        return found[0], found[1] if self.tunes_all else None

    def _fold(
        self, name: str, teacher: Teacher, seed: int, kept: np.ndarray, own_texts: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Logits [1 or 2, n, C] of the rows that are not `kept`, and of `own_texts`, by the head-tuned model and, where
        all weights are tuned, by the wholly tuned one."""
        encoded = self.rows[teacher.template]
        asked = [encoded[i] for i in np.flatnonzero(~kept)]
        texts = self._encode(teacher.template, [self.calibration[i] for i in np.flatnonzero(own_texts)])
        model = self._tune_head(teacher, np.flatnonzero(kept), seed)
        said = [(self._predict(model, asked), self._predict(model, texts, fast=True))]
        if self.tunes_all:
            self._tune_all(name, model, teacher, np.flatnonzero(kept), seed)
            said.append((self._predict(model, asked), self._predict(model, texts, fast=True)))
        return {"rows": np.stack([rows for rows, _ in said]), "texts": np.stack([texts for _, texts in said])}

    def _teacher(self, teacher: Teacher, number: int) -> None:
        if not self._finished(teacher.id):
            everything, seed = np.arange(len(self.wanted)), self.seed + 101 * number
            model = self._tune_head(teacher, everything, seed)
            if self.shrinkage.share > 0:
                self._tune_all(teacher.id, model, teacher, everything, seed, self.shrinkage.share)
            elif self.tunes_all:
                self.plan.done(self.jobs[teacher.id])
            self._save(teacher.id, model)
        self.report(0.5 + 0.2 * (number + 1) / len(self.teachers))

    def _pseudo_labels(self, weights: np.ndarray, temperature: float) -> tuple[list[PseudoLabel], np.ndarray, int]:
        """Selected candidates, their soft labels [selected, C], and how many candidates there were.

        Thresholds are of calibrated confidence: untempered, teachers fitted to few rows are sure of nearly all.
        """
        if not self.candidates:
            return [], np.zeros((0, self.classes)), 0

        def compute() -> dict[str, np.ndarray]:
            self.candidates = self._affordable_candidates()  # the machine may have turned slow
            count = len(self.candidates)
            logits = np.zeros((len(self.teachers), count, self.classes))
            for number, teacher in enumerate(self.teachers):
                encoded = self._encode(teacher.template, self.candidates)
                logits[number] = self._predict(self._load(teacher.id), encoded, fast=True)
                self.report(0.7 + 0.08 * (number + 1) / len(self.teachers))
            return {"logits": logits}

        (logits,) = self._cached("pseudo", compute)
        # An earlier attempt on another machine's speed may have scored another number of candidates.
        self.candidates = self._all_candidates()[: logits.shape[1]]
        if self.shrinkage.matched and self.data.prior is not None:
            self.teacher_offsets = [match_priors(x, self.data.prior) for x in logits]
        members = np.stack([distribution_of(x, o) for x, o in zip(logits, self.teacher_offsets, strict=True)])
        combined = apply_temperature(combine_members(members, weights), temperature)
        chosen = select(members, combined, self.task.selection, self.data.prior, PSEUDO_LABELS)
        lines = [
            {
                "itemKey": self.candidates[p.row].get("itemKey"),
                "label": self._label_of(p),
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

    def _student(self, template: int, pseudo: list[PseudoLabel], soft: np.ndarray) -> None:
        if self._finished("student"):
            return
        texts = self._encode(template, [self.candidates[p.row] for p in pseudo])
        share = min(LABELLED_SHARE, PASSES * len(self.wanted) / (STUDENT_STEPS * pet.TrainSettings.batch_rows))
        wanted, groups = student_targets(self.balance, self.wanted, soft, self.classes, share)
        rows = [*self.rows[template], *texts]
        seed = self.seed + 10_007
        model = copy_of(self.base)
        self._train("student", model, template, rows, wanted, "plain", groups, seed, STUDENT)
        self._save("student", model)

    def _student_distributions(self, template: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The student's offsets [C], and its distributions of the dev rows and of the calibration texts."""
        model, offsets = self._load("student"), self.offsets[template]
        texts = self._predict(model, self._encode(template, self.calibration))
        if self.shrinkage.matched and self.data.prior is not None and len(texts) >= FEWEST_MATCHING_TEXTS:
            offsets = match_priors(texts, self.data.prior)
        dev = self._predict(model, self.dev[template])
        return offsets, distribution_of(dev, offsets), distribution_of(texts, offsets)

    def _dev_distributions(self, weights: np.ndarray) -> np.ndarray:
        if not self.data.dev:
            return np.zeros((0, self.classes))
        members = [
            distribution_of(self._predict(self._load(t.id), self.dev[t.template]), offsets)
            for t, offsets in zip(self.teachers, self.teacher_offsets, strict=True)
        ]
        return combine_members(np.stack(members), weights)

    def _student_temperature(
        self, dev: np.ndarray, held: np.ndarray, teachers: np.ndarray, temperature: float
    ) -> tuple[float, str]:
        if len(self.data.dev) >= calibrate.CALIBRATED_ROWS:
            return calibrate.fit_temperature(dev, targets(self.task, self.data.dev)), "dev"
        if not len(held):
            return temperature, "ensemble"
        confidence = float(apply_temperature(teachers, temperature).max(-1).mean())
        return calibrate.match_confidence(held, confidence), "matched"

    def _members(self, weights: np.ndarray, student_template: int, student_offsets: np.ndarray) -> list[TrainedMember]:
        def member(
            id: str, role: str, template: int, strategy: str, weight: float, offsets: np.ndarray
        ) -> TrainedMember:
            text, served = self.task.templates[template], offsets if self.has_prior else None
            return TrainedMember(id, role, text, strategy, weight, served, lambda: self._load(id))

        teachers = [
            member(t.id, "teacher", t.template, t.strategy, w, o)
            for t, w, o in zip(self.teachers, weights, self.teacher_offsets, strict=True)
        ]
        return [*teachers, member("student", "student", student_template, "plain", 1.0, student_offsets)]

    # ---- cache and helpers

    def _cached(self, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> list[np.ndarray]:
        path = self.work / f"{name}.npz"
        if not path.exists():
            partial = self.work / f"{name}.partial.npz"
            np.savez(partial, **compute())
            partial.replace(path)
        stored = np.load(path)
        return [stored[key] for key in stored.files]

    def _finished(self, name: str) -> bool:
        return (self.work / f"{name}.npz").exists() or (self.work / f"{name}.safetensors").exists()

    def _save(self, name: str, model: BertForMaskedLM) -> None:
        """Only what training moves: embeddings stay the base's."""
        state = {k: v.half().contiguous() for k, v in model.state_dict().items() if _trained(k)}
        partial = self.work / f"{name}.partial"
        save_file(state, partial)
        partial.replace(self.work / f"{name}.safetensors")

    def _load(self, name: str) -> BertForMaskedLM:
        model = copy_of(self.base)
        state = {k: v.float() for k, v in load_file(self.work / f"{name}.safetensors").items()}
        model.load_state_dict(state, strict=False)
        round_to_half(model)
        return model.eval()

    def _predict(self, model: BertForMaskedLM, rows: list, fast: bool = False) -> np.ndarray:
        started = time.monotonic()
        logits = pet.predict(model, rows, self.classes, fast=fast)
        if rows:
            self.plan.inferred(sum(len(row.ids) for row in rows), time.monotonic() - started)
        return logits

    def _encode(self, template: int, rows: list[dict]) -> list[pet.Encoded]:
        return pet.encode(self.task, self.renderer, self.task.templates[template], rows)

    def _all_candidates(self) -> list[dict]:
        order = np.random.default_rng(self.seed).permutation(len(self.data.unlabelled))
        return [self.data.unlabelled[i] for i in order[len(self.calibration) :]][:PSEUDO_CANDIDATES]

    def _label_of(self, pseudo: PseudoLabel) -> str:
        return self.task.labels_of(self.candidates[pseudo.row])[pseudo.label]

    def _steps_taken(self) -> dict[str, int]:
        files = [self.work / f"{name}.json" for name in self.jobs]
        return {path.stem: json.loads(path.read_text())["steps"] for path in files if path.exists()}


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


def plan_teachers(templates: int, strategies: tuple[str, ...]) -> list[Teacher]:
    """One teacher a template, strategies in turn; with fewer templates than strategies, one a strategy."""
    return [
        Teacher(f"t{i % templates}-{strategies[i % len(strategies)]}", i % templates, strategies[i % len(strategies)])
        for i in range(max(templates, len(strategies)))
    ]


def write_progress(folder: Path, stage: str, progress: float, metrics: dict[str, object]) -> None:
    line: dict[str, object] = {"at": datetime.now(UTC).isoformat(), "stage": stage, "progress": round(progress, 4)}
    if metrics:
        line["metrics"] = metrics
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _trained(name: str) -> bool:
    return name.startswith(("bert.encoder.", "cls.predictions.transform."))


def _mean_length(rows: list[pet.Encoded]) -> float:
    return float(np.mean([len(row.ids) for row in rows]))


def _log_loss(distribution: np.ndarray, wanted: np.ndarray) -> float:
    return float(-np.log(distribution[np.arange(len(wanted)), wanted] + 1e-12).mean())
