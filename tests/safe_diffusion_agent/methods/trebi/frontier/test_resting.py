"""Rest before and after behaviors, against loops over steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from frontier_cases import Shop, sampler_of

from safe_diffusion_agent.learning.dynamics import ModelRollout, Transition
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic
from safe_diffusion_agent.methods.trebi.frontier.judge import FrontierJudge
from safe_diffusion_agent.methods.trebi.frontier.resting import (
    SHARES,
    after_waiting,
    as_long_as_it_lasts,
    best_wait,
    stopping_cost,
)
from safe_diffusion_agent.methods.trebi.planner import select_candidate

MAX_STEPS = 40
IDLE_COST, IDLE_REWARD = 0.25, -0.5


def spends(price):
    return torch.where(price < 0.05, 4.0, 1.0)


def critic_of(cost_discount):
    """Of two behaviors: below a price of 0.05 a fast one, else a slow one."""
    critic = FrontierCritic(1, 1, 4, MAX_STEPS, 1.0, cost_discount)

    def forward(obs, left, price):
        discounted = (
            left if cost_discount == 1.0 else (1 - cost_discount**left) / (1 - cost_discount)
        )
        return 3.0 * spends(price) * left, spends(price) * discounted

    critic.forward = forward
    return critic


def rollout_of(costs, rewards, cost_discount):
    """Doing nothing, once per state."""
    costs, rewards = (torch.tensor(values, dtype=torch.float32) for values in (costs, rewards))
    num = costs.shape[1]
    return ModelRollout(
        torch.zeros(*costs.shape, 1),
        torch.zeros(*costs.shape, 1),
        rewards.cumsum(1),
        (costs * cost_discount ** torch.arange(num)).cumsum(1),
        torch.ones_like(costs),
    )


@pytest.mark.parametrize("cost_discount", [1.0, 0.9])
@pytest.mark.parametrize("taken", [1, 4])
def test_waiting_is_summed_up_step_by_step(cost_discount, taken):
    idle = rollout_of([[IDLE_COST] * 4] * 2, [[IDLE_REWARD] * 4] * 2, cost_discount)
    critic, left = critic_of(cost_discount), torch.tensor([40.0, 13.0])
    returns, costs = after_waiting(critic, idle, torch.full((2,), float(taken)), left)
    prices = critic.multipliers[::2]
    assert returns.shape == costs.shape == (2, len(SHARES), len(prices))
    for state, steps in enumerate((40, 13)):
        for k, share in enumerate(SHARES):
            running = int(share * (steps - taken) + 1e-4)
            for m, price in enumerate(prices):
                speed = float(spends(price))
                spent = [IDLE_COST] * (steps - running) + [speed] * running
                expected = sum(c * cost_discount**t for t, c in enumerate(spent))
                assert float(costs[state, k, m]) == pytest.approx(expected, rel=1e-4)
                earned = IDLE_REWARD * (steps - running) + 3.0 * speed * running
                assert float(returns[state, k, m]) == pytest.approx(earned, rel=1e-4)


def test_best_wait_is_between_two_shares():
    returns = torch.tensor([[[90.0, 40.0], [30.0, 10.0], [0.0, 0.0]]]).expand(4, 3, 2)
    costs = torch.tensor([[[30.0, 20.0], [10.0, 5.0], [1.0, 1.0]]]).expand(4, 3, 2)
    most, least = best_wait(returns, costs, torch.tensor([20.0, 5.5, 0.5, torch.inf]))
    # Half way from 30 to 90; half way from 0 to 30 of the fast one; nothing fits; everything does.
    assert most.tolist() == pytest.approx([60.0, 15.0, 0.0, 90.0])
    assert least.tolist() == [1.0] * 4
    # A behavior that is followed at once may cost less than one that is waited for.
    at_once = torch.tensor([[[10.0], [9.0], [0.0]]]), torch.tensor([[[5.0], [8.0], [20.0]]])
    assert best_wait(*at_once, torch.tensor([6.0]))[0].item() == 10.0


def test_what_it_costs_to_stop_is_a_geometric_sum():
    """Half of what the steps before cost: 4 + 2 + 1 + ...; nine tenths at most; or nothing."""
    costs = [[2.0, 2.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]]
    idle, left = rollout_of(costs, np.zeros((3, 4)).tolist(), 1.0), torch.full((3,), 90.0)
    stopping = stopping_cost(idle, torch.full((3,), 4.0), left)
    assert stopping.tolist() == pytest.approx([8.0, 12.0 + 6.0 * 9.0, 0.0])
    # One believed step says nothing of the next ones.
    assert stopping_cost(idle, torch.ones(3), left).tolist() == pytest.approx([20.0, 30.0, 0.0])
    # No more steps are paid for than there are.
    few = stopping_cost(idle, torch.full((3,), 4.0), torch.full((3,), 5.0))
    assert few.tolist() == pytest.approx([7.0, 15.0, 0.0])


def test_a_behavior_is_followed_as_long_as_the_budget_lasts():
    plans = torch.tensor([[5.0]]), torch.tensor([[2.0]])
    follows = torch.tensor([[100.0, 30.0]]), torch.tensor([[50.0, 10.0]])
    for budget, expected in ((27.0, [55.0, 35.0]), (1.0, [5.0, 5.0]), (1e9, [105.0, 35.0])):
        worth = as_long_as_it_lasts(plans, follows, torch.tensor([budget]))
        assert worth[0].tolist() == pytest.approx(expected)


class Road(Shop):
    """The action is the speed; what it costs is the speed, and it returns three times that."""

    def step(self, obs, actions, members=None):
        speed = 4.0 * actions[:, 0]
        return Transition(torch.zeros_like(obs), 3.0 * speed, speed, torch.ones(len(obs)))


def agent_on_the_road(cost_discount, *, rests):
    critic = critic_of(cost_discount)
    critic.action_high.fill_(1.0)
    critic.act = lambda obs, left, price: (spends(price) / 4.0)[:, None]
    critic.return_scale.fill_(100.0)
    critic.imitates.fill_(1.0)
    road = Road()
    road.terminates.fill_(not rests)
    sampler = sampler_of(road, critic)
    planner = replace(sampler.config.planner, num_candidates=0, idle_plan=True, critic_plans=True)
    sampler.config = replace(sampler.config, planner=planner)
    return FrontierJudge(sampler)


def drive(judge, budget, cost_discount):
    """Returns the speeds of an episode."""
    speeds, remaining, obs = [], budget, torch.zeros(1, 1)
    for step in range(MAX_STEPS):
        rated = judge.candidates(
            obs, torch.tensor([remaining]), torch.tensor([float(MAX_STEPS - step)]), torch.zeros(0)
        )
        chosen, _ = select_candidate(
            rated.returns, rated.costs, torch.tensor([remaining]), rated.head_start
        )
        speeds.append(4.0 * float(rated.trajectories[0, chosen[0], 0, 0]))
        remaining = (remaining - speeds[-1]) / cost_discount
    return np.array(speeds)


def test_a_sum_is_spent_fast_and_then_it_stops():
    speeds = drive(agent_on_the_road(1.0, rests=True), 60.0, 1.0)
    assert speeds.sum() <= 60.0 + 1e-4
    assert speeds.sum() > 60.0 - 16.0, "less than one plan of four steps is left"
    assert (np.diff(speeds[:36]) <= 0.0).all(), "what is too little for fast steps buys slow ones"
    assert (speeds == 4.0).sum() >= 11 and 0.0 in speeds


def test_it_waits_until_a_discounted_budget_has_grown():
    speeds = drive(agent_on_the_road(0.9, rests=True), 10.0, 0.9)
    cost = (speeds * 0.9 ** np.arange(MAX_STEPS)).sum()
    assert cost <= 10.0 + 1e-4
    waits = int(np.argmax(speeds > 0.0))
    assert waits >= 8, "4 / (1 - 0.9) = 40 are needed, and 10 / 0.9^13 are"
    assert (speeds[waits:] == 4.0).mean() > 0.9


def test_where_episodes_may_end_early_nobody_rests():
    judge = agent_on_the_road(1.0, rests=False)
    rated = judge.candidates(
        torch.zeros(1, 1), torch.tensor([1.0]), torch.tensor([40.0]), torch.zeros(0)
    )
    assert rated.costs[0, 0] == torch.inf
    assert rated.head_start[1][0].argmax() == len(rated.costs[0]) - 1, "else what costs least"
