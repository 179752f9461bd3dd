"""Further precisions of a bundle: written, compared with fp32 on the task's own texts, and admitted or refused.

A precision is refused for the members of a serving policy whose predictions agree with fp32's on too few texts, of all
or of a label: a rare label may lose a third of its texts while 99 % of all stay as they are. So a student may be
admitted whose teachers are not; those answer in fp32 beside it. Thresholds are the task file's. What is refused leaves
no file; the manifest says why.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fewloop_trainer.data import RunData, targets
from fewloop_trainer.learners import Learner
from fewloop_trainer.observe import Observations
from fewloop_trainer.precision import FusionError, Recorder, fuse, load_plain, to_half, to_int8
from fewloop_trainer.scores import combine_members
from fewloop_trainer.task import Serving
from fewloop_trainer.training import AtWork, chunks_of, nobody_waits

FEWEST_TEXTS = 2000
FEWEST_OF_A_LABEL = 100
"""Texts that fp32 gives the label, below which its share of agreement says nothing (97 % of fewer are two or three)."""
RECORDED_TEXTS = 128
"""For int8: largest sizes of channels hardly move beyond."""
BATCH_TOKENS = 512
BUDGET_SHARE = 0.25
"""Of a run's budget, which its plan leaves for all of this."""
COST = {"fp32": 1.0, "fp16": 1.1, "int8": 0.5}
"""Of a text, in passes of fp32 on a CPU."""
PARITY = {"fp16": 5e-3, "int8": 5e-2}
"""Largest difference of a golden probability (CONTRACT.md), which is also what the service demands on its machine."""
ROLES = {"ensemble": "teacher", "student": "student"}
"""Whose members a policy asks. The cascade's labels are the one's or the other's."""


@dataclass(frozen=True)
class Served:
    """A member as it is served, and how the fp32 graph answers golden rows."""

    role: str
    weight: float
    offsets: np.ndarray
    learner: Learner
    model: Any
    graph: Path
    golden: list[tuple[Any, np.ndarray]]
    """Encoded row, and its probabilities [C] in the bundle."""


class Refusal(Exception):
    """Of every precision; the message says why."""


def tokens_to_measure(data: RunData, tokens_a_text: float) -> float:
    """What the comparison will cost, for the run's plan: a pass of all teachers' and the student's graphs in each
    precision; none where there will be none."""
    precisions = data.task.serving.precisions
    if len(precisions) < 2 or len(data.unlabelled) < FEWEST_TEXTS:
        return 0.0
    return tokens_a_text * FEWEST_TEXTS * sum(COST[p] for p in precisions)


def further_precisions(
    data: RunData,
    members: Sequence[Any],
    policies: dict[str, dict[str, object]],
    thresholds: np.ndarray | None,
    options: onnxruntime.SessionOptions,
    seconds: float,
    at_work: AtWork = nobody_waits,
) -> tuple[list[dict], dict[str, list[Path | None]]]:
    """Manifest entries of the task's precisions but fp32, and for each admitted one its graphs, in members' order; None
    where members of that role stay in fp32.

    `members` give a `Served` each when called: one model at a time is in memory. What would take more than
    `seconds` is not begun.
    """
    wanted = [p for p in data.task.serving.precisions if p != "fp32"]
    if not wanted:
        return [], {}
    if len(data.unlabelled) < FEWEST_TEXTS:
        reason = f"{len(data.unlabelled)} unlabelled texts, and agreement is measured on {FEWEST_TEXTS}"
        return [_refused(p, reason) for p in wanted], {}
    comparison = _Comparison(data, options, wanted, len(members), time.monotonic() + seconds, at_work)
    try:
        for member in members:
            comparison.add(member())
    except Refusal as refusal:
        for precision in wanted:
            comparison.keep(precision, [])
        return [_refused(p, str(refusal)) for p in wanted], {}
    entries = [comparison.judge(p, policies, thresholds) for p in wanted]
    kept = {e["precision"]: comparison.keep(e["precision"], e["roles"]) for e in entries}
    return entries, {e["precision"]: kept[e["precision"]] for e in entries if e["admitted"]}


def _refused(precision: str, reason: str) -> dict[str, Any]:
    return {"precision": precision, "admitted": False, "roles": [], "reason": reason}


def agreement(
    ours: np.ndarray, theirs: np.ndarray, labels: Sequence[str], thresholds: np.ndarray | None
) -> dict[str, Any]:
    """Of probabilities [N, C] in fp32 and in another precision: the share of texts with the same label, or, with
    `thresholds` [C], the same set of labels; for each label that fp32 gives, its texts and the share that keep it; the
    mean difference of a probability."""
    if thresholds is not None:
        a, b = ours >= thresholds, theirs >= thresholds
        same = (a == b).all(1)
        of_labels = [(a[:, i], (a & b)[:, i]) for i in range(len(labels))]
    else:
        a, b = ours.argmax(1), theirs.argmax(1)
        same = a == b
        of_labels = [(a == i, same & (a == i)) for i in range(len(labels))]
    return {
        "share": float(same.mean()),
        "labels": {
            name: {"texts": int(has.sum()), "share": float(kept.sum() / has.sum())}
            for name, (has, kept) in zip(labels, of_labels, strict=True)
            if has.any()
        },
        "probability": float(np.abs(ours - theirs).mean()),
    }


def objections(policy: str, found: dict[str, Any], serving: Serving) -> list[str]:
    """Why an `agreement` is not enough; nothing where it is."""
    reasons, asked = [], f"{serving.min_agreement:.1%}"
    if found["share"] < serving.min_agreement:
        reasons.append(f"{policy}: agrees with fp32 on {found['share']:.2%} of texts, and {asked} are asked for")
    for name, of_label in found["labels"].items():
        if of_label["texts"] >= FEWEST_OF_A_LABEL and of_label["share"] < serving.min_label_agreement:
            reasons.append(f"{policy}: agrees with fp32 on {of_label['share']:.2%} of texts of {name}")
    return reasons


class _Comparison:
    def __init__(
        self,
        data: RunData,
        options: onnxruntime.SessionOptions,
        precisions: list[str],
        members: int,
        deadline: float,
        at_work: AtWork,
    ):
        self.data, self.options, self.precisions = data, options, precisions
        self.members, self.deadline, self.at_work = members, deadline, at_work
        order = np.random.default_rng(int(data.settings["seed"]) + 2).permutation(len(data.unlabelled))
        shuffled = [data.unlabelled[i] for i in order]
        self.texts = shuffled[:FEWEST_TEXTS]
        self.labelled = data.dev or data.train
        self.recorded = [*shuffled[FEWEST_TEXTS:], *data.train, *self.texts][:RECORDED_TEXTS]
        self.graphs: dict[str, list[Path]] = {p: [] for p in precisions}
        self.failed: dict[str, str] = {}
        self.fused: dict[str, list[dict[str, int]]] = {}
        self.parity = dict.fromkeys(precisions, 0.0)
        self.roles: list[tuple[str, float]] = []
        self.probabilities: dict[str, list[np.ndarray]] = {p: [] for p in ("fp32", *precisions)}
        self.observe = Observations(data.task)

    def add(self, member: Served) -> None:
        """Writes the member's graphs and asks each for all texts. Raises Refusal where there is no time for that."""
        self.roles.append((member.role, member.weight))
        recorder = Recorder(load_plain(member.graph), self.options)
        started = time.monotonic()
        self._ask(member, recorder, self.recorded)
        self._afford((time.monotonic() - started) / len(self.recorded))
        paths = {"fp32": member.graph}
        for precision in [p for p in self.precisions if p not in self.failed]:
            self.at_work()
            paths[precision] = member.graph.with_suffix(f".{precision}.onnx")
            self.graphs[precision].append(paths[precision])
            try:
                onnx.save(self._converted(precision, member, recorder), paths[precision])
            except FusionError as error:
                self.failed[precision] = str(error)
                del paths[precision]
        for precision, path in paths.items():
            session = onnxruntime.InferenceSession(path, self.options, providers=["CPUExecutionProvider"])
            scores = self._ask(member, session, [*self.texts, *self.labelled])
            broken = int(np.isnan(scores).any(-1).sum())
            if precision != "fp32" and broken > 0:
                self.failed[precision] = f"the scores of {broken} of {len(scores)} texts are no numbers"
                continue
            self.probabilities[precision].append(self.observe.probabilities(scores, member.offsets))
            if precision == "fp32":
                continue
            for row, expected in member.golden:
                got = member.learner.served(session, member.model, [row])[0, : len(expected)]
                got = self.observe.probabilities(got, member.offsets[: len(expected)])
                self.parity[precision] = max(self.parity[precision], float(np.abs(got - expected).max()))

    def _converted(self, precision: str, member: Served, recorder: Recorder) -> onnx.ModelProto:
        proto = load_plain(member.graph)
        if precision == "int8":
            return to_int8(proto, recorder.largest)
        config = member.model.bert.config
        fused, counts = fuse(proto, config.num_hidden_layers, config.num_attention_heads, config.hidden_size)
        self.fused.setdefault(precision, []).append(counts)
        return to_half(fused)

    def _ask(self, member: Served, session: Any, items: list[dict]) -> np.ndarray:
        """Scores [N, C]."""
        rows = member.learner.encode(items)
        scores = np.zeros((len(rows), self.data.classes))
        for chunk in chunks_of(rows, BATCH_TOKENS, self.at_work):
            scores[chunk] = member.learner.served(session, member.model, [rows[i] for i in chunk])
        return scores

    def _afford(self, seconds_a_text: float) -> None:
        left = self.members - len(self.roles) + 1
        needed = seconds_a_text * len(self.texts) * left * sum(COST[p] for p in self.probabilities)
        if time.monotonic() + needed > self.deadline:
            raise Refusal(
                f"comparing it with fp32 on {len(self.texts)} texts would have taken longer than the run may "
                "(learning.budgetSeconds)"
            )

    def judge(
        self, precision: str, policies: dict[str, dict[str, object]], thresholds: np.ndarray | None
    ) -> dict[str, Any]:
        if precision in self.failed:
            return _refused(precision, self.failed[precision])
        entry: dict[str, Any] = {
            "precision": precision,
            "admitted": True,
            "roles": [],
            "reason": None,
            "texts": len(self.texts),
            "agreement": {},
            "difference": {"from": "dev" if self.data.dev else "train", "rows": len(self.labelled)},
            "parity": self.parity[precision],
        }
        if precision in self.fused:
            entry["fused"] = self.fused[precision]
        reasons = []
        holds = bool(self.parity[precision] <= PARITY[precision])
        if not holds:
            reasons.append(f"a golden probability differs by {self.parity[precision]:.2g}")
        for policy, role in ROLES.items():
            if policy not in policies:
                continue
            calibration = policies[policy]
            ours, theirs = (self._policy(p, policy, float(calibration["temperature"])) for p in ("fp32", precision))
            n = len(self.texts)
            found = agreement(ours[:n], theirs[:n], self.data.task.label_names, thresholds)
            entry["agreement"][policy] = found
            entry["difference"][policy] = self._difference(ours[n:], theirs[n:], thresholds)
            against = objections(policy, found, self.data.task.serving)
            reasons += against
            if holds and not against:
                entry["roles"].append(role)
        if reasons:
            entry |= {"admitted": bool(entry["roles"]), "reason": "; ".join(reasons)}
        return entry

    def _policy(self, precision: str, policy: str, temperature: float) -> np.ndarray:
        chosen = [i for i, (own, _) in enumerate(self.roles) if own == ROLES[policy]]
        members = np.stack([self.probabilities[precision][i] for i in chosen])
        return self.observe.temper(combine_members(members, [self.roles[i][1] for i in chosen]), temperature)

    def _difference(self, ours: np.ndarray, theirs: np.ndarray, thresholds: np.ndarray | None) -> dict[str, float]:
        """Of accuracy and calibration error on labelled rows: the precision's less fp32's."""
        wanted = targets(self.data.task, self.labelled)
        a, b = (self.observe.evaluate(p, wanted, thresholds) for p in (ours, theirs))
        return {name: float(b[name]["value"] - a[name]["value"]) for name in ("accuracy", "ece")}

    def keep(self, precision: str, roles: Sequence[str]) -> list[Path | None]:
        """The graphs of members of these roles; those of others are removed."""
        kept: list[Path | None] = []
        for path, (role, _) in zip(self.graphs[precision], self.roles, strict=False):
            if role not in roles:
                path.unlink(missing_ok=True)
            kept.append(path if role in roles else None)
        return kept
