"""The head alone: near the base with few rows, further with many, the encoder untouched."""

import numpy as np
import pytest
import torch

from fewloop_trainer import head, pet
from fewloop_trainer.data import targets
from fewloop_trainer.scores import distribution_of
from folders import reviews


@pytest.fixture
def encode(sentiment):
    task, renderer = sentiment
    return lambda rows: pet.encode(task, renderer, task.templates[0], rows)


def tuned(model, encoded, wanted, seed=0):
    hidden = head.hidden_at_masks(model, encoded)
    head.tune(model, encoded, hidden, wanted, np.zeros(2), wanted, seed)
    return model


def distance(model, before) -> float:
    return float(sum(((t - before[n]) ** 2).sum() for n, t in model.state_dict().items() if n in before))


def test_what_the_encoder_says_at_the_masks_gives_the_graphs_own_logits(tiny_model, encode):
    encoded = encode(reviews(6))
    hidden = head.hidden_at_masks(tiny_model, encoded, batch_tokens=64)
    batch = pet.collate(encoded)
    with torch.no_grad():
        words = head.PetGraph(tiny_model).eval().word_logits(torch.stack(hidden), batch.inputs[4])
        expected = pet.predict(tiny_model, encoded, 2)
    np.testing.assert_allclose(pet.label_logits(words, batch.word_labels, 2), expected, atol=1e-4)


def test_learns_its_rows_and_moves_the_transform_alone(tiny_model, sentiment, encode):
    rows = reviews(60)
    encoded, wanted = encode(rows), targets(sentiment[0], rows)
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}

    def loss() -> float:
        return float(
            -np.log(distribution_of(pet.predict(tiny_model, encoded, 2))[np.arange(len(wanted)), wanted]).mean()
        )

    first = loss()
    tuned(tiny_model, encoded, wanted)
    assert loss() < first
    moved = {name for name, tensor in tiny_model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith("cls.predictions.transform.") for name in moved)
    assert all(parameter.requires_grad for parameter in tiny_model.parameters())


def test_many_rows_take_it_further_from_the_base_than_few(tiny_model, sentiment, encode, tiny_model_folder):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    moved = []
    for each in (2, 60):
        rows = reviews(each)
        model = pet.BertForMaskedLM.from_pretrained(tiny_model_folder, dtype=torch.float32).eval()
        moved.append(distance(tuned(model, encode(rows), targets(sentiment[0], rows)), before))
    assert 0 < moved[0] < moved[1]


def test_depends_on_the_seed_alone(sentiment, encode, tiny_model_folder):
    rows = reviews(4)
    encoded, wanted = encode(rows), targets(sentiment[0], rows)
    results = []
    for seed in (1, 1, 2):
        model = pet.BertForMaskedLM.from_pretrained(tiny_model_folder, dtype=torch.float32).eval()
        results.append(pet.predict(tuned(model, encoded, wanted, seed), encoded, 2))
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_rows_with_different_numbers_of_masks_are_tuned_together(tiny_model, encode):
    one, other = encode(reviews(3)[:2])
    two = pet.Encoded(
        [*other.ids[:1], 4, *other.ids[1:]],
        [1, 2],
        [[tokens[0], tokens[0]] for tokens in other.word_tokens],
        other.word_labels,
    )
    tuned(tiny_model, [one, two], np.array([0, 1]))
    assert all(torch.isfinite(parameter).all() for parameter in tiny_model.parameters())
