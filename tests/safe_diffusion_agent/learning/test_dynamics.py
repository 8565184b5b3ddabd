import numpy as np
import pytest
import torch
from torch import nn

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, Transition, roll_out
from safe_diffusion_agent.learning.transitions import Pieces
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer
from safe_diffusion_agent.methods.trebi.frontier.model_fit import (
    DynamicsLoss,
    event_cost,
    trusted_steps,
    unexplained_shares,
)


class Counter(DynamicsEnsemble):
    """A world that counts: o' = o + a, reward 2, cost |a|, survival 0.9."""

    def __init__(self):
        super().__init__(1, 1, 4, 1)

    def step(self, obs, actions, members=None):
        ones = torch.ones(len(obs))
        return Transition(obs + actions, 2.0 * ones, actions[:, 0].abs(), 0.9 * ones)


def pieces_of(episodes, discount=1.0, cost_discount=1.0):
    normalizer = Normalizer.fit(
        episodes.actions, episodes.observations, episodes.action_low, episodes.action_high
    )
    return Pieces(episodes, normalizer, discount=discount, cost_discount=cost_discount)


def train(dynamics, loss):
    optimizer = torch.optim.Adam(dynamics.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        value, _ = loss(dynamics, generator)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def test_rollout_sums_what_survives_and_is_discounted():
    piece = roll_out(
        Counter(), torch.zeros(2, 1), lambda obs, t: torch.full((2, 1), 3.0), 4,
        discount=0.5, cost_discount=0.8,
    )  # fmt: skip
    for steps in range(1, 5):  # geometric series
        returns, costs, survival, obs = piece.after(torch.full((2,), float(steps)))
        assert obs.tolist() == [[3.0 * steps]] * 2
        assert float(survival[0]) == pytest.approx(0.9**steps)
        assert float(returns[0]) == pytest.approx(2 * (1 - 0.45**steps) / 0.55)
        assert float(costs[0]) == pytest.approx(3 * (1 - 0.72**steps) / 0.28, rel=1e-5)


def test_every_member_is_a_network_of_its_own():
    ensemble = DynamicsEnsemble(2, 1, 8, 3)
    obs, actions = torch.randn(5, 2), torch.randn(5, 1)
    raw = ensemble(obs, actions)
    for member in range(3):
        layers = []
        for layer in ensemble.network:
            if isinstance(layer, nn.SiLU):
                layers.append(nn.SiLU())
                continue
            linear = nn.Linear(*layer.weight.shape[1:])
            linear.weight.data = layer.weight.data[member].T
            linear.bias.data = layer.bias.data[member, 0]
            layers.append(linear)
        alone = nn.Sequential(*layers)(torch.cat([obs, actions], dim=1))
        torch.testing.assert_close(raw[member], alone)
    chosen = ensemble.step(obs, actions, members=torch.tensor([0, 1, 2, 0, 1])).observation
    torch.testing.assert_close(chosen[1], obs[1] + raw[1, 1, :2])
    torch.testing.assert_close(
        ensemble.step(obs, actions).observation, obs + raw.mean(dim=0)[:, :2]
    )


def test_cost_is_not_negative_and_observations_stay_in_the_box():
    ensemble = DynamicsEnsemble(1, 1, 8, 2)
    ensemble.target_shift.fill_(-5.0)
    ensemble.obs_low.fill_(-0.5)
    step = ensemble.step(torch.zeros(3, 1), torch.zeros(3, 1))
    assert (step.cost == 0).all() and (step.observation == -0.5).all() and (step.reward < 0).all()
    assert (step.survival == 1).all(), "no episode of the data terminated"
    ensemble.terminates.fill_(1.0)
    assert (ensemble.step(torch.zeros(3, 1), torch.zeros(3, 1)).survival < 1).all()


def test_pieces_are_sums_inside_one_episode(tiny_episodes):
    pieces = pieces_of(tiny_episodes, 0.9, 0.8)
    starts = torch.tensor([0, 150, 196, 199, 200, len(pieces) - 1])
    for wanted in (1, 3, 8):
        backup = pieces.get(starts, torch.full((6,), wanted), 8)
        for i, start in enumerate(starts.tolist()):
            length = min(wanted, 200 - start % 200)
            assert backup.num_steps[i] == length
            later = np.arange(length)
            rewards, costs = (
                values[start : start + length]
                for values in (tiny_episodes.rewards, tiny_episodes.costs)
            )
            assert float(backup.returns[i]) == pytest.approx(rewards @ 0.9**later, rel=1e-5)
            assert float(backup.costs[i]) == pytest.approx(costs @ 0.8**later, abs=1e-6)
            torch.testing.assert_close(backup.next_obs[i], pieces.next_obs[start + length - 1])
    assert (pieces.get(starts, torch.full((6,), 3), 4).survival == 1).all()
    pieces.terminated[199] = 1.0
    assert pieces.get(starts, torch.full((6,), 3), 4).survival.tolist() == [1, 1, 1, 0, 1, 1]


def test_models_learn_the_pendulum(tiny_episodes):
    pieces = pieces_of(tiny_episodes)
    torch.manual_seed(0)
    dynamics = DynamicsEnsemble(3, 1, 64, 2)
    rows = torch.arange(len(pieces))
    loss = DynamicsLoss(pieces, rows[: 10 * 200], 128)
    loss.standardize(dynamics)
    held_out = rows[10 * 200 :]
    untrained = unexplained_shares(dynamics, pieces, held_out, 8)
    train(dynamics, loss)
    shares = unexplained_shares(dynamics, pieces, held_out, 8)
    assert trusted_steps(untrained, 0.02) == 1
    assert shares["observation"][0] < 0.001 and shares["observation"][7] < 0.02
    assert shares["observation"][7] > shares["observation"][0], "errors add up"
    assert shares["return"][7] < 0.3 < untrained["return"][7]


def test_a_cost_of_zero_or_one_is_learned_as_an_event(tiny_episodes):
    pieces = pieces_of(tiny_episodes)
    border = pieces.next_obs[:, 0].median()
    pieces.costs = 3.0 * (pieces.next_obs[:, 0] > border)
    rows, shares = torch.arange(len(pieces)), []
    for event in (True, False):
        torch.manual_seed(0)
        dynamics = DynamicsEnsemble(3, 1, 64, 2)
        loss = DynamicsLoss(pieces, rows[: 10 * 200], 128)
        assert loss._event_cost == 3.0
        loss._event_cost *= event  # False: the cost is a number like any other
        loss.standardize(dynamics)
        train(dynamics, loss)
        shares.append(unexplained_shares(dynamics, pieces, rows[10 * 200 :], 4)["cost"][0])
        if event:
            cost = dynamics.step(pieces.obs, pieces.actions).cost
            assert (cost >= 0).all() and (cost <= 3.0).all()
    assert shares[0] < 0.75 * shares[1], shares


def test_an_event_is_a_cost_that_is_zero_or_always_the_same():
    assert event_cost(torch.tensor([0.0, 2.0, 0.0])) == 2.0
    assert event_cost(torch.tensor([0.0, 2.0, 1.0])) == 0.0
    assert event_cost(torch.zeros(3)) == 0.0


def test_models_from_before_events_are_read():
    old = DynamicsEnsemble(2, 1, 8, 3)
    tensors = {name: t for name, t in old.state_dict().items() if name != "event_cost"}
    new = DynamicsEnsemble(2, 1, 8, 3)
    new.load_state_dict(tensors)
    assert new.event_cost == 0
    del tensors["trusted_steps"]
    with pytest.raises(RuntimeError, match="trusted_steps"):
        new.load_state_dict(tensors)


def test_trusted_steps_end_before_the_first_share_over_the_tolerance():
    shares = {"observation": [0.0, 0.05, 0.2, 0.0], "cost": [0.01, 0.02, 0.03, 0.04]}
    assert trusted_steps(shares, 0.1) == 2
    assert trusted_steps(shares, 0.5) == 4
    assert trusted_steps(shares, 0.001) == 1
    assert trusted_steps({"observation": [], "cost": []}, 0.1) == 1
    binary_cost = {"observation": [0.0, 0.0, 0.2], "cost": [0.15, 0.14, 0.13]}
    assert trusted_steps(binary_cost, 0.1) == 2, "summed up, it is predicted no worse"
    assert trusted_steps(binary_cost | {"cost": [0.15, 0.16, 0.1]}, 0.1) == 1
