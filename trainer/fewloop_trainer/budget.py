"""A run's jobs and their wishes, from the measured cost of a step; plan.py shares the time among them."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fewloop_trainer.admission import BUDGET_SHARE, tokens_to_measure
from fewloop_trainer.learners import Learner
from fewloop_trainer.plan import Job
from fewloop_trainer.processes import owners
from fewloop_trainer.run_state import TRIAL_CANDIDATES, Run, Teacher
from fewloop_trainer.training import TrainSettings, recompute

FOLDS, FOLDS_OF_FEW = 2, 4
"""A third would cost as many steps more as all teachers' own training takes (3 * 2/3 of them in place of 2 * 1/2).
Where classes have few rows it is worth that: a method that learns fast from more of them looks poor with half."""
ROWS_OF_FEW, ROWS_TO_TELL = 16, 100
"""Rows a class under which there are more folds, and rows in all from which on methods are told apart by them."""
PASSES, MANY_PASSES = 6, 4
"""Wished passes over the labelled rows: the first in `FEW_STEPS` batches at most, the second beyond them."""
FEWEST_STEPS, FEW_STEPS, MOST_STEPS = 40, 120, 600
STUDENT_STEPS = 150
STUDENT_SHARE = 2
"""Times a teacher's steps, where those are more: most of what a student sees is pseudo-labels."""
EXPORT_SECONDS = 2.0
"""Of a member, with its golden rows: a guess for a small base on two cores, not measured."""
PSEUDO_SHARE, ASKED_PSEUDO_SHARE = 0.15, 0.5
"""Of the budget, at most, for scoring candidates of pseudo-labels; the second where the task file says how many."""


def measure(run: Run) -> None:
    """The cost of a step, on a copy that is thrown away."""
    learner, rows = run.learners[run.teachers[0].id], run.rows[0]
    model = learner.start()
    if run.plan.infer_cost == 0:  # the offsets came from an earlier attempt, or nothing had any
        run.predict(learner, model, rows[:32])
    first = None
    seconds: list[float] = []

    def on_step(step: int, loss: float) -> None:
        nonlocal first
        now = time.monotonic()
        if first is not None:
            seconds.append(now - first)
        first = now

    settings = TrainSettings(steps=4, seed=run.seed, saving=run.saving)
    if run.saving.recompute:
        recompute(model.bert)
    with run.told_of_divergence("the first model, to measure a step,"):
        learner.train(model, rows, run.goal, np.zeros(len(rows), int), settings, on_step)
    run.plan.train_cost = float(np.mean(seconds)) / learner.step_tokens(rows)


def folds_for(balance: np.ndarray) -> int:
    """Into how many folds the labelled rows go, of classes `balance` [N]."""
    rows_a_class = len(balance) / len(np.unique(balance))
    few = rows_a_class < ROWS_OF_FEW and len(balance) >= ROWS_TO_TELL
    return FOLDS_OF_FEW if few else FOLDS


def steps_for(rows: int) -> int:
    """Wished steps of a PET teacher of that many labelled rows."""
    batches = rows / TrainSettings.batch_rows
    few = np.clip(PASSES * batches, FEWEST_STEPS, FEW_STEPS)
    return int(max(few, min(MANY_PASSES * batches, MOST_STEPS)))


def student_steps(rows: int) -> int:
    """The same of a PET student that has pseudo-labels beside them."""
    return max(STUDENT_STEPS, STUDENT_SHARE * steps_for(rows))


def student_job(run: Run, learner: Learner, rows: Sequence[Any]) -> Job:
    """The student's where it learns as `learner` does, which has the labelled rows as `rows`."""
    wished = student_steps(len(run.wanted)) if run.candidates else steps_for(len(run.wanted))
    return Job("student", learner.wished_steps(wished), learner.step_tokens(rows))


def trial_of(student: Job, variant: int, fold: int, folds: int) -> Job:
    """Of a student that has not seen a fold: as many passes over fewer rows."""
    return Job(trial_job(variant, fold), int(student.wished_steps * (folds - 1) / folds), student.tokens_per_step)


def make_plan(run: Run) -> None:
    wished, folds = steps_for(len(run.wanted)), folds_for(run.balance)
    jobs = []
    for teacher, rows in zip(run.teachers, run.rows, strict=True):
        learner = run.learners[teacher.id]
        tokens, steps = learner.step_tokens(rows), learner.wished_steps(wished)
        share = (folds - 1) / folds  # as many passes over fewer rows
        if run.tunes_all or not learner.knows:
            jobs += [Job(fold_job(teacher.id, k), max(20, int(steps * share)), tokens) for k in range(folds)]
            jobs.append(Job(teacher.id, steps, tokens))
    # Until it is known what the student learns like (student.py), as the first teacher does.
    student = student_job(run, run.learners[run.teachers[0].id], run.rows[0])
    jobs.append(student)
    if run.tries_students:
        jobs += [trial_of(student, v, k, folds) for v in range(run.trials) for k in range(folds)]
    if run.candidates:
        jobs += _later_rounds(run)
    run.jobs = {job.name: job for job in jobs}
    run.owner = share_out(run)
    # The student is the first process's, and the others' time ends before it.
    own = [job for job in jobs if job.name == "student" or run.owns(job.name)]
    run.plan.waiting = [job for job in own if not run.workspace.finished(job.name)]
    run.candidates = affordable_candidates(run)
    passes = 2 if run.tunes_all else 1
    texts = len(run.candidates) + passes * (len(run.wanted) + len(run.calibration))
    per_text = tokens_a_text(run)
    texts += (run.task.rounds - 1) * (len(run.candidates) + len(run.calibration))
    if run.tries_students:
        texts += passes * folds * min(TRIAL_CANDIDATES, len(run.candidates))
    run.plan.infer_tokens = per_text * texts / run.place.processes + (per_text + 100) * len(run.data.dev)
    most = BUDGET_SHARE * run.data.settings["budgetSeconds"] / run.plan.infer_cost
    run.plan.infer_tokens += min(most, tokens_to_measure(run.data, per_text))
    run.report(
        0.06,
        trainTokensPerSecond=round(1 / run.plan.train_cost),
        inferTokensPerSecond=round(1 / run.plan.infer_cost),
        pseudoCandidates=len(run.candidates),
        estimateSeconds=round(estimate(run)),
    )


def share_out(run: Run) -> dict[str, int]:
    """Which process trains or asks which model. The models of a stage wait for nothing but the stage before."""
    teachers, folds = [teacher.id for teacher in run.teachers], range(folds_for(run.balance))
    stages = [
        [fold_job(teacher, k) for teacher in teachers for k in folds],
        teachers,
        [asked_job(teacher) for teacher in teachers],
        *([round_job(teacher, number) for teacher in run.teachers] for number in range(2, run.task.rounds + 1)),
        [trial_job(v, k) for v in range(run.trials) for k in folds],
    ]
    owner: dict[str, int] = {}
    for names in stages:
        jobs = [run.jobs.get(name) for name in names]
        costs = [job.wished_steps * job.tokens_per_step if job else 0.0 for job in jobs]
        owner |= dict(zip(names, owners(costs, run.place.processes), strict=True))
    return owner


def estimate(run: Run) -> float:
    """Seconds from the run's start to its end, by what steps and inference have cost so far.

    A resumed run counts from its own start, and only what is left to do.
    """
    elapsed = time.monotonic() - run.started
    members = len(run.teachers) + 1
    return elapsed + run.plan.seconds_left() + EXPORT_SECONDS * members


def fold_job(teacher: str, fold: int) -> str:
    """A teacher that has not seen a fold."""
    return f"{teacher}.fold{fold}"


def asked_job(teacher: str) -> str:
    """What a teacher says of the candidates of pseudo-labels."""
    return f"pseudo.{teacher}"


def round_job(teacher: Teacher, number: int) -> str:
    """A teacher of a later round of self-training."""
    return f"{teacher.id}.round{number}"


def trial_job(variant: int, fold: int) -> str:
    """A student that is tried."""
    return f"student-{variant}.fold{fold}"


def _later_rounds(run: Run) -> list[Job]:
    steps = student_steps(len(run.wanted))
    return [
        Job(round_job(teacher, number), learner.wished_steps(steps), learner.step_tokens(rows))
        for number in range(2, run.task.rounds + 1)
        for teacher, rows in zip(run.teachers, run.rows, strict=True)
        for learner in [run.learners[teacher.id]]
    ]


def tokens_a_text(run: Run) -> float:
    """Of all teachers together."""
    each = (run.learners[t.id].tokens(rows) / len(rows) for t, rows in zip(run.teachers, run.rows, strict=True))
    return float(sum(each))


def affordable_candidates(run: Run) -> list[dict]:
    cost = tokens_a_text(run) * run.plan.infer_cost / run.place.processes
    share = PSEUDO_SHARE if run.task.unlabelled is None else ASKED_PSEUDO_SHARE
    affordable = share * run.data.settings["budgetSeconds"] / max(1e-9, cost)
    return run.candidates[: max(20, int(affordable))]
