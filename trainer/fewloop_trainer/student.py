"""The student of a run: what it learns like, its training, offsets and temperature.

It learns as the teacher does that is best out of fold, unless the task file has it tried with several templates and
strategies. Then each is trained on each fold's other rows, with pseudo-labels by the teachers of that fold alone, which
have not seen its rows either; what beats the first by more than a standard error there is taken. The teachers weigh
equally in that, so that no weight was fitted to the fold; the temperature and the shrinkage, two numbers, were fitted
to all folds.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from fewloop_trainer import calibrate
from fewloop_trainer.budget import student_job, trial_job, trial_of
from fewloop_trainer.data import in_reservoir, targets
from fewloop_trainer.learners import PetLearner
from fewloop_trainer.pseudo import PSEUDO_LABELS, PseudoLabels, learn
from fewloop_trainer.run_state import Run, Teacher
from fewloop_trainer.scores import apply_temperature, combine_members, match_priors
from fewloop_trainer.select import select
from fewloop_trainer.shrink import FEWEST_MATCHING_TEXTS, gain_exceeds, tempered_losses
from fewloop_trainer.teachers import OutOfFoldFit, offsets_like_teachers


@dataclass(frozen=True)
class Student:
    member: Teacher
    offsets: np.ndarray
    """[C] that it is served with."""
    dev: np.ndarray
    """Probabilities [dev rows, C], untempered."""
    temperature: float
    temperature_source: str
    trials: dict[str, float] | None
    """Out-of-fold loss (nats a row) of each variant tried."""


def best_of(distributions: np.ndarray, wanted: np.ndarray) -> int:
    """Which of distributions [T, N, C] fits labels [N] best, each at its own temperature, which the student has too:
    of few rows some methods are far surer than others."""
    return int(np.argmin([tempered_losses(each, wanted).mean() for each in distributions]))


def choose_student(run: Run, fit: OutOfFoldFit) -> tuple[Teacher, dict[str, float] | None]:
    """Which variant to train, and the loss of each where there were several."""
    wanted = run.observe.flat_wanted(run.wanted)
    number = best_of(run.observe.flat(fit.rows), wanted)
    best = run.teachers[number]
    variants = [
        Teacher("student", best.method, template, strategy)
        for template in _templates(run, best)
        for strategy in (run.task.student_strategies if best.method != "embedding" else ("plain",))
    ]
    jobs = [student_job(run, _learner(run, variant), run.rows[number]) for variant in variants]
    chosen, trials = variants[0], None
    if len(variants) > 1 and fit.candidates is not None:
        folds = len(fit.candidates)
        for v, job in enumerate(jobs):
            for k in range(folds):
                run.take(trial_of(job, v, k, folds))
        losses = _try(run, fit, variants)
        first = int(np.argmin([x.mean() for x in losses]))
        chosen = variants[first] if gain_exceeds(1, losses[0] - losses[first]) else variants[0]
        trials = {_name(v): round(float(x.mean()), 4) for v, x in zip(variants, losses, strict=True)}
    for name, job in run.jobs.items():
        if name.startswith("student-"):
            run.plan.done(job)
    run.take(jobs[variants.index(chosen)])
    run.learners["student"] = _learner(run, chosen)
    return chosen, trials


def train_student(run: Run, pseudo: PseudoLabels) -> None:
    if run.workspace.finished("student"):
        return
    learner, everything = run.learners["student"], np.arange(len(run.wanted))
    texts = [run.candidates[p.row] for p in pseudo.chosen]
    model = learn(run, "student", learner, everything, texts, pseudo.soft, run.seed + 10_007)
    run.workspace.save("student", learner.state(model))


def calibrate_student(
    run: Run, member: Teacher, fit: OutOfFoldFit, temperature: float, trials: dict[str, float] | None
) -> Student:
    """The trained student with the offsets and the temperature that it is served with; `temperature`: the teachers'."""
    offsets, dev, held = _distributions(run, member, fit)
    teachers = combine_members(fit.texts, fit.weights)
    return Student(member, offsets, dev, *_temperature(run, dev, held, teachers, temperature), trials)


def _templates(run: Run, best: Teacher) -> list[int]:
    """The best teacher's first."""
    if best.method != "pet" or run.task.student_templates == "best":
        return [best.template]
    return [best.template, *(i for i in range(len(run.task.templates)) if i != best.template)]


def _name(variant: Teacher) -> str:
    return f"t{variant.template}-{variant.strategy}" if variant.method == "pet" else variant.strategy


def _learner(run: Run, member: Teacher):
    learner = run.learner(member)
    if isinstance(learner, PetLearner):
        learner.offsets = next(own.offsets for teacher, own in run.pet() if teacher.template == member.template)
    return learner


def _try(run: Run, fit: OutOfFoldFit, variants: list[Teacher]) -> list[np.ndarray]:
    """Of each variant: losses [N] (of label sets [N * C]) of labelled rows, each by a student that knows nothing of
    its fold."""
    where = [(number, k) for number in range(len(variants)) for k in range(len(fit.candidates))]
    said = run.shared(
        {trial_job(n, k): partial(_train_and_ask, run, fit, n, variants[n], k, fit.candidates[k]) for n, k in where}
    )
    rows = np.zeros((len(variants), len(run.wanted), run.classes))
    for (number, k), (scores, texts) in zip(where, said, strict=True):
        offsets = _offsets(run, fit, _learner(run, variants[number]), texts)
        rows[number, fit.fold == k] = run.observe.probabilities(scores, offsets)
    return [tempered_losses(run.observe.flat(x), run.observe.flat_wanted(run.wanted)) for x in rows]


def _train_and_ask(
    run: Run, fit: OutOfFoldFit, number: int, variant: Teacher, k: int, scores: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores of the fold's rows and of the calibration texts, given what the fold's teachers say of candidates."""
    learner, held = _learner(run, variant), fit.fold == k
    # Those that the fold's teachers scored; on a slow machine the run itself may have gone on with fewer.
    candidates = run.all_candidates()[: scores.shape[1]]
    offsets = run.served_offsets
    if run.shrinkage.matched and run.data.prior is not None:
        sample = in_reservoir(candidates)
        offsets = [match_priors(x[sample], run.data.prior) for x in scores]
    members = np.stack([run.observe.probabilities(x, o) for x, o in zip(scores, offsets, strict=True)])
    tempered = np.stack([run.observe.temper(p, fit.temperature) for p in members])
    combined = run.observe.temper(members.mean(0), fit.temperature)
    chosen = select(tempered, combined, run.task.selection, run.data.prior, PSEUDO_LABELS, run.thresholds)
    texts, soft = [candidates[p.row] for p in chosen], combined[[p.row for p in chosen]]
    seed = run.seed + 30_011 + 101 * number + k
    model = learn(run, trial_job(number, k), learner, np.flatnonzero(~held), texts, soft, seed)
    asked = [run.data.train[i] for i in np.flatnonzero(held)]
    return {
        "rows": run.predict(learner, model, learner.encode(asked)),
        "texts": run.predict(learner, model, learner.encode(run.calibration), fast=True),
    }


def _offsets(run: Run, fit: OutOfFoldFit, learner, texts: np.ndarray) -> np.ndarray:
    """[C]: matched on scores of calibration texts [M, C], else those of training and the prior's part."""
    if run.observe.sets:
        return offsets_like_teachers(run, fit, learner.method, texts)
    if run.shrinkage.matched and run.data.prior is not None and len(texts) >= FEWEST_MATCHING_TEXTS:
        return match_priors(texts, run.data.prior)
    return run.prior_offsets() + (learner.offsets if isinstance(learner, PetLearner) else 0.0)


def _distributions(run: Run, student: Teacher, fit: OutOfFoldFit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The student's offsets [C], and its probabilities of the dev rows and of the calibration texts."""
    learner, model = run.trained(student)
    texts = run.predict(learner, model, learner.encode(run.calibration))
    offsets = _offsets(run, fit, learner, texts)
    dev = run.predict(learner, model, learner.encode(run.data.dev))
    return offsets, run.observe.probabilities(dev, offsets), run.observe.probabilities(texts, offsets)


def _temperature(
    run: Run, dev: np.ndarray, held: np.ndarray, teachers: np.ndarray, temperature: float
) -> tuple[float, str]:
    if len(run.data.dev) >= calibrate.CALIBRATED_ROWS:
        return run.observe.fit_temperature(dev, targets(run.task, run.data.dev)), "dev"
    if not len(held):
        return temperature, "ensemble"
    teachers, held = run.observe.flat(teachers), run.observe.flat(held)
    confidence = float(apply_temperature(teachers, temperature).max(-1).mean())
    return calibrate.match_confidence(held, confidence), "matched"
