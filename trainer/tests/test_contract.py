"""Both languages are held to the vectors in test/contract/; `test/contract/*.spec.ts` is the other half."""

import json
from pathlib import Path

import numpy as np
import pytest

from fewloop_trainer import keys, scores
from fewloop_trainer.encoder import load_tokenizer
from fewloop_trainer.render import Renderer, cut_lengths
from fewloop_trainer.task import load_task

ROOT = Path(__file__).parents[2]


def vectors(name: str):
    return json.loads((ROOT / "test/contract" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(ROOT / "models/base-zh")


@pytest.mark.parametrize("row", vectors("keys"), ids=lambda row: row["text"][:10])
def test_keys(row):
    assert keys.normalise(row["text"]) == row["normalised"]
    assert keys.split_group(row["text"]) == row["splitGroup"]
    assert keys.twentieth(row["text"]) == row["twentieth"]


def test_digests_of_data_sets():
    for case in vectors("data-sets"):
        assert keys.data_set_digest(case["rows"]) == case["digest"]
        assert keys.data_set_digest(reversed(case["rows"])) == case["digest"]


def test_rendering(tokenizer):
    for case in vectors("rendering"):
        task = load_task(case["definition"])
        renderer = Renderer(tokenizer, task)
        assert "input" not in case["definition"] or task.input == case["templates"][0]
        for row in case["rows"]:
            words = [word for group in task.words_of(row["item"]) for word in group]
            assert renderer.word_tokens(words) == row["words"]
            item = row["item"] | ({"hypothesis": row["hypothesis"]} if "hypothesis" in row else {})
            for template, expected in zip(case["templates"], row["encodings"], strict=True):
                encoding = renderer.render(template, item)
                assert encoding.ids == expected["ids"], (template, item)
                assert encoding.mask_positions == expected["maskPositions"]
                assert encoding.type_ids == expected["typeIds"]
                assert len(encoding.ids) <= task.max_length


def test_scores():
    for case in vectors("scores")["combined"]:
        per_label = scores.label_scores(case["wordLogits"], case["wordCounts"])
        np.testing.assert_allclose(per_label, case["scores"], atol=1e-9)
        distributions = scores.distribution_of(per_label, np.array(case["offsets"]))
        np.testing.assert_allclose(distributions, case["distributions"], atol=1e-9)
        combined = scores.combine_members(distributions, case["weights"])
        np.testing.assert_allclose(combined, case["combined"], atol=1e-9)
        for temperature, expected in case["tempered"].items():
            np.testing.assert_allclose(scores.apply_temperature(combined, float(temperature)), expected, atol=1e-9)
        assert scores.disagreement_of(distributions, case["weights"]) == pytest.approx(case["disagreement"], abs=1e-9)


@pytest.mark.parametrize("case", vectors("scores")["inTurn"], ids=lambda case: f"{len(case['weights'])} members")
def test_members_in_turn(case):
    combined, asked = scores.ask_in_turn(np.array(case["distributions"]), case["weights"])
    np.testing.assert_allclose(combined, case["combined"], atol=1e-9)
    assert asked.tolist() == case["asked"]
    everyone = scores.combine_members(case["distributions"], case["weights"])
    assert combined.argmax(-1).tolist() == everyone.argmax(-1).tolist()


def test_independent_scores():
    for case in vectors("scores")["independent"]:
        distributions = scores.independent_of(np.array(case["scores"]), np.array(case["offsets"]))
        np.testing.assert_allclose(distributions, case["distributions"], atol=1e-9)
        combined = scores.combine_members(distributions, case["weights"])
        np.testing.assert_allclose(combined, case["combined"], atol=1e-9)
        for temperature, served in case["served"].items():
            tempered = scores.temper_independent(combined, float(temperature))
            np.testing.assert_allclose(tempered, served["tempered"], atol=1e-9)
            chosen = scores.chosen_of(tempered, case["thresholds"])
            assert chosen.tolist() == served["chosen"]
            assert scores.least_certain(tempered, chosen) == pytest.approx(served["leastCertain"], abs=1e-9)
            assert scores.mean_binary_entropy(tempered) == pytest.approx(served["entropy"], abs=1e-9)
            found = scores.independent_disagreement(
                distributions, case["weights"], case["thresholds"], float(temperature)
            )
            assert found == pytest.approx(served["disagreement"], abs=1e-9)
    assert scores.temper_independent(np.array([0.0, 1.0, 0.5]), 2.0).tolist() == [0.0, 1.0, 0.5]


def test_shortlist():
    case = vectors("scores")["shortlist"]
    for size, listed in case["listed"].items():
        found = scores.shortlist_of(np.array(case["embeddings"]), np.array(case["vectors"]), int(size))
        assert found.tolist() == listed


def test_prior_matching():
    for case in vectors("scores")["priors"]:
        offsets = scores.match_priors(np.array(case["scores"]), case["prior"])
        np.testing.assert_allclose(offsets, case["offsets"], atol=1e-4)
        mean = scores.distribution_of(np.array(case["scores"]), offsets).mean(0)
        np.testing.assert_allclose(mean, case["prior"], atol=2e-6)


def test_cut_lengths_is_trimming_the_longest_one_by_one():
    rng = np.random.default_rng(0)
    for _ in range(300):
        lengths = rng.integers(0, 12, rng.integers(0, 5)).tolist()
        budget = int(rng.integers(0, 40))
        slow = list(lengths)
        while sum(slow) > budget:
            longest = max(slow)
            slow[len(slow) - 1 - slow[::-1].index(longest)] -= 1
        assert cut_lengths(lengths, budget) == slow


def test_what_cannot_be_rendered_is_refused(tokenizer):
    case = vectors("rendering")[0]
    renderer = Renderer(tokenizer, load_task(case["definition"]))
    with pytest.raises(ValueError, match="cannot spell"):
        renderer.word_tokens(["好", "😀"])
    with pytest.raises(ValueError, match="token counts"):
        renderer.word_tokens(["好", "书籍"])
    with pytest.raises(ValueError, match="missing"):
        renderer.render("{title}{mask}", {"text": "好"})
    with pytest.raises(ValueError, match="marker"):
        renderer.render("{text|blank:#idiom#}", {"text": "好"})
    with pytest.raises(ValueError, match="longer than maxLength"):
        renderer.render("好" * 40 + "{mask}{text}", {"text": "好"})
