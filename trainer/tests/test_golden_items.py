"""Golden texts of a bundle: our own whatever the templates name, because a bundle outlives the erasure of a text."""

import pytest

from fewloop_trainer.bundle import GOLDEN_TEXTS, OVER_LONG, golden_items
from fewloop_trainer.task import load_task
from folders import definition_of

OURS = "".join((*GOLDEN_TEXTS, OVER_LONG))


@pytest.mark.parametrize(
    ("kind", "templates"),
    [
        ("single-label", ["{text}很{mask}"]),
        ("single-label", ["{title}：{text}很{mask}", "{mask}，{title}"]),
        ("single-label", ["{text|blank:#词#}"]),
        ("sentence-pair", ["{text}？{mask}，{textPair}"]),
        ("multiple-choice", ["{content|blank:#idiom#}，{text}"]),
    ],
)
def test_hold_every_field_and_only_texts_of_our_own(kind, templates):
    definition = definition_of() | {"kind": kind, "templates": templates}
    if kind == "multiple-choice":
        definition["labels"] = []
    items = golden_items(load_task(definition))
    assert len(items) > len(GOLDEN_TEXTS)
    assert max(len(item["text"]) for item in items) > 500
    for item in items:
        assert ("textPair" in item) == (kind == "sentence-pair")
        assert ("choices" in item) == (kind == "multiple-choice")
        assert set(item.get("fields", {})) == {n for n in ("title", "content") if any(n in t for t in templates)}
        for value in (item["text"], item.get("textPair", ""), *item.get("fields", {}).values()):
            for marker in ("#词#", "#idiom#"):
                value = value.replace(marker, "")
            assert all(part in OURS for part in value.split(OVER_LONG))
    for value in items[-1].get("fields", {}).values():
        for marker in ("#词#", "#idiom#"):
            value = value.replace(marker, "")
        assert items[-1]["text"].index(value) > 500, "the last is cut around what its further fields hold"
    if kind == "sentence-pair":
        assert any(item["textPair"] == OVER_LONG for item in items)
        assert any(item["text"] != item["textPair"] for item in items)


@pytest.mark.parametrize(("method", "held"), [("pet", set()), ("fine-tune", {"title"})])
def test_hold_the_fields_of_the_input_where_a_method_sees_it(method, held):
    definition = definition_of(method=[method], templates=["{text}很{mask}"], input="{title}{sep}{text}")
    assert all(set(item.get("fields", {})) == held for item in golden_items(load_task(definition)))
