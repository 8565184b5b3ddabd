from dataclasses import replace

import numpy as np
import pytest
import torch
from frontier_cases import Shop, sampler_of

from safe_diffusion_agent.learning.training import OptimizationConfig, optimize
from safe_diffusion_agent.learning.transitions import Transitions
from safe_diffusion_agent.methods.trebi.config import FrontierConfig
from safe_diffusion_agent.methods.trebi.frontier.branches import RolloutSource
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic
from safe_diffusion_agent.methods.trebi.frontier.critic_fit import (
    CriticTraining,
    advantage_weights,
)


def test_critic_learns_the_frontier_of_a_shop(tiny_episodes):
    """With k steps left the frontier is return = cost, from 0 to k; the price 1 divides it."""
    torch.manual_seed(0)
    num = 400
    spent = torch.rand(num, 1)
    episodes = replace(  # single steps of random spending
        tiny_episodes, observations=np.zeros((2 * num, 1), np.float32), actions=spent.numpy(),
        rewards=spent[:, 0].double().numpy(), costs=spent[:, 0].double().numpy(),
        lengths=np.ones(num, np.int64), terminated=np.zeros(num, bool),
    )  # fmt: skip
    critic = FrontierCritic(1, 1, 64, 10, 1.0, 1.0)
    critic.reward_low.fill_(0.0)
    critic.return_scale.fill_(3.0)
    critic.cost_scale.fill_(3.0)
    critic.action_high.fill_(1.0)
    config = FrontierConfig(
        critic_batch_size=128, num_branches=300, branch_interval=300, target_rate=0.01
    )
    sampler = sampler_of(Shop(), critic, lambda x, i: torch.rand_like(x))
    transitions = Transitions(episodes, sampler.normalizer)
    training = CriticTraining(critic, transitions, RolloutSource(sampler), config)
    optimize(
        training,
        OptimizationConfig(num_steps=1_000, learning_rate=2e-3),
        generator=torch.Generator().manual_seed(0),
    )
    assert training.steps == 1_000
    steps = torch.tensor([10.0, 10.0, 4.0, 4.0])
    prices = torch.tensor([0.01, 5.0, 0.01, 5.0])
    returns, costs = critic(torch.zeros(4, 1), steps, prices)
    assert returns.tolist() == pytest.approx([10, 0, 4, 0], abs=1.5)
    assert costs.tolist() == pytest.approx([10, 0, 4, 0], abs=1.5)
    actions = critic.act(torch.zeros(4, 1), steps, prices)[:, 0]
    assert actions.tolist() == pytest.approx([1, 0, 1, 0], abs=0.2)


def test_advantage_weights_prefer_the_better():
    weights = advantage_weights(torch.linspace(-1, 1, 101))
    assert float(weights.mean()) == pytest.approx(1.0)
    assert (weights[1:] >= weights[:-1]).all() and weights[-1] > 5 * weights[0]
