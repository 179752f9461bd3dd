"""The teachers: cross-fitted first, for what is chosen and fitted out of fold, then trained on all labelled rows."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fewloop_trainer import calibrate, ensemble
from fewloop_trainer.budget import fold_job, folds_for
from fewloop_trainer.data import in_reservoir, targets
from fewloop_trainer.keys import split_group
from fewloop_trainer.learners import PetLearner
from fewloop_trainer.offsets import first_offsets
from fewloop_trainer.run_state import TRIAL_CANDIDATES, Run, Teacher
from fewloop_trainer.scores import ask_in_turn, combine_members
from fewloop_trainer.shrink import FEWEST_MATCHING_TEXTS, OutOfFold, choose


@dataclass(frozen=True)
class OutOfFoldFit:
    """What was fitted to predictions of models that had not seen the row."""

    fold: np.ndarray
    """[N] of each labelled row."""
    rows: np.ndarray
    """Probabilities [T, N, C] of labelled rows."""
    texts: np.ndarray
    """Probabilities [T, M, C] of the calibration texts."""
    weights: np.ndarray
    """[T] of the teachers."""
    weighing: dict[str, float]
    """How they were chosen (ensemble.py)."""
    temperature: float
    ensemble: np.ndarray
    """The teachers' weighted mean [N, C] of labelled rows, tempered."""
    candidates: list[np.ndarray] | None
    """Where several students are tried: scores [T, M, C] of candidates by each fold's teachers."""


def fit_out_of_fold(run: Run, offsets: np.ndarray) -> OutOfFoldFit:
    """Cross-fits the teachers; then chooses shrinkage, weights, temperature and, of label sets, thresholds.

    `offsets` [templates, C] are the base model's.
    """
    # Pairs and questions share texts: what is out of fold must be of texts that the fold has not seen.
    groups = [split_group(row["text"]) for row in run.data.train]
    fold = ensemble.folds_of(run.balance, groups, folds_for(run.balance), run.seed)
    near, far, stages = _cross_fit(run, fold)
    run.served_offsets = [
        _offsets_of_sets(run, scores) if run.observe.sets else first_offsets(run, t, offsets)
        for t, scores in zip(run.teachers, near.rows, strict=True)
    ]
    rows, texts = _choose_shrinkage(run, near, far)
    weights, weighing = ensemble.choose_weights(
        run.observe.flat(rows), run.observe.flat_wanted(run.wanted), run.observe.per_row(fold, run.classes)
    )
    combined = combine_members(rows, weights)
    temperature = run.observe.fit_temperature(combined, run.wanted)
    tempered = run.observe.temper(combined, temperature)
    run.thresholds = calibrate.fit_thresholds(tempered, run.wanted) if run.observe.sets else None
    candidates = _at_share(run, stages) if run.tries_students else None
    return OutOfFoldFit(fold, rows, texts, weights, weighing, temperature, tempered, candidates)


def _cross_fit(run: Run, fold: np.ndarray) -> tuple[OutOfFold, OutOfFold | None, list[list[np.ndarray]]]:
    """What first-stage and wholly tuned models say of rows and texts that they have not seen; scores.

    Each text is judged by one fold's model, which has seen as many labels as those that judged the rows.
    Where students are tried, also what each fold's models say of candidates: scores [1 or 2, M, C], teacher by teacher.
    """
    of_rows = len(run.teachers), len(run.wanted), run.classes
    of_texts = len(run.teachers), len(run.calibration), run.classes
    found = [OutOfFold(np.zeros(of_rows), np.zeros(of_texts)) for _ in range(2 if run.tunes_all else 1)]
    folds = int(fold.max()) + 1
    candidates: list[list[np.ndarray]] = [[] for _ in range(folds)]
    fold_of_text = np.arange(len(run.calibration)) % folds
    where = [(number, teacher, k) for number, teacher in enumerate(run.teachers) for k in range(folds)]
    jobs = {}
    for number, teacher, k in where:
        name, seed = fold_job(teacher.id, k), run.seed + 101 * number + k + 1
        jobs[name] = partial(_fold, run, name, number, seed, fold != k, fold_of_text == k)
    said = run.shared(jobs, lambda done: run.report(0.08 + 0.42 * done / len(jobs)))
    for (number, _, k), (rows, texts, *of_candidates) in zip(where, said, strict=True):
        candidates[k] += of_candidates
        for part, said_of_rows, said_of_texts in zip(found, rows, texts, strict=True):
            part.rows[number, fold == k], part.texts[number, fold_of_text == k] = said_of_rows, said_of_texts
    return found[0], found[1] if run.tunes_all else None, candidates


def _offsets_of_sets(run: Run, scores: np.ndarray) -> np.ndarray:
    """[C], given scores [N, C] out of fold. Batches favour rows with rare labels, and EFL's hypotheses that are right;
    how much that adds to a label's log-odds is seen by its mean probability, which is to be its share."""
    return calibrate.fit_offsets(scores, run.wanted, lambda p: run.observe.fit_temperature(p, run.wanted))


def offsets_like_teachers(run: Run, fit: OutOfFoldFit, method: str, scores: np.ndarray) -> np.ndarray:
    """Of label sets: the offsets [C] of a model that has learned pseudo-labels, given its scores [M, C] of the
    calibration texts, at which it says there what the cross-fitted teachers do; with too few texts, those of the
    teachers of its method."""
    if len(scores) < FEWEST_MATCHING_TEXTS:
        own = [o for t, o in zip(run.teachers, run.served_offsets, strict=True) if t.method == method]
        return np.mean(own, axis=0)
    said = run.observe.temper(combine_members(fit.texts, fit.weights), fit.temperature)
    confidence = float(run.observe.flat(said).max(-1).mean())
    return calibrate.fit_offsets(scores, said, lambda p: calibrate.match_confidence(run.observe.flat(p), confidence))


def _at_share(run: Run, stages: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Of each fold: scores [T, M, C] between those of the two stages, as far as the shrinkage goes."""
    # Attempts on machines of different speed may have scored different numbers of candidates.
    many = min(scores.shape[1] for fold in stages for scores in fold)
    share = run.shrinkage.share
    return [
        np.stack([(1 - share) * scores[0, :many] + share * scores[-1, :many] for scores in fold]) for fold in stages
    ]


def _fold(
    run: Run, name: str, number: int, seed: int, kept: np.ndarray, own_texts: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores [1 or 2, n, C] of the rows that are not `kept`, and of `own_texts`: by the head-tuned model and, where
    all weights are tuned, by the wholly tuned one. A method that has one stage says the same twice."""
    learner, encoded = run.learners[run.teachers[number].id], run.rows[number]
    asked = [encoded[i] for i in np.flatnonzero(~kept)]
    texts = learner.encode([run.calibration[i] for i in np.flatnonzero(own_texts)])
    index, model = np.flatnonzero(kept), learner.start()

    trial = learner.encode(run.candidates[:TRIAL_CANDIDATES]) if run.tries_students else None

    def ask() -> dict[str, np.ndarray]:
        answers = {"rows": run.predict(learner, model, asked), "texts": run.predict(learner, model, texts, fast=True)}
        return answers if trial is None else answers | {"candidates": run.predict(learner, model, trial, fast=True)}

    said = []
    if isinstance(learner, PetLearner):
        _tune_head(run, learner, model, number, index, seed)
        said.append(ask())
    if run.tunes_all or not learner.knows:
        rows = [encoded[i] for i in index]
        run.train(name, learner, model, rows, run.goal[index], run.balance[index], seed)
        said.append(ask())
    if not learner.knows and run.tunes_all:
        said.append(said[0])
    return {of: np.stack([answers[of] for answers in said]) for of in said[0]}


def _tune_head(run: Run, learner: PetLearner, model: Any, number: int, index: np.ndarray, seed: int) -> None:
    rows = [run.rows[number][i] for i in index]
    with run.told_of_divergence(f"{run.teachers[number].id}, its head,"):
        learner.tune_head(model, rows, run.wanted[index], run.balance[index], seed)


def _choose_shrinkage(run: Run, near: OutOfFold, far: OutOfFold | None) -> tuple[np.ndarray, np.ndarray]:
    """Shrinkage; the probabilities [T, N, C] and [T, M, C] of rows and texts out of fold."""
    # Too few candidates to match on later: then not here either.
    prior = run.data.prior if in_reservoir(run.candidates).sum() >= FEWEST_MATCHING_TEXTS else None
    by_teacher = np.stack(run.served_offsets)

    def flat(part: OutOfFold) -> OutOfFold:
        moved = by_teacher[:, None]
        return OutOfFold(run.observe.flat_scores(part.rows, moved), run.observe.flat_scores(part.texts, moved))

    offsets = np.zeros((len(by_teacher), 2)) if run.observe.sets else by_teacher
    wanted = run.observe.flat_wanted(run.wanted)
    found = choose(flat(near), None if far is None else flat(far), offsets, prior, wanted, run.base_knows)
    run.shrinkage, oof, held = found
    return run.observe.whole(oof, run.classes), run.observe.whole(held, run.classes)


def train_teacher(run: Run, teacher: Teacher, number: int) -> None:
    """By the process that owns it; whole in the run's folder."""
    if run.owns(teacher.id) and not run.workspace.finished(teacher.id):
        learner, everything, seed = run.learners[teacher.id], np.arange(len(run.wanted)), run.seed + 101 * number
        model = learner.start()
        if isinstance(learner, PetLearner):
            _tune_head(run, learner, model, number, everything, seed)
        share = run.shrinkage.share if learner.knows else 1.0
        if share > 0:
            run.train(teacher.id, learner, model, run.rows[number], run.goal, run.balance, seed, share)
        elif run.tunes_all:
            run.plan.done(run.jobs[teacher.id])
        run.workspace.save(teacher.id, learner.state(model))
    run.report(0.5 + 0.2 * (number + 1) / len(run.teachers))


def dev_distributions(run: Run) -> np.ndarray:
    """Each teacher's probabilities [T, dev rows, C]."""
    if not run.data.dev:
        return np.zeros((len(run.teachers), 0, run.classes))
    members = []
    for teacher, offsets in zip(run.teachers, run.served_offsets, strict=True):
        learner, model = run.trained(teacher)
        scores = run.predict(learner, model, learner.encode(run.data.dev))
        members.append(run.observe.probabilities(scores, offsets))
    return np.stack(members)


@dataclass(frozen=True)
class ServingTemperatures:
    """Of the policies that ask the teachers."""

    ensemble: float
    cascade: float | None
    """Of teachers who are asked in turn (scores.py); None for label sets, whose decisions go with the ensemble's
    temperature."""
    rows: int
    """Labelled rows that stand behind them."""


def serving_temperatures(run: Run, fit: OutOfFoldFit, dev: np.ndarray) -> ServingTemperatures:
    """Fitted out of fold. Where those rows are too few for that, dev rows, which no teacher has seen either, are fitted
    with them: `dev` [T, dev rows, C]. Of label sets thresholds go with the temperature, and it stays.
    """
    if run.observe.sets:
        return ServingTemperatures(fit.temperature, None, len(run.wanted))
    members, wanted = fit.rows, run.wanted
    if len(wanted) < calibrate.CALIBRATED_ROWS:
        members = np.concatenate([members, dev], axis=1)
        wanted = np.concatenate([wanted, targets(run.task, run.data.dev)])
    asked, _ = ask_in_turn(members, fit.weights)
    return ServingTemperatures(
        run.observe.fit_temperature(combine_members(members, fit.weights), wanted),
        run.observe.fit_temperature(asked, wanted),
        len(wanted),
    )
