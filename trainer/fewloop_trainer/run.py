"""One training run, from a run folder to a bundle.

    read ─▶ (TAPT) ─▶ offsets ─▶ cross-fit ─▶ shrinkage, weights, temperature ─▶ teachers ─▶ pseudo-labels ─▶ student
         ─▶ calibrate ─▶ bundle

A teacher learns as its method does (learners.py). PET's tunes its head first (head.py), then all weights, with rows
enough to judge that by or where the base knows nothing that could be lost (shrink.py).

Every model starts from the base, or from what TAPT makes of it (tapt.py), and human labels, never from an earlier
version. What a stage computed lies in `work/`
(workspace.py): a killed run, started again, goes on behind the last model that was finished. `result.json` is written
last.
"""

import resource
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from fewloop_trainer import calibrate
from fewloop_trainer.admission import BUDGET_SHARE
from fewloop_trainer.budget import make_plan, measure
from fewloop_trainer.bundle import TrainedMember, write_bundle
from fewloop_trainer.confident import write_label_issues
from fewloop_trainer.data import RunError
from fewloop_trainer.files import clear_partial, disk_full_message, is_disk_full, write_json
from fewloop_trainer.offsets import judge_base, match_base, remember, training_offsets
from fewloop_trainer.processes import leave_gpu, place_of
from fewloop_trainer.pseudo import pseudo_labels
from fewloop_trainer.run_report import report_of, summary_of
from fewloop_trainer.run_state import Run, Teacher
from fewloop_trainer.student import Student, calibrate_student, choose_student, train_student
from fewloop_trainer.tapt import adapt_base
from fewloop_trainer.teachers import (
    ServingTemperatures,
    dev_distributions,
    fit_out_of_fold,
    serving_temperatures,
    train_teacher,
)
from fewloop_trainer.training import NO_SAVING, Saving

RESERVED_BYTES = 4096


def execute(run: Run) -> dict[str, object]:
    """The stages in order; `result.json`. What is shared out among processes ends with the choice of the student."""
    adaptation = adapt_base(run)
    run.enter("offsets", 0.02)
    offsets, base_scores = run.alone("offsets", lambda: match_base(run))
    judge_base(run, offsets, base_scores)
    for teacher, learner in run.pet():
        learner.offsets = training_offsets(run, offsets[teacher.template])
    remember(run)
    measure(run)
    make_plan(run)
    run.enter("cross-fit", 0.08)
    fit = fit_out_of_fold(run, offsets)
    run.enter("teachers", 0.5)
    for number, teacher in enumerate(run.teachers):
        train_teacher(run, teacher, number)
    run.enter("pseudo-labels", 0.7)
    pseudo = pseudo_labels(run, fit)
    run.enter("student", 0.78)
    member, trials = choose_student(run, fit)
    if not run.place.first:
        return {"ok": True}
    train_student(run, pseudo)
    run.enter("calibrate", 0.92)
    dev = dev_distributions(run)
    temperatures = serving_temperatures(run, fit, dev)
    student = calibrate_student(run, member, fit, temperatures.ensemble, trials)
    report = report_of(run, (offsets, base_scores), fit, dev, temperatures, pseudo, student)
    run.enter("bundle", 0.94)
    leave_gpu(run.base)  # what is served has been computed by ONNX Runtime on a CPU, and so is what it is compared with
    report |= {
        "labelIssues": write_label_issues(run, fit),
        "adaptation": adaptation,
        "steps": run.workspace.steps_taken(list(run.jobs)),
        "seconds": run.seconds,
        "peakMemoryBytes": peak_memory(),
        "processes": run.place.processes,
    }
    write_bundle(
        run.folder / "bundle",
        run.data,
        members_of(run, fit.weights, student),
        policies_of(run, temperatures, student),
        run.thresholds,
        report,
        len(pseudo.chosen),
        run.threads,
        max(BUDGET_SHARE * run.plan.budget_seconds, run.plan.left()),
        run.at_work,
    )
    run.enter("done", 1.0)
    return {
        "ok": True,
        "version": run.data.settings["version"],
        "bundle": "bundle",
        "report": summary_of(report) | {"seconds": round(time.monotonic() - run.started, 1)},
    }


def peak_memory() -> int:
    """Bytes of this process, of several the first, that were resident at once, at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def policies_of(run: Run, temperatures: ServingTemperatures, student: Student) -> dict[str, dict[str, object]]:
    """Temperature of each serving policy, and whether rows enough stand behind it."""
    enough = temperatures.rows >= calibrate.CALIBRATED_ROWS
    of_dev = len(run.data.dev) >= calibrate.CALIBRATED_ROWS
    policies = {
        "ensemble": {"temperature": temperatures.ensemble, "calibrated": enough},
        "student": {
            "temperature": student.temperature,
            "calibrated": enough if student.temperature_source == "matched" else of_dev,
        },
    }
    if temperatures.cascade is not None:
        policies["cascade"] = {"temperature": temperatures.cascade, "calibrated": enough}
    return policies


def members_of(run: Run, weights: np.ndarray, student: Student) -> list[TrainedMember]:
    def member(teacher: Teacher, role: str, weight: float, offsets: np.ndarray) -> TrainedMember:
        learner = run.learners[teacher.id]
        served = offsets if run.data.prior is not None or run.observe.sets else None
        return TrainedMember(teacher.id, role, learner, weight, served, lambda: run.trained(teacher)[1])

    teachers = [member(t, "teacher", w, o) for t, w, o in zip(run.teachers, weights, run.served_offsets, strict=True)]
    return [*teachers, member(student.member, "student", 1.0, student.offsets)]


def run(folder: Path, saving: Saving = NO_SAVING) -> int:
    """Runs the folder to its end; the exit status. Errors become result.json, for which room is kept: a disk that is
    full is one of them."""
    first, reserve = place_of().first, folder / "result.json.reserve"
    if first:
        (folder / "result.json").unlink(missing_ok=True)
    try:
        if first:
            reserve.write_bytes(b"\n" * RESERVED_BYTES)
        result = execute(Run(folder, saving))
    except RunError as error:
        result = {"ok": False, "code": error.code, "message": str(error)}
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        # What was half written goes first: the reason has to be written too.
        full = is_disk_full(error)
        message = disk_full_message(folder, clear_partial(folder)) if full else f"{type(error).__name__}: {error}"
        result = {"ok": False, "code": "INTERNAL", "message": message}
        reserve.unlink(missing_ok=True)  # by any process; one that succeeds leaves it to the others
    finally:
        if first:
            reserve.unlink(missing_ok=True)
    if first or not result["ok"]:
        try:
            write_json(folder / "result.json", result)
        except OSError as error:
            (folder / "result.json.partial").unlink(missing_ok=True)
            print(f"{result.get('message', 'trained')} (result.json: {error})", file=sys.stderr)
            return 1
    return 0 if result["ok"] else 1
