"""The mathematics of the training strategies, and that the model they train is the one that is served."""

import math

import numpy as np
import pytest
import torch

from fewloop_trainer import augment, pet
from fewloop_trainer.augment import Mix, Strategy, parse_strategy
from fewloop_trainer.data import targets
from folders import reviews

FIRST = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], dtype=torch.float64).log()
SECOND = torch.tensor([[0.4, 0.5, 0.1], [0.6, 0.2, 0.2]], dtype=torch.float64).log()
TARGET = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """KL(p || q) from log-probabilities, mean over rows."""
    return float(sum(p[i, c].exp() * (p[i, c] - q[i, c]) for i in range(len(p)) for c in range(p.shape[1])) / len(p))


class TestRDrop:
    @pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
    def test_is_the_mean_likelihood_and_a_quarter_of_alpha_times_both_divergences(self, alpha):
        likelihood = -(np.log(0.7) + (np.log(0.3) + np.log(0.4)) / 2 + np.log(0.4) + np.log(0.2)) / 4
        both = divergence(FIRST, SECOND) + divergence(SECOND, FIRST)
        assert augment.r_drop_loss(FIRST, SECOND, TARGET, alpha).item() == pytest.approx(likelihood + alpha * both / 4)

    def test_does_not_depend_on_which_pass_came_first(self):
        assert divergence(FIRST, SECOND) != pytest.approx(divergence(SECOND, FIRST), rel=0.01)
        there, back = (augment.r_drop_loss(*pair, TARGET, 3.0) for pair in ((FIRST, SECOND), (SECOND, FIRST)))
        assert there.item() == pytest.approx(back.item())

    def test_adds_nothing_where_both_passes_agree(self):
        assert augment.r_drop_loss(FIRST, FIRST, TARGET, 9.0).item() == pytest.approx(
            augment.cross_entropy(FIRST, TARGET).item()
        )
        assert augment.r_drop_loss(FIRST, SECOND, TARGET, 9.0) > augment.r_drop_loss(FIRST, SECOND, TARGET, 0.0)

    def test_with_alpha_0_is_the_plain_loss_of_both_passes(self):
        plain = (augment.cross_entropy(FIRST, TARGET) + augment.cross_entropy(SECOND, TARGET)) / 2
        assert augment.r_drop_loss(FIRST, SECOND, TARGET, 0.0).item() == pytest.approx(plain.item())


class TestNames:
    def test_parts_combine_in_any_order(self):
        assert parse_strategy("plain") == Strategy("", False, "")
        assert parse_strategy("fgm+mixup+r-drop") == Strategy("mixup", True, "fgm")
        assert parse_strategy("manifold-mixup+pgd") == Strategy("manifold-mixup", False, "pgd")

    @pytest.mark.parametrize("name", ["", "plain+fgm", "mixup+manifold-mixup", "fgm+pgd", "fgm+fgm", "r_drop"])
    def test_others_are_refused(self, name):
        with pytest.raises(ValueError, match="unknown training strategy"):
            parse_strategy(name)

    def test_cost_what_they_pass_through_the_model(self):
        costs = {"plain": 1, "mixup": 1, "r-drop": 2, "fgm": 2, "pgd": 4, "mixup+r-drop+fgm": 3}
        assert {name: parse_strategy(name).passes for name in costs} == costs


class TinyNetwork:
    """Log-probabilities of one layer over embeddings [B, L, 2]; counts its calls."""

    def __init__(self, rows: torch.Tensor):
        self.rows, self.moves = rows, []
        self.weight = torch.tensor([[1.0, -1.0], [0.5, 2.0]], requires_grad=True)

    def __call__(self, move: torch.Tensor | None) -> torch.Tensor:
        self.moves.append(move)
        rows = self.rows if move is None else self.rows + move
        return (rows.tanh().sum(1) @ self.weight).log_softmax(-1)


ROWS = torch.tensor([[[0.2, -0.4], [1.0, 0.3]], [[-0.7, 0.1], [0.4, 0.9]], [[0.0, 0.5], [0.3, -0.2]]])
WANTED = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])


def losses(network: TinyNetwork, move: torch.Tensor | None) -> torch.Tensor:
    with torch.no_grad():
        return -(WANTED * network(move)).sum(-1)


class TestAdversary:
    @pytest.mark.parametrize("name", ["fgm", "pgd"])
    def test_moves_each_row_by_at_most_epsilon_so_that_its_loss_grows(self, name):
        network = TinyNetwork(ROWS)
        loss = augment.backward(parse_strategy(name), network, WANTED, ROWS.shape)
        attack = network.moves[-1]
        assert loss == pytest.approx(losses(network, None).mean().item())
        assert attack.flatten(1).norm(dim=1).tolist() == pytest.approx([augment.EPSILON] * 3, rel=1e-5)
        assert (losses(network, attack) > losses(network, None)).all()

    def test_fgm_is_one_step_along_the_gradient_of_the_rows_own_loss(self):
        network, rows = TinyNetwork(ROWS), ROWS.clone().requires_grad_(True)
        augment.cross_entropy((rows.tanh().sum(1) @ network.weight.detach()).log_softmax(-1), WANTED).backward()
        augment.backward(parse_strategy("fgm"), network, WANTED, ROWS.shape)
        expected = augment.EPSILON * rows.grad / rows.grad.flatten(1).norm(dim=1).view(-1, 1, 1)
        torch.testing.assert_close(network.moves[-1], expected)

    def test_pgd_finds_at_least_what_fgm_does(self):
        found = {}
        for name in ("fgm", "pgd"):
            network = TinyNetwork(ROWS)
            augment.backward(parse_strategy(name), network, WANTED, ROWS.shape)
            found[name] = losses(network, network.moves[-1]).mean().item()
        assert found["pgd"] >= found["fgm"] - 1e-3

    def test_gradients_are_those_of_both_losses_and_the_weights_are_never_moved(self):
        network = TinyNetwork(ROWS)
        weight = network.weight.detach().clone()
        augment.backward(parse_strategy("fgm"), network, WANTED, ROWS.shape)
        assert torch.equal(network.weight.detach(), weight)
        attack, gradient = network.moves[-1].detach(), network.weight.grad.clone()
        network.weight.grad = None
        (augment.cross_entropy(network(None), WANTED) + augment.cross_entropy(network(attack), WANTED)).backward()
        torch.testing.assert_close(gradient, network.weight.grad)

    def test_a_row_without_a_gradient_is_not_moved(self):
        assert torch.equal(augment.unit(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))

    def test_the_ball_pulls_back_what_is_outside_alone(self):
        rows = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
        torch.testing.assert_close(augment.within_ball(rows, 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4]]))


class TestMixup:
    def test_rows_and_targets_are_mixed_alike_and_the_shares_are_symmetric(self):
        swap = torch.tensor([1, 0])
        rows, target = torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        mix, other = Mix(0.75, swap, 0), Mix(0.25, swap, 0)
        assert mix.of(rows).tolist() == [[2.5], [3.5]]
        assert mix.of(target).tolist() == [[0.75, 0.25], [0.25, 0.75]]
        assert torch.equal(mix.of(rows), other.of(rows)[swap])

    def test_shares_are_drawn_symmetrically_and_layers_evenly(self):
        rng, manifold = np.random.default_rng(0), parse_strategy("manifold-mixup")
        mixes = [augment.draw_mix(manifold, 4, 3, rng) for _ in range(4000)]
        assert np.mean([mix.share for mix in mixes]) == pytest.approx(0.5, abs=0.03)
        counts = np.bincount([mix.layer for mix in mixes], minlength=4)
        assert len(counts) == 4 and counts.min() > 850
        assert {augment.draw_mix(parse_strategy("mixup"), 4, 3, rng).layer for _ in range(50)} == {0}
        assert augment.draw_mix(parse_strategy("r-drop"), 4, 3, rng) is None


def batch_of(sentiment, each: int = 2, template: int = 1) -> pet.Batch:
    """Rows of different length, whose masks stand at different places."""
    task, renderer = sentiment
    rows = [*reviews(each), {"text": "手机质量很好，物流也很快，非常满意", "label": "positive"}]
    return pet.collate(pet.encode(task, renderer, task.templates[template], rows))


class TestEncoder:
    def test_without_mix_and_move_it_is_the_models_own(self, sentiment, tiny_model):
        ids, mask, types, positions, _ = batch_of(sentiment).inputs
        with torch.no_grad():
            expected = tiny_model.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
            torch.testing.assert_close(augment.encode(tiny_model.bert, ids, mask, types), expected)
            torch.testing.assert_close(
                augment.at_masks(expected, positions), expected[torch.arange(len(ids)), positions[:, 0]][:, None]
            )

    @pytest.mark.parametrize("layer", [0, 1, 2])
    def test_a_row_mixed_with_itself_or_not_at_all_stays_as_it_is(self, sentiment, tiny_model, layer):
        ids, mask, types, positions, _ = batch_of(sentiment).inputs
        rows = torch.arange(len(ids))
        layer = min(layer, len(tiny_model.bert.encoder.layer))
        with torch.no_grad():
            plain = augment.at_masks(augment.encode(tiny_model.bert, ids, mask, types), positions)
            mix = Mix(0.3, rows, layer)
            torch.testing.assert_close(
                augment.at_masks(augment.encode(tiny_model.bert, ids, mask, types, mix), positions, mix), plain
            )

    def test_mixing_is_symmetric(self, sentiment, tiny_model):
        ids, mask, types, positions, _ = batch_of(sentiment).inputs
        partner = torch.arange(len(ids)).flip(0)
        said = []
        with torch.no_grad():
            for share in (0.2, 0.8):
                mix = Mix(share, partner, 1)
                said.append(augment.at_masks(augment.encode(tiny_model.bert, ids, mask, types, mix), positions, mix))
        torch.testing.assert_close(said[0], said[1][partner])

    def test_until_they_are_mixed_rows_attend_to_their_own_tokens_alone(self, sentiment, tiny_model):
        ids, mask, types, _, _ = batch_of(sentiment).inputs
        last = len(tiny_model.bert.encoder.layer)
        mix = Mix(0.4, torch.arange(len(ids)).flip(0), last)
        with torch.no_grad():
            plain = augment.encode(tiny_model.bert, ids, mask, types)
            torch.testing.assert_close(augment.encode(tiny_model.bert, ids, mask, types, mix), mix.of(plain))


NAMES = ["mixup", "manifold-mixup", "fgm", "pgd", "manifold-mixup+r-drop+fgm", "mixup+pgd"]


@pytest.mark.parametrize("strategy", NAMES)
def test_every_strategy_learns_its_rows(sentiment, tiny_model, strategy):
    task, renderer = sentiment
    rows = reviews(8)
    encoded, wanted = pet.encode(task, renderer, task.templates[0], rows), targets(task, rows)
    seen = []
    settings = pet.TrainSettings(steps=80, encoder_rate=3e-3, head_rate=3e-3)
    pet.train(
        tiny_model, encoded, np.eye(2)[wanted], strategy, settings, np.zeros(2), lambda _, loss: seen.append(loss)
    )
    assert all(math.isfinite(loss) for loss in seen)
    assert (pet.predict(tiny_model, encoded, 2).argmax(-1) == wanted).mean() > 0.9
