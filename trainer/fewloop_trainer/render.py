"""Rendering: an item and a template become token ids, id for id as `src/inference/render.ts` makes them.

[CLS], the pieces, [SEP]; every piece is tokenized on its own, so that a word never depends on its neighbour piece.
Fields are cut to fit `maxLength`, the template and its masks never; where a field holds the value of another one of
the item's `fields` that the template names, around that. `test/contract/rendering.json` holds both
languages to the same ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer

from fewloop_trainer.task import Field, Hypothesis, Literal, Mask, Piece, Sep, Task, parse_template

RENDERING = 2
"""Stands in the manifest: bundles without it were trained on texts that were cut at their ends, spans or not."""
OWN = ("text", "textPair")
KNOWN_TEXTS = 20_000
"""Texts whose ids are kept."""


@dataclass(frozen=True)
class Encoding:
    """One rendering, unpadded."""

    ids: list[int]
    type_ids: list[int]
    mask_positions: list[int]


class Renderer:
    def __init__(self, tokenizer: Tokenizer, task: Task):
        self.tokenizer = tokenizer
        self._task = task
        self._cls, self._sep, self._mask, self._unknown = (
            tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]", "[UNK]")
        )
        # A text that spells a special token must not become one.
        self._reserved = {self._cls, self._sep, self._mask, tokenizer.token_to_id("[PAD]")}
        self.input = task.input
        self._pieces = {template: parse_template(template) for template in (*task.templates, task.input)}
        self._known: dict[str, list[int]] = {}

    def word_tokens(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of label words, [W][M]; ValueError where nothing of a word can be spelled or the counts differ.

        The linter lets no unknown character into a task's own words; a rare one of an idiom among an item's choices is
        no reason to refuse the item.
        """
        tokens = self._tokenize(list(words))
        for word, ids in zip(words, tokens, strict=True):
            if all(token == self._unknown for token in ids):
                raise ValueError(f"the tokenizer cannot spell the label word {word!r}")
        if len({len(ids) for ids in tokens}) > 1:
            raise ValueError(f"label words have different token counts: {', '.join(words)}")
        return tokens

    def masks_of(self, item: dict) -> int:
        if self._task.kind == "multiple-choice":
            return len(self.word_tokens(item["choices"])[0])
        return self._masks

    @cached_property
    def _masks(self) -> int:
        # Asked for where a template has masks: a task without PET needs no words.
        return len(self.word_tokens([word for label in self._task.labels for word in label.words])[0])

    def render(self, template: str, item: dict) -> Encoding:
        """ValueError where a field is missing, a marker is absent or the template alone is over `maxLength`."""
        pieces = self._pieces.get(template) or parse_template(template)
        masks = [self._mask] * self.masks_of(item) if any(_holds_masks(piece) for piece in pieces) else []
        tokens = iter(self._tokenize([text for piece in pieces for text in _texts(piece, item)]))

        parts: list[list[list[int]]] = []  # per piece: [ids], or [left, right] around the masks of a blank
        fields: list[int] = []
        fixed = 2
        for piece in pieces:
            if isinstance(piece, Field):
                fields.append(len(parts))
                parts.append([next(tokens)] if piece.blank is None else [next(tokens), next(tokens)])
                fixed += 0 if piece.blank is None else len(masks)
            else:
                special = masks if isinstance(piece, Mask) else [self._sep] if isinstance(piece, Sep) else next(tokens)
                parts.append([special])
                fixed += len(special)
        budget = self._task.max_length - fixed
        if budget < 0:
            raise ValueError(f"template {template!r} alone is longer than maxLength {self._task.max_length}")

        further = [pieces[index].name for index in fields if pieces[index].name not in OWN]
        lengths = cut_lengths([sum(len(ids) for ids in parts[index]) for index in fields], budget)
        for index, length in zip(fields, lengths, strict=True):
            if len(parts[index]) == 1:
                (whole,), name = parts[index], pieces[index].name
                if length < len(whole):
                    others = [other for other in further if other != name]
                    (text,) = _parts(pieces[index], item)
                    spans = self._span_tokens(text, others, item, len(whole))
                    parts[index] = [cut_field(whole, spans, length)]
            else:
                left, right = cut_window(*parts[index], length)
                parts[index] = [left, masks, right]

        ids, first_segment = [self._cls], None
        for piece, part in zip(pieces, parts, strict=True):
            for run in part:
                ids.extend(run)
            if isinstance(piece, Sep) and first_segment is None:
                first_segment = len(ids)
        ids.append(self._sep)
        first_segment = first_segment or len(ids)
        # Reserved ids are replaced inside fields and literals, so every [MASK] left is the template's own.
        positions = [position for position, token in enumerate(ids) if token == self._mask]
        return Encoding(ids, [0] * first_segment + [1] * (len(ids) - first_segment), positions)

    def _span_tokens(self, text: str, names: Sequence[str], item: dict, length: int) -> list[tuple[int, int]]:
        """First token and the one behind the last of each of the fields `names` that `text`, of `length` tokens, holds,
        as tokens before it and its own say."""
        found = []
        for before, value in _spans(text, names, item.get("fields") or {}):
            left, own = self._tokenize([before, value])
            # Of a word that the span begins or ends in, the parts may have more tokens than the whole.
            start = min(length, len(left))
            found.append((start, min(length, start + len(own))))
        return found

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        """Each distinct text once: a text beside a hundred hypotheses would be tokenized as often."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(fresh) > KNOWN_TEXTS:
            self._known.clear()
            fresh = list(dict.fromkeys(texts))
        if fresh:
            for text, encoding in zip(fresh, self.tokenizer.encode_batch(fresh, add_special_tokens=False), strict=True):
                self._known[text] = [self._unknown if token in self._reserved else token for token in encoding.ids]
        return [self._known[text] for text in texts]


def cut_lengths(lengths: Sequence[int], budget: int) -> list[int]:
    """The lengths after trimming the longest by one until their sum is within `budget`; of equals the later first."""
    if sum(lengths) <= budget:
        return list(lengths)
    low, high = 0, max(lengths)  # the highest level c with sum(min(length, c)) <= budget
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(length, middle) for length in lengths) <= budget:
            low = middle
        else:
            high = middle - 1
    rest = budget - sum(min(length, low) for length in lengths)
    cut = []
    for length in lengths:
        extra = 1 if length > low and rest > 0 else 0
        rest -= extra
        cut.append(min(length, low) + extra)
    return cut


def cut_field(ids: list[int], spans: Sequence[tuple[int, int]], budget: int) -> list[int]:
    """`budget` tokens around the first of the spans and those that find room with it; of none from the beginning."""
    start, end = spans[0] if spans else (0, 0)
    for first, last in spans:
        if max(end, last) - min(start, first) <= budget:
            start, end = min(start, first), max(end, last)
    left, right = cut_window(ids[:start], ids[end:], max(0, budget - (end - start)))
    return [*left, *ids[start:end], *right][:budget]


def cut_window(left: list[int], right: list[int], budget: int) -> tuple[list[int], list[int]]:
    """`budget` tokens around what stands between the two, as even as they allow."""
    keep = min(len(left), max(budget // 2, budget - len(right)))
    return left[len(left) - keep :], right[: budget - keep]


def _holds_masks(piece: Piece) -> bool:
    return isinstance(piece, Mask) or (isinstance(piece, Field) and piece.blank is not None)


def _texts(piece: Piece, item: dict) -> list[str]:
    """What is tokenized of a piece: nothing, one text, or the two sides of a blank."""
    if isinstance(piece, Literal):
        return [piece.text]
    if isinstance(piece, Hypothesis):
        return [item["hypothesis"]]
    return _parts(piece, item) if isinstance(piece, Field) else []


def _spans(text: str, names: Sequence[str], fields: dict) -> list[tuple[str, str]]:
    """Those of the fields `names` that the text holds, each after what stands before it there: where `NAME_index` says,
    beside a field `NAME_text` (FewCLUE's CLUEWSC), and that is right; else where it comes first."""
    found = []
    for name in names:
        value, at = fields[name], fields.get(name.removesuffix("text") + "index") if name.endswith("_text") else None
        if type(at) is not int or at < 0 or not text.startswith(value, at):
            at = text.find(value)
        if value and at >= 0:
            found.append((text[:at], value))
    return found


def _parts(piece: Field, item: dict) -> list[str]:
    value = item.get(piece.name) if piece.name in OWN else (item.get("fields") or {}).get(piece.name)
    if not isinstance(value, str):
        raise ValueError(f"the template's field {piece.name!r} is missing")
    if piece.blank is None:
        return [value]
    left, marker, right = value.partition(piece.blank)
    if not marker:
        raise ValueError(f"field {piece.name!r} does not hold the marker {piece.blank!r}")
    return [left, right]
