import numpy as np
import pytest
import torch

from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, Transition
from safe_diffusion_agent.learning.transitions import Transitions
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer
from safe_diffusion_agent.methods.trebi.frontier.model_fit import (
    DynamicsTraining,
    event_cost,
    trusted_steps,
    underestimated_costs,
    unexplained_elsewhere,
    unexplained_shares,
)


def transitions_of(episodes):
    return Transitions(episodes, Normalizer.fit(episodes))


def train(training, num_steps=400):
    optimizer = torch.optim.Adam(training.networks.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        value = sum(training.losses(generator).values())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def test_models_learn_the_pendulum(tiny_episodes):
    transitions = transitions_of(tiny_episodes)
    torch.manual_seed(0)
    dynamics = DynamicsEnsemble(3, 1, 64, 2)
    rows = torch.arange(len(transitions))
    training = DynamicsTraining(dynamics, transitions, rows[: 10 * 200], 128)
    held_out = rows[10 * 200 :]
    untrained = unexplained_shares(dynamics, transitions, held_out, 8)
    train(training)
    shares = unexplained_shares(dynamics, transitions, held_out, 8)
    assert trusted_steps(untrained, 0.02) == 1
    assert shares["observation"][0] < 0.001 and shares["observation"][7] < 0.02
    assert shares["observation"][7] > shares["observation"][0], "errors add up"
    assert shares["return"][7] < 0.3 < untrained["return"][7]


def test_a_cost_of_zero_or_one_is_learned_as_an_event(tiny_episodes):
    transitions = transitions_of(tiny_episodes)
    data = transitions.all
    border = data.next_obs[:, 0].median()
    data.costs.copy_(3.0 * (data.next_obs[:, 0] > border))
    rows, shares = torch.arange(len(transitions)), []
    for event in (True, False):
        torch.manual_seed(0)
        dynamics = DynamicsEnsemble(3, 1, 64, 2)
        training = DynamicsTraining(dynamics, transitions, rows[: 10 * 200], 128)
        assert training._event_cost == dynamics.event_cost == 3.0
        training._event_cost *= event  # False: the cost is a number like any other
        dynamics.event_cost.mul_(event)
        assert ("cost event" in training.losses(torch.Generator())) == event
        train(training)
        held_out = rows[10 * 200 :]
        shares.append(unexplained_shares(dynamics, transitions, held_out, 4)["cost"][0])
        if event:
            cost = dynamics.step(data.obs, data.actions).cost
            assert (cost >= 0).all() and (cost <= 3.0).all()
    assert shares[0] < 0.75 * shares[1], shares


@pytest.mark.parametrize("lowest", [0.0, -0.5, -3.0])
def test_predicted_costs_are_negative_only_where_those_of_the_data_are(tiny_episodes, lowest):
    """A step costs what the next angle is, from `lowest` up: bids earn as well as spend."""
    transitions = transitions_of(tiny_episodes)
    data = transitions.all
    data.costs.copy_(data.next_obs[:, 0].clamp(min=lowest))
    torch.manual_seed(0)
    dynamics = DynamicsEnsemble(3, 1, 64, 2)
    rows = torch.arange(len(transitions))
    training = DynamicsTraining(dynamics, transitions, rows[: 10 * 200], 128)
    assert dynamics.cost_low == data.costs.min().clamp(max=0.0) and dynamics.event_cost == 0
    train(training)
    held_out = rows[10 * 200 :]
    with torch.no_grad():
        predicted = dynamics.step(data.obs[held_out], data.actions[held_out]).cost
    true = data.costs[held_out]
    assert predicted.min() >= dynamics.cost_low
    assert bool((predicted < 0).any()) == (lowest < 0)
    assert ((predicted - true) ** 2).mean() < 0.05 * true.var()
    negative = true < -0.1
    if lowest < 0:
        assert negative.sum() > 20 and (predicted[negative] < 0).float().mean() > 0.9


def test_a_single_negative_cost_is_no_event(tiny_episodes):
    """Costs of 0 and -2 are not an event, which could not be negative."""
    transitions = transitions_of(tiny_episodes)
    transitions.all.costs.copy_(-2.0 * (transitions.all.next_obs[:, 0] > 0))
    dynamics = DynamicsEnsemble(3, 1, 8, 1)
    DynamicsTraining(dynamics, transitions, torch.arange(len(transitions)), 8)
    assert dynamics.event_cost == 0 and dynamics.cost_low == -2.0


def test_an_event_is_a_cost_that_is_zero_or_always_the_same():
    assert event_cost(torch.tensor([0.0, 2.0, 0.0])) == 2.0
    assert event_cost(torch.tensor([0.0, 2.0, 1.0])) == 0.0
    assert event_cost(torch.zeros(3)) == 0.0
    assert event_cost(torch.tensor([0.0, -2.0])) == event_cost(torch.tensor([2.0, -2.0])) == 0.0


def test_trusted_steps_end_before_the_first_share_over_the_tolerance():
    shares = {"observation": [0.0, 0.05, 0.2, 0.0], "cost": [0.01, 0.02, 0.03, 0.04]}
    assert trusted_steps(shares, 0.1) == 2
    assert trusted_steps(shares, 0.5) == 4
    assert trusted_steps(shares, 0.001) == 1
    assert trusted_steps({"observation": [], "cost": []}, 0.1) == 1
    binary_cost = {"observation": [0.0, 0.0, 0.2], "cost": [0.15, 0.14, 0.13]}
    assert trusted_steps(binary_cost, 0.1) == 2, "summed up, it is predicted no worse"
    assert trusted_steps(binary_cost | {"cost": [0.15, 0.16, 0.1]}, 0.1) == 1


@pytest.mark.parametrize("cost_discount", [1.0, 0.9])
def test_scores_are_of_windows_that_do_not_overlap(tiny_episodes, cost_discount):
    """Of a model that predicts no cost, the scores are what the windows cost."""
    transitions = transitions_of(tiny_episodes)
    dynamics = DynamicsEnsemble(3, 1, 8, 1)
    dynamics.trusted_steps.fill_(50)
    dynamics.target_scale.zero_()
    rows = torch.arange(200, 600)
    scores = underestimated_costs(dynamics, transitions, rows, cost_discount)
    expected = tiny_episodes.costs[200:600].reshape(-1, 50) @ cost_discount ** np.arange(50)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


class Wary(DynamicsEnsemble):
    """Members agree on actions of the observation's sign, and come apart on others."""

    def step(self, obs, actions, members=None):
        foreign = (actions > 0) != (obs[:, :1] > 0)
        apart = members[:, None] * (1e-3 + foreign)
        zeros = torch.zeros(len(obs))
        return Transition(obs + apart, zeros, zeros, torch.ones(len(obs)))


def test_models_that_disagree_on_other_plans_are_wrong_there(tiny_episodes):
    transitions = transitions_of(tiny_episodes)
    data, rows = transitions.all, torch.arange(len(transitions))
    shares = {"observation": [0.01, 0.02], "cost": [0.0, 0.1]}

    def elsewhere(shares):
        generator = torch.Generator().manual_seed(0)
        dynamics = Wary(3, 1, 4, 3)
        return unexplained_elsewhere(dynamics, transitions, rows, shares, generator)

    data.obs[:, 0] = torch.where(transitions.episode % 2 == 0, 1e3, -1e3)
    data.actions[:] = 1.0
    data.actions[data.obs[:, 0] < 0] = -1.0
    worse = elsewhere(shares)  # half of the foreign plans are of the other sign
    factor = 0.5 + 0.5 * (1.001 / 0.001) ** 2
    assert worse["observation"] == pytest.approx([0.01 * factor, 0.02 * factor], rel=0.1)
    assert worse["cost"] == pytest.approx([0.0, 0.1 * factor], rel=0.1)
    data.obs[:, 0], data.actions[:] = 1e3, 1.0
    assert elsewhere(shares)["observation"] == pytest.approx(shares["observation"])
    assert elsewhere({"observation": [], "cost": []}) == {"observation": [], "cost": []}
