from dataclasses import replace

import numpy as np
import pytest
import torch

from safe_diffusion_agent.learning.training import OptimizationConfig, optimize
from safe_diffusion_agent.learning.transitions import Transitions
from safe_diffusion_agent.methods.trebi.config import FrontierConfig
from safe_diffusion_agent.methods.trebi.diffusion import Normalizer
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic
from safe_diffusion_agent.methods.trebi.frontier.imitation import ImitationTraining

NUM, LENGTH = 20, 10
SPENT = 0.8


@pytest.fixture
def two_kinds(tiny_episodes):
    """Of two kinds of episodes, one spends 0.8 a step and returns twice that, the other nothing."""
    steps = NUM * LENGTH
    kind = np.repeat(np.arange(NUM) % 2, LENGTH)
    actions = (SPENT * kind + 0.02 * np.random.default_rng(0).normal(size=steps))[:, None]
    return replace(
        tiny_episodes, observations=np.zeros((steps + NUM, 1), np.float32),
        actions=actions.astype(np.float32).clip(0.0, 1.0), rewards=2.0 * SPENT * kind,
        costs=SPENT * kind, lengths=np.full(NUM, LENGTH), terminated=np.zeros(NUM, bool),
    )  # fmt: skip


def training_of(episodes, *, spread=True, discount=1.0, cost_discount=1.0):
    torch.manual_seed(0)
    critic = FrontierCritic(1, 1, 64, LENGTH, discount, cost_discount, spread=spread)
    critic.reward_low.fill_(0.0)
    critic.reward_high.fill_(2.0 * SPENT)
    critic.return_scale.fill_(8.0)
    critic.cost_scale.fill_(4.0)
    critic.action_high.fill_(1.0)
    one = torch.ones(2)
    transitions = Transitions(episodes, Normalizer(0 * one, one, -9 * one, 9 * one))
    config = FrontierConfig(critic_batch_size=64, target_rate=0.02)
    return ImitationTraining(critic, transitions, episodes, config)


@pytest.mark.parametrize("spread", [True, False])
@pytest.mark.parametrize("cost_discount", [1.0, 0.8])
def test_the_best_episodes_are_imitated_at_every_price(two_kinds, cost_discount, spread):
    training = training_of(two_kinds, spread=spread, cost_discount=cost_discount)
    options = OptimizationConfig(num_steps=800, learning_rate=3e-3, decay_from=0.5)
    optimize(training, options, generator=torch.Generator().manual_seed(0))
    critic, zeros = training.networks, torch.zeros(4, 1)
    steps, prices = torch.tensor([10.0, 10.0, 4.0, 4.0]), torch.tensor([0.0, 5.0, 0.0, 5.0])
    returns, costs = critic(zeros, steps, prices)
    assert returns.tolist() == pytest.approx([16.0, 0.0, 6.4, 0.0], abs=0.8)
    to_go = [SPENT * sum(cost_discount**t for t in range(k)) for k in (10, 4)]
    assert costs.tolist() == pytest.approx([to_go[0], 0.0, to_go[1], 0.0], abs=0.4)
    actions = critic.act(zeros, steps, prices)[:, 0]
    assert actions.tolist() == pytest.approx([SPENT, 0.0, SPENT, 0.0], abs=0.1)


def test_episodes_count_by_what_they_are_worth_and_by_their_length(two_kinds):
    longer = two_kinds.lengths.copy()
    longer[0], longer[1] = 5, 15  # an idler's and a buyer's
    training = training_of(replace(two_kinds, lengths=longer))
    prices = torch.tensor([0.0, 1.0])
    weights = training._weights(prices)
    score = training.returns - prices[:, None] * 2.0 * training.costs
    spread = score.std(dim=1, keepdim=True).clamp_min(1e-6)
    expected = torch.exp((score - score.max(dim=1, keepdim=True).values) / (0.5 * spread))
    share = torch.tensor(longer) / longer.sum()
    expected = expected * share / (expected * share).sum(dim=1, keepdim=True) + 0.02 * share
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6)
    assert weights[1, 2:] == pytest.approx(float(weights[1, 2]), rel=1e-3), "all are worth 0"


def test_log_likelihood_is_that_of_a_normal_distribution():
    torch.manual_seed(0)
    critic = FrontierCritic(3, 2, 16, 10, 1.0, 1.0, spread=True)
    critic.action_low.copy_(torch.tensor([-1.0, -2.0]))
    critic.action_high.copy_(torch.tensor([1.0, 4.0]))
    state = torch.randn(5, 3), torch.full((5,), 4.0), torch.full((5,), 0.5)
    actions = torch.randn(5, 2)
    log_std = critic.actor(critic._features(*state))[:, 2:].clamp(-3.0, 1.0)
    normal = torch.distributions.Normal(critic.act(*state), log_std.exp() * torch.tensor([1.0, 3]))
    expected = normal.log_prob(actions).sum(dim=1)
    difference = critic.log_likelihood(*state, actions) - expected
    torch.testing.assert_close(difference, difference[:1].expand(5), rtol=1e-4, atol=1e-4)
