"""How far teachers may go: as far as rows they have not seen say."""

import numpy as np
import pytest

from fewloop_trainer.shrink import OutOfFold, beats_guessing, choose

ROWS, TEXTS = 400, 600


def logits_of(right, count, strength, seed):
    """[1, count, 2]: the right label's logit is higher by `strength`, with unit noise."""
    noise = np.random.default_rng(seed).normal(size=count)
    lead = strength * np.where(right, 1.0, -1.0) + noise
    return np.stack([lead / 2, -lead / 2], axis=-1)[None]


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    rows, texts = rng.random(ROWS) < 0.5, rng.random(TEXTS) < 0.5
    return rows, texts, np.where(rows, 0, 1)


def choice(truth, near_strength, far_strength, shift=0.0, prior=(0.5, 0.5), texts=TEXTS):
    rows, others, wanted = truth
    lean = np.array([shift, 0.0])
    far = None
    if far_strength is not None:
        far_texts = logits_of(others, TEXTS, far_strength, 4)[:, :texts]
        far = OutOfFold(logits_of(rows, ROWS, far_strength, 2) + lean, far_texts + lean)
    near = OutOfFold(
        logits_of(rows, ROWS, near_strength, 1) + lean, logits_of(others, TEXTS, near_strength, 3)[:, :texts] + lean
    )
    return choose(near, far, np.zeros((1, 2)), None if prior is None else np.array(prior), wanted)


def test_what_labels_spoilt_stays_at_the_head(truth):
    shrinkage, rows, _ = choice(truth, near_strength=1.0, far_strength=-1.0, prior=None)
    assert shrinkage.share == 0 and not shrinkage.matched
    near = logits_of(truth[0], ROWS, 1.0, 1)
    assert np.allclose(rows, np.exp(near) / np.exp(near).sum(-1, keepdims=True))


def test_nothing_further_is_judged_where_nothing_went_further(truth):
    shrinkage, _, _ = choice(truth, near_strength=1.0, far_strength=None)
    assert (shrinkage.share, shrinkage.matched) == (0, True)
    assert set(shrinkage.losses) == {"0", "0 matched"}


def test_a_gain_within_a_standard_error_goes_nowhere(truth):
    rows, others, wanted = truth
    few = 12
    near = OutOfFold(logits_of(rows, ROWS, 1.0, 1)[:, :few], logits_of(others, TEXTS, 1.0, 3))
    slightly = OutOfFold(near.rows + 0.4 * np.random.default_rng(5).normal(size=near.rows.shape), near.texts)
    shrinkage, _, _ = choose(near, slightly, np.zeros((1, 2)), np.array([0.5, 0.5]), wanted[:few])
    assert shrinkage.share == 0


def test_where_there_is_nothing_to_lose_it_stays_wholly_tuned_unless_that_is_clearly_worse(truth):
    rows, others, wanted = truth
    few = 12

    near = OutOfFold(logits_of(rows, ROWS, 1.0, 1)[:, :few], logits_of(others, TEXTS, 1.0, 3))
    alike = OutOfFold(near.rows + 0.1 * np.random.default_rng(6).normal(size=near.rows.shape), near.texts)
    prior = np.array([0.5, 0.5])
    assert choose(near, alike, np.zeros((1, 2)), prior, wanted[:few], base_knows=False)[0].share == 1
    clearly_worse = choose(
        OutOfFold(logits_of(rows, ROWS, 2.0, 1), logits_of(others, TEXTS, 2.0, 3)),
        OutOfFold(logits_of(rows, ROWS, -1.0, 2), logits_of(others, TEXTS, -1.0, 4)),
        np.zeros((1, 2)),
        None,
        wanted,
        base_knows=False,
    )[0]
    assert clearly_worse.share == 0


def test_a_guess_is_beaten_by_more_than_chance_would(truth):
    rows, _, wanted = truth

    def said(strength, count):
        return (1 / (1 + np.exp(-np.diff(logits_of(rows, ROWS, strength, 1)[..., ::-1], axis=-1)[..., 0])))[:, :count]

    def distributions(strength, count):
        first = said(strength, count)
        return np.stack([first, 1 - first], axis=-1)

    assert beats_guessing(distributions(1.5, 32), wanted[:32])
    assert not beats_guessing(distributions(0.0, 32), wanted[:32])
    assert not beats_guessing(distributions(-1.5, 32), wanted[:32])


def test_independent_errors_are_shared_out_half_way(truth):
    shrinkage, _, _ = choice(truth, near_strength=1.0, far_strength=1.0)
    assert 0 < shrinkage.share < 1
    assert shrinkage.losses[f"{shrinkage.share:g} matched"] == pytest.approx(min(shrinkage.losses.values()), abs=1e-3)


def test_an_overconfident_model_is_judged_at_its_temperature(truth):
    """Four times too sure, but with less noise: tempered it is the better one."""
    rows, others, wanted = truth
    sure = OutOfFold(4 * logits_of(rows, ROWS, 1.5, 2), 4 * logits_of(others, TEXTS, 1.5, 4))
    near = OutOfFold(logits_of(rows, ROWS, 1.0, 1), logits_of(others, TEXTS, 1.0, 3))
    shrinkage, _, _ = choose(near, sure, np.zeros((1, 2)), np.array([0.5, 0.5]), wanted)
    assert shrinkage.share > 0


def test_much_better_teachers_go_all_the_way(truth):
    assert choice(truth, near_strength=0.0, far_strength=4.0)[0].share == 1


def test_a_lean_to_one_label_is_undone_by_matching(truth):
    shrinkage, _, texts = choice(truth, near_strength=0.2, far_strength=2.0, shift=3.0)
    assert shrinkage.matched
    assert texts.mean((0, 1)) == pytest.approx([0.5, 0.5], abs=1e-3)


def test_a_lean_that_the_rows_confirm_is_kept():
    rows, texts = np.arange(ROWS) % 10 > 0, np.arange(TEXTS) % 10 > 0
    truth = rows, texts, np.where(rows, 0, 1)
    assert not choice(truth, near_strength=0.2, far_strength=2.0, shift=2.0)[0].matched


def test_a_lean_of_a_few_rows_that_were_asked_for_does_not_overrule_the_prior():
    """23 of 36 answers are of one label, as a query strategy brought about; of the texts half are."""
    rows, texts = np.arange(36) < 23, np.arange(TEXTS) % 2 == 0
    near = OutOfFold(
        logits_of(rows, 36, 0.5, 1) + np.array([0.8, 0.0]), logits_of(texts, TEXTS, 0.5, 3) + np.array([0.8, 0.0])
    )
    shrinkage, _, said = choose(near, None, np.zeros((1, 2)), np.array([0.5, 0.5]), np.where(rows, 0, 1))
    assert shrinkage.losses["0"] < shrinkage.losses["0 matched"]
    assert shrinkage.matched
    assert said.mean((0, 1)) == pytest.approx([0.5, 0.5], abs=1e-3)


@pytest.mark.parametrize(("prior", "texts"), [(None, TEXTS), ((0.5, 0.5), 20)], ids=["choices", "few texts"])
def test_nothing_is_matched_without_a_prior_or_texts(truth, prior, texts):
    shrinkage, _, _ = choice(truth, near_strength=0.2, far_strength=2.0, shift=3.0, prior=prior, texts=texts)
    assert not shrinkage.matched
    assert not any("matched" in name for name in shrinkage.losses)


def test_where_the_rows_deny_the_prior_the_way_is_chosen_without_it():
    rng = np.random.default_rng(6)
    rows, others = rng.random(ROWS) < 0.95, rng.random(TEXTS) < 0.95
    wanted = np.where(rows, 0, 1)
    near = OutOfFold(logits_of(rows, ROWS, 1.0, 1), logits_of(others, TEXTS, 1.0, 3))
    # What it has learnt is how common the labels are: matching takes just that away.
    noise = rng.normal(0, 0.3, near.rows.shape)
    far = OutOfFold(near.rows + np.array([2.0, 0.0]) + noise, near.texts + np.array([2.0, 0.0]))
    found, _, _ = choose(near, far, np.zeros((1, 2)), np.array([0.2, 0.8]), wanted)
    assert not found.matched
    assert found.share > 0
    assert found.losses[f"{found.share:g}"] < found.losses["0"]
