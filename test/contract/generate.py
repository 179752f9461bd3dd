"""Writes the golden vectors that both languages are held to: `python test/contract/generate.py` (the trainer's Python).

Run it only when the contract itself changes: a difference that a test shows is otherwise a defect in one language.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "trainer"))

import numpy as np  # noqa: E402
from fewloop_trainer import keys, scores  # noqa: E402
from fewloop_trainer.efl import beside_hypothesis  # noqa: E402
from fewloop_trainer.encoder import load_tokenizer  # noqa: E402
from fewloop_trainer.render import Renderer  # noqa: E402
from fewloop_trainer.task import load_task  # noqa: E402

BLANK = "{text|blank:#idiom#}"
TEXTS = {
    "plain": "物流很快，东西也不错。",
    "english and digits": "iPhone 15 Pro Max, battery health 98% — great!",
    "emoji": "太好用了😀👍🏽 👨‍👩‍👧 推荐",
    "special tokens spelled out": "前面[MASK]中间[SEP]后面[CLS][PAD][UNK]",
    "controls": "a\u0001b\u200bc\ufeffd\u0085e\tf\r\ng\u2028h",
    "full width and combining": "ＡＢＣ１２３　café ﬁ ①",
    "traditional, kana, rare": "價格貴 すごい 𠮷野家 Привет مرحبا",
    "over-long": "这台平板电脑用起来非常流畅。" * 40,
    "long word": "x" * 250,
    "one character": "好",
    "no token at all": "\u0001",
}


def definition(kind: str, templates: list[str], labels: dict[str, list[str]], max_length: int) -> dict:
    """A canonical definition, defaults filled in as `parseTask` does."""
    selection = {"strategy": "fused", "threshold1": 0.9, "threshold2": 0.95, "threshold3": 0.7, "floor": 0.5}
    trigger = {"newLabels": 50, "schedule": None, "drift": None, "cooldownMinutes": 60}
    gate = {"minVerdict": "not-worse", "margin": 0.01, "fourEyes": False, "shadowMinutes": 0, "canaryPercent": 0}
    return {
        "name": "contract",
        "kind": kind,
        "method": ["pet"],
        "labels": [{"name": name, "words": words, "was": []} for name, words in labels.items()],
        "templates": templates,
        "efl": {"negatives": 3, "negativeLabel": None, "shortlist": 16},
        "maxLength": max_length,
        "routing": {"accept": 0.85, "reviewContested": True, "beforeCalibration": "review"},
        "serving": {"policy": "ensemble", "precisions": ["fp32", "int8"], "minAgreement": 0.99, "minLabelAgreement": 0.97},
        "pool": {"capacity": 200000, "auditRate": 0.01},
        "learning": {
            "prior": "estimated",
            "strategies": ["plain", "r-drop"],
            "teachers": "in-turn",
            "seeds": 1,
            "selection": selection,
            "trigger": trigger,
            "rounds": 1,
            "student": {"templates": "best", "strategies": ["plain"]},
            "budgetSeconds": 240,
            "promotion": gate,
        },
        "stream": {"input": "fewloop.texts", "output": "fewloop.predictions"},
    }


def rendering_cases() -> list[tuple[dict, list[str], list[dict]]]:
    """Definition, templates (the definition's own, or those of members of other methods), items."""
    one = definition(
        "single-label",
        ["这是一条{mask}评。{text}", "{text} 总之很{mask}。", "{mask}", " {mask} and {text} 。"],
        {"正": ["好", "赞"], "负": ["差"]},
        32,
    )
    two = definition("single-label", ["{text}这是{mask}。"], {"书": ["书籍"], "机": ["手机", "电话"]}, 24)
    pair = definition(
        "sentence-pair",
        ["{text}？{mask}，{textPair}", "“{textPair}”和“{text}”：{mask}{text}"],
        {"是": ["对"], "否": ["错"]},
        21,
    )
    fields = definition("single-label", ["{title}：{text} {mask}"], {"正": ["好"], "负": ["差"]}, 16)
    choice = definition("multiple-choice", [BLANK, "填空：" + BLANK], {}, 20)
    long, short = "长句子里有很多字，一直写下去。" * 3, "短句"
    idioms = ["画蛇添足", "一心一意", "三长两短"]
    blanks = ["他总是#idiom#，", "前" * 40 + "#idiom#后", "前#idiom#" + "后" * 40, "前" * 40 + "#idiom#" + "后" * 40]
    blanks += ["#idiom#", "两个#idiom#和#idiom#都在"]
    pairs = [{"text": a, "textPair": b} for a in (long, short) for b in (long, short, TEXTS["emoji"])]
    titled = [{"text": long, "fields": {"title": long}}, {"text": short, "fields": {"title": "题" * 9, "n": 1}}]
    asked = ["这是一条好评。", "English [SEP] [MASK]", "\u0001"]
    seen = {"method": ["fine-tune"], "input": "{title}，{sep}{text}"}
    return [
        (one, one["templates"], [{"text": text} for text in TEXTS.values()]),
        (two, two["templates"], [{"text": text} for text in TEXTS.values()]),
        (pair, pair["templates"], pairs),
        (fields, fields["templates"], titled),
        (choice, choice["templates"], [{"text": text, "choices": idioms} for text in blanks]),
        (choice, choice["templates"], [{"text": blanks[0], "choices": ["甲乙", "丙丁"]}]),
        # 坼 is not in the vocabulary.
        (choice, choice["templates"], [{"text": blanks[0], "choices": ["一心一意", "天崩地坼"]}]),
        (one, ["{text}"], [{"text": text} for text in TEXTS.values()]),
        (pair, ["{text}{sep}{textPair}", "{textPair}{sep}{text}{sep}", "{sep}{text}？{mask}"], pairs),
        (
            one | {"maxLength": 20},
            ["{text}{sep}{hypothesis}"],
            [{"text": text, "hypothesis": h} for text in TEXTS.values() for h in asked],
        ),
        # What methods other than PET see, alone and beside a hypothesis.
        (
            fields | seen,
            [seen["input"], beside_hypothesis(seen["input"])],
            [item | {"hypothesis": "这是好评。"} for item in titled],
        ),
        *span_cases(),
    ]


def span_cases() -> list[tuple[dict, list[str], list[dict]]]:
    """Texts that hold the values of other fields, most of them over-long."""
    own = ["{text}其中{span2_text}指的{mask}是{span1_text}。", '"{span2_text}"{mask}是指"{span1_text}"。{text}']
    coreference = definition("single-label", own, {"true": ["就"], "false": ["不"]}, 32)
    before, after = "他们走了很远的路，天黑了才到家。" * 3, "夜里下起了大雨，谁也没有睡着。" * 3
    held = "张浃说他明天就来"

    def item(text: str, noun: str, pronoun: str, **index: object) -> dict:
        return {"text": text, "fields": {"span1_text": noun, "span2_text": pronoun, **index}}

    def at(text: str, noun: str, pronoun: str) -> dict:
        """Both where they come last."""
        return item(text, noun, pronoun, span1_index=text.rindex(noun), span2_index=text.rindex(pronoun))

    items = [
        at(held, "张浃", "他"),
        *(at(text, "张浃", "他") for text in (held + after, before + held, before + held + after)),
        item(before + held + after, "张浃", "他"),
        item(before + held, "张浃", "他", span2_index=3),
        *(item(before + held, "张浃", "他", span2_index=wrong) for wrong in (-1, 9999, "52", True, 2.5, None)),
        at("张浃" + before + "他", "张浃", "他"),
        item(before + held + after, "明天", "张浃"),
        item(before, "张浃", "她"),
        item(before + held + after, before[:40], "他"),
        at("😀" * 9 + before + "𠮷野家" + held + after, "野家", "他"),
        at("an unbelievable story " * 8 + "about it and Tokyo" + after, "Tokyo", "believ"),
        at("[MASK]" + before + "她[SEP]" + after, "[SEP]", "她"),
    ]
    aspects = definition("single-label", ["{title}，{aspect}：{mask}{text}"], {"正": ["好"], "负": ["差"]}, 24)
    rated = [
        {"text": before + "屏幕" + after, "fields": {"title": after + "屏幕", "aspect": "屏幕"}},
        {"text": after, "fields": {"title": after, "aspect": "屏幕", "aspect_index": 1}},
    ]
    hypothesis = {"hypothesis": "指的是同一个。"}
    return [
        (coreference, [*own, "{span2_text}指的是{span1_text}{sep}{text}"], items),
        (coreference, ["{text}{span2_text}{sep}{hypothesis}"], [row | hypothesis for row in items[:4]]),
        (aspects, aspects["templates"], rated),
    ]


def rendering() -> list[dict]:
    tokenizer = load_tokenizer(ROOT / "models/base-zh")
    cases = []
    for task_definition, templates, items in rendering_cases():
        task = load_task(task_definition)
        renderer = Renderer(tokenizer, task)
        case = {"definition": task_definition, "templates": templates, "rows": []}
        for item in items:
            words = [word for group in task.words_of(item) for word in group]
            encodings = [renderer.render(template, item) for template in templates]
            case["rows"].append(
                {
                    # The service hands the hypothesis beside the item, which is a caller's.
                    "item": {key: value for key, value in item.items() if key != "hypothesis"},
                    **({"hypothesis": item["hypothesis"]} if "hypothesis" in item else {}),
                    "words": renderer.word_tokens(words),
                    "encodings": [
                        {"ids": e.ids, "typeIds": e.type_ids, "maskPositions": e.mask_positions} for e in encodings
                    ],
                }
            )
        cases.append(case)
    return cases


def score_vectors() -> dict:
    rng = np.random.default_rng(3)
    combined = []
    for members, counts in [(1, [1, 1]), (2, [2, 1]), (3, [1, 3, 2]), (5, [1] * 10), (8, [4, 4])]:
        logits = rng.normal(0, 4, (members, sum(counts)))
        weights = rng.uniform(0.1, 1, members)
        offsets = rng.normal(0, 1, len(counts))
        per_label = scores.label_scores(logits, counts)
        distributions = scores.distribution_of(per_label, offsets)
        mean = scores.combine_members(distributions, weights)
        combined.append(
            {
                "wordCounts": counts,
                "wordLogits": logits.tolist(),
                "weights": weights.tolist(),
                "offsets": offsets.tolist(),
                "scores": per_label.tolist(),
                "distributions": distributions.tolist(),
                "combined": mean.tolist(),
                "tempered": {t: scores.apply_temperature(mean, float(t)).tolist() for t in ("0.5", "1", "2.7")},
                "disagreement": scores.disagreement_of(distributions, weights),
            }
        )
    priors = []
    for labels, prior in [(2, [0.5, 0.5]), (2, [0.9, 0.1]), (4, [0.1, 0.2, 0.3, 0.4])]:
        rows = rng.normal(0, 3, (40, labels)) + rng.normal(0, 4, labels)
        priors.append({"scores": rows.tolist(), "prior": prior, "offsets": scores.match_priors(rows, prior).tolist()})
    return {
        "combined": combined,
        "priors": priors,
        "independent": independent_vectors(),
        "shortlist": shortlist_vectors(),
        "inTurn": in_turn_vectors(),
    }


def in_turn_vectors() -> list[dict]:
    """Sure members and unsure ones, of like weights and of unlike ones."""
    rng = np.random.default_rng(6)
    vectors = []
    for members, labels, spread in [(1, 2, 1), (2, 3, 4), (5, 2, 1), (5, 2, 4), (5, 8, 8), (7, 3, 3)]:
        weights = np.ones(members) if labels == 2 else rng.uniform(0.05, 1, members)
        said = scores.distribution_of(rng.normal(0, spread, (members, 12, labels)))
        combined, asked = scores.ask_in_turn(said, weights)
        vectors.append(
            {
                "weights": weights.tolist(),
                "distributions": said.tolist(),
                "combined": combined.tolist(),
                "asked": asked.tolist(),
            }
        )
    return vectors


def shortlist_vectors() -> dict:
    rng = np.random.default_rng(5)
    vectors, embeddings = rng.normal(0, 1, (9, 4)), rng.normal(0, 1, (6, 4))
    vectors[5] = vectors[2]  # of equals the first
    listed = {str(size): scores.shortlist_of(embeddings, vectors, size).tolist() for size in (1, 3, 6, 20)}
    return {"vectors": vectors.tolist(), "embeddings": embeddings.tolist(), "listed": listed}


def independent_vectors() -> list[dict]:
    rng = np.random.default_rng(4)
    vectors = []
    for members, labels in [(1, 3), (2, 2), (3, 5), (8, 12)]:
        raw = rng.normal(0, 2, (members, labels))
        raw[-1, 0] = scores.NOT_LISTED
        weights, offsets = rng.uniform(0.1, 1, members), rng.normal(0, 1, labels)
        thresholds = rng.uniform(0.2, 0.8, labels)
        distributions = scores.independent_of(raw, offsets)
        mean = scores.combine_members(distributions, weights)
        served = {}
        for temperature in ("0.5", "1", "2.7"):
            tempered = scores.temper_independent(mean, float(temperature))
            chosen = scores.chosen_of(tempered, thresholds)
            served[temperature] = {
                "tempered": tempered.tolist(),
                "chosen": chosen.tolist(),
                "leastCertain": float(scores.least_certain(tempered, chosen)),
                "entropy": float(scores.mean_binary_entropy(tempered)),
                "disagreement": scores.independent_disagreement(distributions, weights, thresholds, float(temperature)),
            }
        vectors.append(
            {
                "scores": raw.tolist(),
                "weights": weights.tolist(),
                "offsets": offsets.tolist(),
                "thresholds": thresholds.tolist(),
                "distributions": distributions.tolist(),
                "combined": mean.tolist(),
                "served": served,
            }
        )
    return vectors


def key_vectors() -> list[dict]:
    texts = [*TEXTS.values(), "  A\u3000B \n", "ＡB", "İstanbul ΑΣ", "\u1680x\u180ey\u2003z", "ß ẞ ŉ"]
    return [
        {"text": t, "normalised": keys.normalise(t), "splitGroup": keys.split_group(t), "twentieth": keys.twentieth(t)}
        for t in texts
    ]


def data_set_vectors() -> list[dict]:
    keys_of = {name: keys.split_group(text) for name, text in TEXTS.items()}
    rows = [
        [[key, ["正"]] for key in keys_of.values()],
        [[keys_of["emoji"], []], [keys_of["plain"], ['引"号\\\n\u0001\u2028', "😀", "a"]]],
        [],
    ]
    return [{"rows": each, "digest": keys.data_set_digest(each)} for each in rows]


if __name__ == "__main__":
    folder = Path(__file__).parent
    vectors = {
        "keys": key_vectors(),
        "data-sets": data_set_vectors(),
        "rendering": rendering(),
        "scores": score_vectors(),
    }
    for name, content in vectors.items():
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
