import pytest
import torch

from safe_diffusion_agent.episodes import Task, discounted_steps
from safe_diffusion_agent.methods.trebi.config import ModelConfig
from safe_diffusion_agent.methods.trebi.frontier.critic import (
    MULTIPLIERS,
    FrontierCritic,
    FrontierNetworks,
    random_multipliers,
)


def test_critic_is_bounded_and_ends_at_zero():
    critic = FrontierCritic(2, 1, 16, 50, 0.9, 0.9)
    critic.reward_low.fill_(-1.0)
    critic.reward_high.fill_(3.0)
    obs, multipliers = 10 * torch.randn(200, 2), torch.rand(200)
    steps = torch.arange(200) % 51 * 1.0
    returns, costs = critic(obs, steps, multipliers)
    weight = torch.tensor([sum(0.9**i for i in range(int(k))) for k in steps])
    torch.testing.assert_close(discounted_steps(steps, 0.9), weight)
    assert (returns <= 3.08 * weight + 1e-5).all() and (returns >= -1.08 * weight - 1e-5).all()
    assert (costs >= 0).all() and (returns[0], costs[0]) == (0, 0)


@pytest.mark.parametrize("cost_discount", [1.0, 0.9])
def test_costs_to_go_are_negative_only_where_they_may_be(cost_discount):
    torch.manual_seed(0)
    obs, multipliers = 30 * torch.randn(500, 2), torch.rand(500)
    steps = torch.arange(500) % 51 * 1.0
    for signed in (False, True):
        critic = FrontierCritic(2, 1, 64, 50, 1.0, cost_discount, signed_costs=signed)
        _, costs = critic(obs, steps, multipliers)
        assert bool((costs < 0).any()) == signed
        assert (costs > 0).any() and (costs[steps == 0] == 0).all()


def test_the_task_says_whether_costs_may_be_negative():
    for signed in (False, True):
        task = Task(
            env_id=None, obs_dim=2, act_dim=1, action_low=(-1.0,), action_high=(1.0,),
            max_episode_steps=10, cost_discount=1.0, max_budget=1.0, costs_may_be_negative=signed,
        )  # fmt: skip
        networks = FrontierNetworks(ModelConfig(network="mlp", judge="frontier"), task)
        assert networks.critic.signed_costs == signed


def test_without_a_time_limit_there_is_no_frontier():
    task = Task(
        env_id=None, obs_dim=2, act_dim=1, action_low=(-1.0,), action_high=(1.0,),
        max_episode_steps=None, cost_discount=0.9, max_budget=1.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="time limit"):
        FrontierNetworks(ModelConfig(network="mlp", judge="frontier"), task)


def test_multipliers_stay_in_range():
    multipliers = random_multipliers(12_000, torch.Generator().manual_seed(0))
    assert float((multipliers == 0).float().mean()) == pytest.approx(1 / 12, abs=0.01)
    assert multipliers.max() <= max(MULTIPLIERS) and multipliers[multipliers > 0].min() > 0.002
