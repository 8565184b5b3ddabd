import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from frontier_cases import Shop, sampler_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.methods.trebi.frontier.critic import (
    MULTIPLIERS,
    FrontierCritic,
    best_single_return,
    most_return,
)
from safe_diffusion_agent.methods.trebi.frontier.judge import FrontierJudge

HANGING = np.array([-1.0, 0.0, 0.0], np.float32)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_dual_bound_is_the_best_mixture_that_fits(seed, share):
    """Against a linear program over mixtures of behaviors (Lagrangian duality)."""
    rng = np.random.default_rng(seed)
    costs, returns = rng.uniform(0, 10, 30), rng.uniform(0, 100, 30)
    budget = costs.min() + share * (costs.max() - costs.min()) + 1e-6
    program = linprog(
        -returns, A_ub=[costs], b_ub=[budget], A_eq=[np.ones(30)], b_eq=[1.0], bounds=(0, 1)
    )
    multipliers = np.concatenate([[0.0], np.geomspace(1e-3, 1e7, 20_000)])
    best = np.argmax(returns - multipliers[:, None] * costs, axis=1)
    bound, least = most_return(
        *(torch.tensor(values[best])[None] for values in (returns, costs)),
        torch.tensor([budget]),
        torch.tensor(multipliers),
    )
    assert float(bound) == pytest.approx(-program.fun, rel=2e-3, abs=0.05)
    assert float(least) == costs.min()
    single, _ = best_single_return(
        *(torch.tensor(values[best])[None] for values in (returns, costs)),
        torch.tensor([budget]),
        torch.tensor(multipliers),
    )
    assert float(single) <= float(bound) + 1e-9


def test_without_a_budget_only_the_return_counts():
    returns, costs = torch.tensor([[9.0, 5.0, 1.0]]), torch.tensor([[7.0, 3.0, 0.0]])
    bound, _ = most_return(returns, costs, torch.tensor([math.inf]), torch.tensor([0.0, 1.0, 10.0]))
    assert float(bound) == 9.0


def test_plans_include_the_critics_own(frontier_agent):
    plan = frontier_agent.plan(HANGING, 10.0, 100, return_candidates=True)
    assert plan.candidates.actions.shape == (1, 4 + 1 + len(MULTIPLIERS), 8, 1)
    assert plan.actions.shape == (1, 8, 1) and (np.abs(plan.actions) <= 2.0 + 1e-5).all()
    np.testing.assert_allclose(plan.candidates.observations[0, :, 0], [HANGING] * 16, atol=1e-5)
    costs, returns = plan.candidates.predicted_cost[0], plan.candidates.predicted_return[0]
    within = costs <= 10.0 - frontier_agent.margin
    best = np.argmax(np.where(within, returns, -np.inf)) if within.any() else np.argmin(costs)
    assert plan.candidates.chosen[0] == best and plan.feasible[0] == within.any()
    assert np.isfinite(frontier_agent.plan(HANGING, math.inf, 1).predicted_return).all()


def test_plans_are_carried_out_and_the_critic_stands_for_the_rest():
    """In the shop a plan of two steps costs what it buys, and the critic answers 3 and 5 after."""
    critic = FrontierCritic(1, 1, 4, 10, 1.0, 0.5)
    critic.action_high.fill_(1.0)
    critic.forward = lambda obs, left, price: (3.0 * (left > 0), 5.0 * (left > 0))
    shop = Shop()
    shop.trusted_steps.fill_(2)
    judge = FrontierJudge(sampler_of(shop, critic))
    plans = torch.tensor([[[[0.25], [0.5], [1.0]], [[1.0], [7.0], [0.0]]]])
    for left, spent, discounted, rest in (
        (10.0, [0.75, 2.0], [0.5, 1.5], 1),  # a third step would not be believed; 7 is clipped
        (2.0, [0.75, 2.0], [0.5, 1.5], 0),
        (1.0, [0.25, 1.0], [0.25, 1.0], 0),
    ):
        steps = torch.full((1,), left)
        rollout = judge.imagine_plans(torch.zeros(1, 1), plans, steps, behaviors=False)
        returns, costs = judge.return_and_cost(rollout, steps.repeat(2))
        assert returns.shape == costs.shape == (2, len(MULTIPLIERS))
        assert returns[:, 0].tolist() == pytest.approx([x + 3.0 * rest for x in spent])
        assert costs[:, 0].tolist() == pytest.approx([x + 0.25 * 5.0 * rest for x in discounted])
    (costs, returns), (alone_costs, alone_returns) = judge.foresee(
        torch.cat([plans, torch.zeros_like(plans)], dim=-1), torch.zeros(1, 1), torch.tensor([10.0])
    )
    assert returns[:, -1].tolist() == pytest.approx([3.75, 5.0])
    assert costs[:, -1].tolist() == pytest.approx([1.75, 2.75])
    assert (alone_returns == 3.0).all() and (alone_costs == 5.0).all()
    assert alone_costs.shape == (1, len(MULTIPLIERS))


def test_to_do_nothing_is_among_the_candidates(frontier_agent):
    plan = frontier_agent.plan([HANGING] * 2, 10.0, 100, return_candidates=True)
    np.testing.assert_allclose(plan.candidates.actions[:, 4], 0.0, atol=1e-5)
    idle = plan.candidates.observations[:, 4]
    np.testing.assert_allclose(idle[:, 0], [HANGING] * 2, atol=1e-5)
    assert np.abs(idle[:, 1:] - idle[:, :1]).max() > 0.0, "imagined by the models"


def test_without_candidates_there_have_to_be_the_critics():
    sampler = sampler_of(Shop(), FrontierCritic(1, 1, 4, 10, 1.0, 1.0))
    planner = sampler.config.planner
    for num_candidates, critic_plans in ((0, True), (3, False), (3, True)):
        changed = replace(planner, num_candidates=num_candidates, critic_plans=critic_plans)
        sampler.config = replace(sampler.config, planner=changed)
        expected = num_candidates + critic_plans * len(MULTIPLIERS)
        assert FrontierJudge(sampler).num_candidates == expected
    changed = replace(planner, num_candidates=0, critic_plans=False, idle_plan=True)
    sampler.config = replace(sampler.config, planner=changed)
    with pytest.raises(ValueError, match="without critic_plans, num_candidates should be positive"):
        FrontierJudge(sampler)


@pytest.mark.parametrize("imitates", [0.0, 1.0])
def test_without_the_critics_plans_the_others_are_rated(frontier_agent, tmp_path, imitates):
    frontier_agent.save(tmp_path)
    agent = TrebiAgent.load(tmp_path, critic_plans=False)
    agent.networks.critic.imitates.fill_(imitates)
    agent.planner.judge.refresh()
    plan = agent.plan([HANGING] * 2, 10.0, 100, return_candidates=True)
    assert plan.candidates.actions.shape[:2] == (2, 4 + 1)
    assert np.isfinite(plan.predicted_return).all()
