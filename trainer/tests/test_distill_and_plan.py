import numpy as np
import pytest

from fewloop_trainer import budget, distill, pet, plan, training
from fewloop_trainer.plan import Job, Plan


class TestStudentTargets:
    def test_are_the_labels_alone_where_there_are_no_pseudo_labels(self):
        labels = np.array([0, 2, 1])
        wanted, groups = distill.student_targets(labels, np.eye(3)[labels], np.zeros((0, 3)))
        np.testing.assert_array_equal(wanted, np.eye(3)[labels])
        np.testing.assert_array_equal(groups, labels)

    def test_are_one_hot_for_labels_and_what_the_teachers_said_for_the_rest(self):
        labels, soft = np.array([0, 1]), np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
        wanted, groups = distill.student_targets(labels, np.eye(2)[labels], soft)
        np.testing.assert_array_equal(wanted, [[1, 0], [0, 1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
        assert set(groups[:2]).isdisjoint(groups[2:])

    @pytest.mark.parametrize("classes", [1, 2, 5, 15])
    @pytest.mark.parametrize("pseudo", [100, 400])
    def test_give_labels_their_share_of_what_batches_draw(self, classes, pseudo):
        labels = np.arange(40) % classes
        _, groups = distill.student_targets(labels, np.eye(classes)[labels], np.full((pseudo, classes), 1 / classes))
        row = pet.Encoded([2, 4, 3], [1], [[7]], [0])
        sampler = training.batches(groups, [row] * len(groups), pet.TrainSettings(steps=0))
        drawn = np.concatenate([next(sampler) for _ in range(400)])
        assert (drawn < 40).mean() == pytest.approx(distill.LABELLED_SHARE, abs=0.05)
        counts = np.bincount(labels[drawn[drawn < 40]], minlength=classes)
        assert counts.max() <= 1.1 * counts.min() + 1, "and every label the same part of it"


@pytest.mark.parametrize(
    ("rows", "steps", "student"), [(2, 40, 150), (100, 75, 150), (240, 120, 240), (536, 268, 536), (2909, 600, 1200)]
)
def test_steps_grow_with_the_labelled_rows_up_to_a_limit(rows, steps, student):
    assert budget.steps_for(rows) == steps
    assert budget.student_steps(rows) == student


@pytest.mark.parametrize(("rows", "classes", "folds"), [(536, 67, 4), (240, 15, 2), (32, 3, 2), (42, 1, 2)])
def test_there_are_more_folds_where_many_classes_have_few_rows_each(rows, classes, folds):
    assert budget.folds_for(np.arange(rows) % classes) == folds


class Clock:
    """Time that passes only when something is said to take some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(plan.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def execute(planned: Plan, clock: Clock, cost_of: dict[str, float]) -> dict[str, int]:
    """Runs all jobs in turn; `cost_of` is what a token of each really costs. The steps each got."""
    taken = {}
    for job in list(planned.waiting):
        steps = taken[job.name] = planned.steps(job)
        seconds = steps * job.tokens_per_step * cost_of[job.name]
        clock.now += seconds
        planned.trained(job, steps, seconds)
    return taken


def test_the_estimate_is_of_what_is_wished_or_of_what_the_budget_has(clock):
    jobs = [Job("a", 40, 10.0), Job("b", 20, 10.0)]
    plenty = planned_for(clock, 1000, train_cost=0.1, infer_cost=0.01, infer_tokens=500.0, waiting=jobs)
    assert plenty.seconds_left() == pytest.approx(60 + 5)
    tight = planned_for(clock, 30, train_cost=0.1, infer_cost=0.01, infer_tokens=500.0, waiting=jobs)
    assert tight.seconds_left() == pytest.approx(30)
    none = planned_for(clock, 1, train_cost=0.1, infer_cost=0.01, infer_tokens=500.0, waiting=jobs)
    assert none.seconds_left() == pytest.approx(2 * plan.MINIMUM_STEPS + 5), "least steps are taken late too"


def planned_for(clock: Clock, seconds: float, **rest) -> Plan:
    """A plan whose jobs have `seconds` from now on, the reserve already taken off."""
    return Plan(clock.now, seconds / (1 - plan.RESERVE_SHARE), **rest)


def jobs(*wishes: int, tokens: float = 100.0) -> list[Job]:
    return [Job(f"job{i}", wish, tokens) for i, wish in enumerate(wishes)]


class TestPlan:
    def test_grants_every_wish_where_there_is_time(self, clock):
        planned = planned_for(clock, 1000, train_cost=1e-3, waiting=jobs(50, 80))
        assert execute(planned, clock, {"job0": 1e-3, "job1": 1e-3}) == {"job0": 50, "job1": 80}

    def test_shares_what_there_is_in_proportion_to_wishes_and_tokens(self, clock):
        waiting = [*jobs(100, 50), Job("long", 100, 300.0)]
        planned = planned_for(clock, 22.5, train_cost=1e-3, waiting=waiting)  # half of all wishes
        assert execute(planned, clock, dict.fromkeys(("job0", "job1", "long"), 1e-3)) == {
            "job0": pytest.approx(50, abs=1),
            "job1": pytest.approx(25, abs=1),
            "long": pytest.approx(50, abs=1),
        }
        assert clock.now <= 1022.5 + 0.3

    def test_leaves_time_for_inference_to_come(self, clock):
        planned = planned_for(clock, 20, train_cost=1e-3, infer_cost=1e-4, infer_tokens=100_000, waiting=jobs(200))
        assert planned.steps(planned.waiting[0]) == pytest.approx(100, abs=1)
        planned.inferred(100_000, 10.0)
        assert planned.infer_tokens == 0
        assert planned.steps(planned.waiting[0]) == pytest.approx(200, abs=1), "the clock has not moved"

    def test_shortens_what_follows_on_a_machine_that_turns_slow(self, clock):
        waiting = jobs(*[100] * 10)
        planned = planned_for(clock, 100, train_cost=1e-3, waiting=waiting)
        costs = {job.name: 1e-3 if i < 3 else 4e-3 for i, job in enumerate(waiting)}
        taken = list(execute(planned, clock, costs).values())
        assert taken[:3] == [100] * 3
        assert all(later < 60 for later in taken[4:])
        assert taken[4] <= 3 * taken[-1], "the first to follow does not take what the last ones need"
        assert min(taken) >= plan.MINIMUM_STEPS
        assert clock.now <= 1100 + 8, "and is not late by more than the job at which it turned"

    def test_never_goes_under_the_minimum_nor_over_the_wish(self, clock):
        planned = planned_for(clock, -5, train_cost=1.0, waiting=jobs(100, 3))
        assert [planned.steps(job) for job in planned.waiting] == [plan.MINIMUM_STEPS, 3]

    def test_gives_no_steps_when_the_grace_is_over(self, clock):
        planned = Plan(clock.now, 60, train_cost=1.0, waiting=jobs(100))
        clock.now += 60 + plan.GRACE_SECONDS - 1
        assert planned.steps(planned.waiting[0]) == plan.MINIMUM_STEPS
        clock.now += 2
        assert planned.steps(planned.waiting[0]) == 0
        planned.trained(planned.waiting[0], 0, 0.1)
        assert planned.train_cost == 1.0, "of no steps nothing is learnt"

    def test_gives_the_time_of_jobs_that_an_earlier_attempt_finished_to_the_rest(self, clock):
        planned = planned_for(clock, 10, train_cost=1e-3, waiting=jobs(100, 100))
        first, second = planned.waiting
        assert planned.steps(second) == pytest.approx(50, abs=1)
        planned.done(first)
        assert planned.steps(second) == pytest.approx(100, abs=1)
