"""CAPS and IQL against hand-computed values and a problem that is solved exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from baseline_cases import answers, batch, task

from safe_diffusion_agent.learning.transitions import UnitNormalizer
from safe_diffusion_agent.methods.baselines.caps import (
    PRESETS,
    CapsAgent,
    CapsNetworks,
    CapsTraining,
    expectile_loss,
    switch,
)
from safe_diffusion_agent.methods.baselines.fitting import fit
from safe_diffusion_agent.settings import override


def test_switch_takes_the_most_reward_that_is_allowed_else_the_least_cost():
    reward = torch.tensor([[5.0, 1.0], [5.0, 1.0], [1.0, 5.0], [5.0, 1.0]])
    cost = torch.tensor([[3.0, 1.0], [3.0, 1.0], [1.0, 2.0], [3.0, 2.0]])
    budget = torch.tensor([4.0, 2.0, torch.inf, 0.0])
    assert switch(reward, cost, budget).tolist() == [0, 1, 1, 1]


def test_expectile_loss_by_hand():
    advantage = torch.tensor([2.0, -1.0])
    # (0.7 * 4 + 0.3 * 1) / 2
    assert abs(expectile_loss(advantage, 0.7).item() - 1.55) < 1e-6


def test_the_minimiser_of_the_expectile_loss_is_the_expectile():
    values = torch.tensor([0.0, 1.0, 5.0])
    grid = torch.linspace(0, 5, 5001)
    best = grid[torch.stack([expectile_loss(values - v, 0.9) for v in grid]).argmin()].item()
    # tau E[(x - v)_+] = (1 - tau) E[(v - x)_+]
    above, below = (values - best).clamp_min(0).mean(), (best - values).clamp_min(0).mean()
    assert abs(0.9 * above - 0.1 * below) < 1e-3


def constant(network, value):
    """Makes a network answer one value."""
    for parameter in network.parameters():
        parameter.data.zero_()
    list(network.parameters())[-1].data.fill_(value)


def test_losses_by_hand():
    config = override(PRESETS["quick"], {"width": 4, "expectile": 0.7, "cost_expectile": 0.8})
    training = CapsTraining(CapsNetworks(1, 1, 4), config, task())
    networks = training.networks
    for twins, values in (
        (training.reward_target, (3.0, 4.0)), (training.cost_target, (5.0, 6.0)),
        (networks.reward_critic, (1.0, 1.0)), (networks.cost_critic, (1.0, 1.0)),
    ):  # fmt: skip
        for network, value in zip(twins.networks, values, strict=True):
            constant(network, value)
    constant(training.reward_value, 2.0)
    constant(training.cost_value, 7.0)
    for parameter in networks.policy.parameters():
        parameter.data.zero_()
    losses = training.batch_losses(batch(), torch.Generator())
    # advantage: min(3, 4) - 2 = 1; saving: 7 - max(5, 6) = 1
    assert abs(losses["reward_value"].item() - 0.7) < 1e-6
    assert abs(losses["cost_value"].item() - 0.8) < 1e-6
    # targets: 0.1 + 0.99 * 2 and 0.1; 2 + 0.99 * 7 and 3. Twins answer 1 each.
    reward = ((1 - 2.08) ** 2 + (1 - 0.1) ** 2) / 2 * 2
    cost = ((1 - 8.93) ** 2 + (1 - 3.0) ** 2) / 2 * 2
    assert abs(losses["reward_critic"].item() - reward) < 1e-5
    assert abs(losses["cost_critic"].item() - cost) < 1e-4
    # both heads weigh exp(3 * 1); the density of a standard normal at its mean
    policy = np.exp(3.0) * 0.5 * np.log(2 * np.pi)
    assert abs(losses["policy"].item() - policy) < 1e-4


@pytest.mark.parametrize(("ends", "cost_target"), [(True, 3.0), (False, 3.0 + 0.99 * 7.0)])
def test_values_end_at_a_time_limit_or_go_on(ends, cost_target):
    config = override(PRESETS["quick"], {"width": 4, "time_limit_ends": ends})
    training = CapsTraining(CapsNetworks(1, 1, 4), config, task())
    constant(training.cost_value, 7.0)
    for network in training.networks.cost_critic.networks:
        constant(network, 1.0)
    cut = batch(continues=torch.ones(2))  # the second transition is the last one, by the time limit
    loss = training.batch_losses(cut, torch.Generator())["cost_critic"].item()
    # the first goes on in both cases: 2 + 0.99 * 7. Twins answer 1 each.
    assert abs(loss - ((1 - 8.93) ** 2 + (1 - cost_target) ** 2)) < 1e-4


@pytest.mark.parametrize("learned", [True, False])
def test_standard_deviations_stay_one_unless_they_are_learned(tiny_episodes, learned):
    config = override(PRESETS["quick"], {"num_steps": 3, "width": 4, "learned_std": learned})
    agent, _ = fit(CapsAgent, tiny_episodes, config, device="cpu")
    assert bool((agent.networks.policy.log_std != 0.0).all()) is learned
    assert bool((agent.networks.policy.log_std == 0.0).all()) is not learned


def test_more_steps_make_a_budget_stricter():
    """A head that costs 9: a budget of 10 for 5 steps allows it, but not if they are 30."""
    networks = CapsNetworks(1, 1, 4)
    for head, action in zip(networks.policy.means, (1.0, -1.0), strict=True):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, 9.0 * action)
    answers(networks.reward_critic, [lambda a: a] * 2)
    answers(networks.cost_critic, [lambda a: 8.0 + a] * 2)
    # 10 (1 - 0.99^5) / (1 - 0.99) / 5 = 9.80 > 9; with 30 steps 8.68: the other head, which costs 7
    normalizer = UnitNormalizer(*(torch.tensor([x]) for x in (0.0, 1.0, 0.0, 1.0)))
    for extra, chosen in ((0, 1.0), (25, -1.0)):
        config = override(PRESETS["quick"], {"width": 4, "extra_steps": extra})
        agent = CapsAgent(networks, normalizer, config, task(), device="cpu")
        assert abs(agent.act(np.zeros(1), 10.0, 5)[0] - chosen) < 1e-6


def test_the_heads_separate_on_a_bandit(tiny_episodes):
    """Data in which the action a costs a and pays a: one head goes up, the other down."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-2.0, 2.0, (600, 1)).astype(np.float32)
    bandit = replace(
        tiny_episodes, observations=np.zeros((1200, 3), np.float32), actions=actions,
        rewards=actions[:, 0] + 2.0, costs=actions[:, 0] + 2.0, lengths=np.ones(600, np.int64),
        terminated=np.ones(600, bool),
    )  # fmt: skip
    config = override(
        PRESETS["quick"],
        {"num_steps": 600, "width": 32, "reward_scale": 1.0, "actor_learning_rate": 3e-3,
         "critic_learning_rate": 3e-3},
    )  # fmt: skip
    agent, _ = fit(CapsAgent, bandit, config, device="cpu")
    rich, poor = agent.act(np.zeros((2, 3)), [np.inf, 0.0], 1)[:, 0]
    assert rich > 1.0 and poor < -1.0
