"""Task definitions, rows and run folders that the tests train the tiny model on."""

import hashlib
import json
from collections.abc import Iterable
from itertools import count, islice
from pathlib import Path

from fewloop_trainer.keys import split_group, split_of

ROOT = Path(__file__).parents[2]
TINY_MODEL = ROOT / "test/fixtures/tiny-model"

GOOD = ("质量很好", "非常满意", "物流很快", "味道不错", "服务热情", "房间干净", "推荐购买", "手感舒服")
BAD = ("质量太差", "非常失望", "物流太慢", "味道难吃", "态度恶劣", "房间很脏", "不要购买", "已经坏了")
THINGS = ("手机", "酒店", "水果", "衣服", "电脑", "书", "牛奶", "洗发水", "平板", "热水器")


def definition_of(**changes) -> dict:
    """A canonical definition as the service writes it; `learning` and `selection` are merged, the rest replaced."""
    selection = {"strategy": "fused", "threshold1": 0.9, "threshold2": 0.95, "threshold3": 0.7, "floor": 0.5}
    learning = {
        "prior": "estimated",
        "strategies": ["plain", "r-drop"],
        "selection": selection | changes.pop("selection", {}),
        "rounds": 1,
        "budgetSeconds": 60,
    }
    return {
        "name": "reviews",
        "kind": "single-label",
        "method": ["pet"],
        "labels": [{"name": "positive", "words": ["好", "赞"]}, {"name": "negative", "words": ["差"]}],
        "templates": ["很{mask}！{text}", "{text}总之很{mask}。"],
        "maxLength": 32,
        "serving": {"policy": "ensemble"},
        "learning": learning | changes.pop("learning", {}),
    } | changes


def review(number: int, label: str) -> str:
    """The `number`-th of 640 different reviews of a label."""
    phrases = GOOD if label == "positive" else BAD
    number, first = divmod(number, len(phrases))
    number, thing = divmod(number, len(THINGS))
    return f"{THINGS[thing]}{phrases[first]}" + (f"，{phrases[number % len(phrases)]}" if number else "")


def reviews(each: int, start: int = 0) -> list[dict]:
    """`each` labelled rows of both labels, by turns."""
    numbers = range(start, start + each)
    return [{"text": review(n, label), "label": label} for n in numbers for label in ("positive", "negative")]


def reviews_of(split: str, each: int) -> list[dict]:
    """The first `each` labelled rows of both labels whose split group is of `split`, by turns."""
    good, bad = (texts_of(split, (review(n, label) for n in count()), each) for label in ("positive", "negative"))
    pairs = zip(good, bad, strict=True)
    return [row for g, b in pairs for row in ({"text": g, "label": "positive"}, {"text": b, "label": "negative"})]


def texts_of(split: str, texts: Iterable[str], many: int) -> list[str]:
    return list(islice((text for text in texts if split_of(split_group(text)) == split), many))


def write_run(
    folder: Path,
    labelled: list[dict],
    unlabelled: list[dict],
    definition: dict | None = None,
    **settings,
) -> Path:
    """A run folder as the service writes it; `labelled` rows without a split are of train. Answers the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    definition = definition or definition_of()
    model = (TINY_MODEL / "model.safetensors").read_bytes()
    run = {
        "formatVersion": 1,
        "runId": "11111111-2222-3333-4444-555555555555",
        "task": definition["name"],
        "version": 2,
        "taskRevision": 1,
        "definitionDigest": "0" * 64,
        "definition": definition,
        "seed": 5,
        "baseModel": {"name": "tiny", "folder": str(TINY_MODEL), "digest": hashlib.sha256(model).hexdigest()},
        "budgetSeconds": 600,
        "threads": 1,
        "prior": None,
    }
    write_lines(folder / "labelled.jsonl", [{"split": "train"} | row for row in labelled])
    write_lines(folder / "unlabelled.jsonl", unlabelled)
    (folder / "run.json").write_text(json.dumps(run | settings, ensure_ascii=False))
    return folder


MARKS = {"pool": "兔", "dev group": "猫", "test group": "狗", "dev row": "龙", "train row": "羊"}
"""Characters that only texts of one origin hold, so that a test sees where such texts went."""


def marked(origin: str, split: str, many: int = 5) -> list[dict]:
    """Labelled rows whose texts hold the origin's mark, and whose split group is of `split`."""
    texts = (f"{MARKS[origin]}{review(n, 'positive')}" for n in count())
    return [{"text": text, "label": "positive"} for text in texts_of(split, texts, many)]


def ordinary_run(folder: Path, **settings) -> Path:
    """A run folder with 20 labelled rows, 11 of dev, and a pool in which stands what must not be there, too.

    The time is no object, so that however slow the machine is, all runs on these rows take the same steps.
    """
    train, pool = reviews_of("train", 47)[:15], reviews_of("train", 47)[15:]
    train += marked("train row", "train")
    dev = [*reviews_of("dev", 3), *marked("dev row", "dev")]
    labelled = [*train, *(row | {"split": "dev"} for row in dev)]
    unlabelled = [*pool, *marked("pool", "train"), *marked("dev group", "dev"), *marked("test group", "test")]
    # The same texts again, as they come from elsewhere; the trainer must not believe a split group either.
    repeated = [
        row | {"text": f"  {row['text']} "} for row in (*marked("dev row", "dev"), *marked("train row", "train"))
    ]
    lying = split_group(pool[0]["text"])
    rows = [{"text": row["text"], "splitGroup": lying} for row in (*unlabelled, *repeated)]
    return write_run(folder, labelled, rows, budgetSeconds=86_400, **settings)


def write_lines(path: Path, rows: list[dict]) -> None:
    """JSON lines, with the keys that the service gives every row."""
    lines = [
        {"itemKey": hashlib.sha256(repr(row).encode()).hexdigest(), "splitGroup": split_group(row["text"])} | row
        for row in rows
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]
