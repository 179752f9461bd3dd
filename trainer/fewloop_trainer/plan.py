"""The budget: how many steps each training job gets, so that the whole run fits whatever the machine.

Time left for training is shared among the jobs that are left in proportion to their wishes, at the cost per token that
the latest steps had: a machine that turns slow in the middle shortens what follows.
"""

import time
from dataclasses import dataclass, field

RESERVE_SHARE = 0.12
"""Of the budget, kept for export, parity and what cannot be foreseen."""

MINIMUM_STEPS = 6
"""Fewer teach nothing; they are taken late too, until the grace is over."""

GRACE_SECONDS = 60.0
"""How late a starved machine may make a run take its least steps; after that models stay as they are."""


@dataclass(frozen=True)
class Job:
    """`tokens_per_step` counts both passes of R-Drop."""

    name: str
    wished_steps: int
    tokens_per_step: float


@dataclass
class Plan:
    started: float
    """In `time.monotonic` seconds."""
    budget_seconds: float
    train_cost: float = 0.0
    """Seconds per token of training."""
    infer_cost: float = 0.0
    """Seconds per token of inference."""
    infer_tokens: float = 0.0
    """Tokens of inference still to come."""
    waiting: list[Job] = field(default_factory=list)

    def steps(self, job: Job) -> int:
        """Steps of a job that is about to start, between `MINIMUM_STEPS` and its wish; none when the grace is over."""
        now = time.monotonic()
        if now > self.started + self.budget_seconds + GRACE_SECONDS:
            return 0
        wished = sum(other.wished_steps * other.tokens_per_step for other in self.waiting)
        seconds = self._deadline(RESERVE_SHARE) - now - self.infer_tokens * self.infer_cost
        share = seconds * job.wished_steps * job.tokens_per_step / max(1e-9, wished)
        affordable = int(share / max(1e-9, self.train_cost * job.tokens_per_step))
        return max(min(MINIMUM_STEPS, job.wished_steps), min(job.wished_steps, affordable))

    def seconds(self, job: Job, steps: int) -> float:
        """How long that many steps may take before they are cut short.

        Half again what they should, into half of the reserve at most; more where all other wishes leave it. A machine
        that turns slow in the middle of a long job would be late by its whole length.
        """
        left = self._deadline(RESERVE_SHARE / 2) - time.monotonic()
        planned = steps * job.tokens_per_step * self.train_cost
        others = sum(o.wished_steps * o.tokens_per_step for o in self.waiting if o.name != job.name)
        spare = left - others * self.train_cost - self.infer_tokens * self.infer_cost
        return max(1e-3, min(1.5 * planned, left), spare)

    def seconds_left(self) -> float:
        """Of all training and inference to come: of what is wished, or what the budget has for it."""
        inference = self.infer_tokens * self.infer_cost
        wished = sum(job.wished_steps * job.tokens_per_step for job in self.waiting) * self.train_cost
        least = sum(min(MINIMUM_STEPS, j.wished_steps) * j.tokens_per_step for j in self.waiting) * self.train_cost
        left = self._deadline(RESERVE_SHARE) - time.monotonic() - inference
        return inference + max(least, min(wished, left))

    def left(self) -> float:
        """Seconds of the budget."""
        return self.started + self.budget_seconds - time.monotonic()

    def _deadline(self, reserve: float) -> float:
        return self.started + (1 - reserve) * self.budget_seconds

    def trained(self, job: Job, steps: int, seconds: float) -> None:
        self.done(job)
        if steps > 0:
            self.train_cost = 0.5 * self.train_cost + 0.5 * seconds / (steps * job.tokens_per_step)

    def done(self, job: Job) -> None:
        self.waiting = [other for other in self.waiting if other.name != job.name]

    def replace(self, job: Job) -> None:
        """What is known better now of a job that is still to come."""
        self.waiting = [job if other.name == job.name else other for other in self.waiting]

    def inferred(self, tokens: float, seconds: float) -> None:
        self.infer_tokens = max(0.0, self.infer_tokens - tokens)
        measured = seconds / max(1.0, tokens)
        self.infer_cost = measured if self.infer_cost == 0 else 0.5 * self.infer_cost + 0.5 * measured
