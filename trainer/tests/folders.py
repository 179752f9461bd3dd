"""Task definitions and rows that the tests train the tiny model on."""

from pathlib import Path

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
    """The `number`-th of 80 different reviews of a label."""
    phrases = GOOD if label == "positive" else BAD
    return f"{THINGS[number // len(phrases) % len(THINGS)]}{phrases[number % len(phrases)]}"


def reviews(each: int, start: int = 0) -> list[dict]:
    """`each` labelled rows of both labels, by turns."""
    numbers = range(start, start + each)
    return [{"text": review(n, label), "label": label} for n in numbers for label in ("positive", "negative")]
