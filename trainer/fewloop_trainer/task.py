"""A task, read from the canonical definition (JSON) that the service writes: every default is already filled in.

Twin of `src/task/` (types.ts, template.ts), which owns the checking; here a definition is taken as it stands.
"""

import re
from dataclasses import dataclass

DEFAULT_NEGATIVES, DEFAULT_SHORTLIST = 3, 16
"""Of definitions that were written before the settings were; the task file's own defaults."""
DEFAULT_PRECISIONS = ("fp32",)
"""Likewise; the task file's own default has int8, too."""

DEFAULT_INPUT = {"sentence-pair": "{text}{sep}{textPair}"}
"""By kind; of the others `{text}`."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Label:
    name: str
    words: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True)
class Literal:
    text: str


@dataclass(frozen=True)
class Mask:
    pass


@dataclass(frozen=True)
class Sep:
    """[SEP] inside the rendering: what follows the first one is the second segment."""


@dataclass(frozen=True)
class Hypothesis:
    """The description of the label that a row asks about: `item["hypothesis"]`, never cut."""


@dataclass(frozen=True)
class Field:
    name: str
    blank: str | None = None
    """The marker inside the field where the masks stand; None where they stand outside it."""


Piece = Literal | Mask | Sep | Hypothesis | Field


@dataclass(frozen=True)
class Selection:
    strategy: str
    threshold1: float
    threshold2: float
    threshold3: float
    floor: float


@dataclass(frozen=True)
class Efl:
    """Random negatives for each example; the label of a random pair (None: it has none); how many labels a text is
    asked about at most."""

    negatives: int
    negative_label: str | None
    shortlist: int


@dataclass(frozen=True)
class Serving:
    """Precisions to offer the service, and how far each must agree with fp32: shares of all texts, of any label's."""

    policy: str
    precisions: tuple[str, ...]
    min_agreement: float
    min_label_agreement: float


@dataclass(frozen=True)
class Adaptation:
    """`tapt`: whether a run adapts the base model to its unlabelled texts first, in `passes` over them and
    `budget_share` of its budget at most. `auxiliary`: the weight of PET's masked-language-modelling loss."""

    tapt: bool = False
    passes: float = 3
    budget_share: float = 0.3
    auxiliary: float = 0.0


@dataclass(frozen=True)
class Task:
    name: str
    kind: str
    methods: tuple[str, ...]
    labels: tuple[Label, ...]
    templates: tuple[str, ...]
    input: str
    """What methods other than PET see of an item: a template without masks."""
    max_length: int
    serving: Serving
    prior: str
    strategies: tuple[str, ...]
    selection: Selection
    efl: Efl
    adaptation: Adaptation
    teachers: str
    """`in-turn`: PET's strategies in turn over the templates; `product`: every strategy with every template."""
    seeds: int
    rounds: int
    unlabelled: int | None
    """Unlabelled rows that a run gets, where the task file says how many."""
    student_templates: str
    """`best`: the best teacher's; `all`: the student is tried with each."""
    student_strategies: tuple[str, ...]
    budget_seconds: float
    definition: dict

    @property
    def label_names(self) -> list[str]:
        return [label.name for label in self.labels]

    @property
    def rendered_by(self) -> list[str]:
        """All templates that items are rendered by, whichever method has them."""
        return [*self.templates, *([self.input] if set(self.methods) - {"pet"} else [])]

    @property
    def label_words(self) -> dict[str, list[str]]:
        """Label to its words, in the definition's order: a member's `labelWords` in the manifest."""
        return {label.name: list(label.words) for label in self.labels}

    def labels_of(self, item: dict) -> list[str]:
        """What the item may be called: the task's labels, or its own choices."""
        return list(item["choices"]) if self.kind == "multiple-choice" else self.label_names

    def words_of(self, item: dict) -> list[list[str]]:
        """Words of each of `labels_of(item)`; a choice is its own word."""
        if self.kind == "multiple-choice":
            return [[choice] for choice in item["choices"]]
        return [list(label.words) for label in self.labels]


def load_task(definition: dict) -> Task:
    learning = definition["learning"]
    selection = learning["selection"]
    efl, student = definition.get("efl", {}), learning.get("student", {})
    serving = definition["serving"]
    return Task(
        name=definition["name"],
        kind=definition["kind"],
        methods=tuple(definition["method"]),
        labels=tuple(
            Label(label["name"], tuple(label["words"]), label.get("description", "")) for label in definition["labels"]
        ),
        templates=tuple(definition["templates"]),
        input=definition.get("input") or DEFAULT_INPUT.get(definition["kind"], "{text}"),
        max_length=definition["maxLength"],
        serving=Serving(
            serving["policy"],
            tuple(serving.get("precisions", DEFAULT_PRECISIONS)),
            serving.get("minAgreement", 0.99),
            serving.get("minLabelAgreement", 0.97),
        ),
        prior=learning["prior"],
        strategies=tuple(learning["strategies"]),
        selection=Selection(
            selection["strategy"],
            selection["threshold1"],
            selection["threshold2"],
            selection["threshold3"],
            selection["floor"],
        ),
        efl=Efl(
            efl.get("negatives", DEFAULT_NEGATIVES),
            efl.get("negativeLabel"),
            efl.get("shortlist", DEFAULT_SHORTLIST),
        ),
        adaptation=_adaptation(learning.get("adaptation")),
        teachers=learning.get("teachers", "in-turn"),
        seeds=learning.get("seeds", 1),
        rounds=learning["rounds"],
        unlabelled=learning.get("unlabelled"),
        student_templates=student.get("templates", "best"),
        student_strategies=tuple(student.get("strategies", ["plain"])),
        budget_seconds=learning["budgetSeconds"],
        definition=definition,
    )


def _adaptation(written: dict | None) -> Adaptation:
    if written is None:
        return Adaptation()
    return Adaptation(written["tapt"], written["passes"], written["budgetShare"], written["auxiliary"])


_SPECIAL: dict[str, Piece] = {"mask": Mask(), "sep": Sep(), "hypothesis": Hypothesis()}


def parse_template(template: str) -> list[Piece]:
    """`{mask}`, `{field}` and `{field|blank:MARKER}` as pieces; what stands between is literal, spaces included.

    Templates of members of other methods than PET also have `{sep}` and `{hypothesis}`.
    """
    pieces: list[Piece] = []
    start = 0
    for match in _PLACEHOLDER.finditer(template):
        if match.start() > start:
            pieces.append(Literal(template[start : match.start()]))
        name, _, option = match.group(1).partition("|")
        if name in _SPECIAL:
            pieces.append(_SPECIAL[name])
        elif option.startswith("blank:"):
            pieces.append(Field(name, option.removeprefix("blank:")))
        else:
            pieces.append(Field(name))
        start = match.end()
    if start < len(template):
        pieces.append(Literal(template[start:]))
    return pieces
