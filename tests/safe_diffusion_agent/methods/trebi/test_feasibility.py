import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from frontier_cases import sampler_of
from scipy.stats import norm

from safe_diffusion_agent.episodes import Task
from safe_diffusion_agent.learning.dynamics import DynamicsEnsemble, Transition
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.calibration import Calibration
from safe_diffusion_agent.methods.trebi.feasibility import keep_probability, safe_mass
from safe_diffusion_agent.methods.trebi.fit import fit
from safe_diffusion_agent.methods.trebi.frontier.critic import FrontierCritic
from safe_diffusion_agent.methods.trebi.frontier.judge import FrontierJudge
from safe_diffusion_agent.methods.trebi.planner import Sampler

HANGING = np.array([-1.0, 0.0, 0.0], np.float32)
TASK = {
    "env_id": None, "obs_dim": 1, "act_dim": 1, "action_low": (0.0,), "action_high": (1.0,),
    "max_episode_steps": 10, "cost_discount": 1.0, "max_budget": 10.0,
}  # fmt: skip
QUICKLY = {
    "num_steps": 10, "model_steps": 20, "critic_steps": 10, "imitation_steps": 10,
    "num_branches": 30, "horizon": 8,
    "calibration_episodes": 20, "risk": None, "num_candidates": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def frontier_agent(tiny_episodes):
    return fit(tiny_episodes, METHODS["trebi"].config("frontier", **QUICKLY))[0]


class Meter(DynamicsEnsemble):
    """An action costs what it is, and member i charges i on top; nothing moves."""

    def step(self, obs, actions, members=None):
        cost = actions[:, 0].square() + members
        return Transition(obs, cost, cost, torch.full_like(cost, self.survives))


class NormalSampler(Sampler):
    """Its diffusion model draws independent normal actions, as a GaussianDenoiser would."""

    def draw_noise(self, num, generator):
        return torch.randn(1, num, self.config.model.horizon, 2, generator=generator)

    def draw(self, obs, steps, noise, guide=None):
        return noise[0], noise[0]


def gambler(num_members, survives=1.0, cost_discount=1.0, horizon=4) -> FrontierJudge:
    dynamics = Meter(1, 1, 4, num_members)
    dynamics.survives = survives
    critic = FrontierCritic(1, 1, 4, 10, 1.0, cost_discount)
    return FrontierJudge(sampler_of(dynamics, critic, sampler_class=NormalSampler, horizon=horizon))


def test_safe_mass_is_the_probability_where_that_is_known():
    """A step costs x^2, x normal: P(x^2 <= z) = 2 Phi(sqrt z) - 1. Two steps: 1 - e^(-z/2)."""
    generator = torch.Generator().manual_seed(0)
    obs, steps = torch.zeros(4, 1), torch.tensor([1.0, 1.0, 2.0, 1.0])
    budgets = torch.tensor([0.5, 2.0, 2.0, -0.1])
    mass = safe_mass(gambler(1), None, 20_000, obs, budgets, steps, generator)
    expected = [2 * norm.cdf(math.sqrt(z)) - 1 for z in (0.5, 2.0)] + [1 - math.exp(-1.0), 0.0]
    assert mass.tolist() == pytest.approx(expected, abs=0.012)  # 3 standard errors


def test_imagined_costs_are_sums_over_the_rest_of_the_episode():
    """Against chi-squared means, over more steps than the horizon, with discount and survival."""
    generator = torch.Generator().manual_seed(0)
    num = 30_000
    for survives, discount in ((1.0, 1.0), (0.5, 0.8)):
        judge = gambler(2, survives, discount, horizon=4)
        steps = torch.tensor([3.0, 10.0]).repeat_interleave(num)
        costs = judge.costs_of_behavior(torch.zeros(2 * num, 1), steps, generator).view(2, num)
        for row, length in zip(costs, (3, 10), strict=True):
            weight = sum((survives * discount) ** t for t in range(length))
            of_member = row.view(-1, 2).mean(dim=0).tolist()
            assert of_member == pytest.approx([weight, 2 * weight], rel=0.05)


def test_keep_probability_is_the_share_of_errors_that_fit():
    calibration, task = Calibration(torch.tensor([-1.0, 0.0, 0.0, 2.0])), Task(**TASK)
    budgets, costs = torch.tensor([1.9, 2.0, 3.0, 4.9, 99.0]), torch.full((5,), 3.0)
    expected = [0.1, 0.3, 0.7, 0.7, 0.9]  # (number of errors <= budget - 3, + 1/2) / 5
    assert keep_probability(calibration, task, budgets, costs).tolist() == pytest.approx(expected)
    assert keep_probability(None, task, budgets, costs).tolist() == [0, 0, 1, 1, 1]
    assert calibration.margin(0.2).of_step == 2.0, "the least slack of probability 1 - 0.2 or more"


@pytest.mark.parametrize("calibration", [None, Calibration(torch.tensor([-1.0, 0.0, 3.0]))])
def test_an_overspent_budget_can_be_kept_only_where_costs_may_be_negative(calibration):
    budgets, costs = torch.tensor([-0.5, -5.0]), torch.tensor([-9.0, -9.0])
    sure = 1.0 if calibration is None else 3.5 / 4
    for signed, expected in ((False, 0.0), (True, sure)):
        task = Task(**TASK, costs_may_be_negative=signed)
        kept = keep_probability(calibration, task, budgets, costs)
        assert kept.tolist() == pytest.approx([expected] * 2)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_the_mass_of_an_overspent_budget_by_the_values(tiny_agent, calibrated, signed, monkeypatch):
    """Every trajectory is predicted to earn 9; what may not happen has no mass all the same."""
    judge = tiny_agent.planner.judge
    calibration = Calibration(torch.tensor([-1.0, 0.0, 3.0])) if calibrated else None
    task = replace(tiny_agent.task, costs_may_be_negative=signed)
    monkeypatch.setattr(judge.sampler, "task", task)
    monkeypatch.setattr(judge, "rate", lambda x, steps: (0 * steps, 0 * steps - 9.0))
    obs, budgets, steps = torch.zeros(2, 3), torch.tensor([-0.5, 1.0]), torch.full((2,), 100.0)
    mass = safe_mass(judge, calibration, 4, obs, budgets, steps, torch.Generator())
    sure = 3.5 / 4 if calibrated else 1.0
    assert mass.tolist() == pytest.approx([sure * signed, sure])


@pytest.mark.parametrize("which", ["tiny_agent", "frontier_agent"])
def test_larger_budgets_are_kept_more_likely(which, request):
    agent = request.getfixturevalue(which)
    budgets = np.array([-5.0, 0.0, 2.0, 10.0, 40.0, 1e4, math.inf])
    obs = np.tile(HANGING, (len(budgets), 1))
    feasible = agent.feasibility(obs, budgets, 150, num_samples=8)
    for values in (feasible.safe_mass, feasible.keep_probability):
        assert values.shape == (7,) and ((values >= 0) & (values <= 1)).all()
        assert values[0] == 0 and values[-2] > 0.9 and values[-1] > 0.9
    of_plan = agent.plan(HANGING, 10.0, 150)
    assert of_plan.keep_probability.shape == (1,)


def test_feasibility_of_one_state_and_its_random_numbers(frontier_agent):
    calls = [
        frontier_agent.feasibility(HANGING, 1.0, 20, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert calls[0].safe_mass.shape == (1,)
    np.testing.assert_array_equal(calls[0].safe_mass, calls[1].safe_mass)
    with pytest.raises(ValueError, match="shape"):
        frontier_agent.feasibility([0.0], 1.0, 20)


def test_plans_are_explained(frontier_agent, tiny_agent):
    obs = np.tile(HANGING, (3, 1))
    plan = tiny_agent.plan(obs, [1e4, -1e4, math.inf], 150, return_candidates=True)
    within = plan.candidates.predicted_cost <= (plan.remaining_budget - plan.margin)[:, None]
    np.testing.assert_array_equal(plan.num_fitting, within.sum(axis=1))
    np.testing.assert_array_equal(plan.num_fitting > 0, plan.feasible)
    np.testing.assert_array_equal(plan.least_cost, plan.candidates.predicted_cost.min(axis=1))
    texts = [plan.explain(index) for index in range(3)]
    assert texts[0].startswith("1e+04 may still be spent, of which 3 are held back. 16 of")
    assert "No candidate fits" in texts[1] and texts[2].startswith("There is no budget")
    assert f"return {plan.predicted_return[1]:.4g}" in texts[1]
    assert "held back" not in frontier_agent.plan(HANGING, 5.0, 100).explain()
