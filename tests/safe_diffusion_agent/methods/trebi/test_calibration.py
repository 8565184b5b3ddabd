import math

import numpy as np
import pytest
import torch

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.episodes import is_held_out, next_remaining_budget, select_episodes
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.calibration import Calibration, conformal_quantile
from safe_diffusion_agent.methods.trebi.fit import fit, underestimated_values
from safe_diffusion_agent.methods.trebi.plan import Margin
from safe_diffusion_agent.methods.trebi.windows import Windows

HANGING = [-1.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def calibrated_agent(tiny_episodes):
    config = METHODS["trebi"].config("quick", num_steps=40, batch_size=64, calibration_share=0.25)
    return fit(tiny_episodes, config, seed=0, device="cpu")[0]


def test_conformal_quantile_holds_its_promise():
    """Over many draws, a new score exceeds the quantile in at most a share `risk` of them."""
    rng = torch.Generator().manual_seed(0)
    for risk in (0.05, 0.2):
        scores = torch.randn(4_000, 60, generator=rng).exp()
        new = torch.randn(4_000, generator=rng).exp()
        limits = torch.tensor([conformal_quantile(row, risk) for row in scores])
        share = float((new > limits).float().mean())
        assert risk - 2 / 61 - 0.015 < share <= risk + 0.015
    with pytest.raises(ValueError, match="at least 19"):
        conformal_quantile(torch.zeros(18), 0.05)


def test_networks_know_nothing_of_held_out_episodes(tiny_episodes, calibrated_agent):
    """Other held-out episodes: the same networks, other scores."""
    changed = select_episodes(tiny_episodes, np.ones(12, np.bool_))
    held_out = np.repeat(is_held_out(12, 0.25), changed.lengths)
    changed.costs[held_out] += 1.0
    agent = fit(changed, calibrated_agent.config, seed=0, device="cpu")[0]
    for name, tensor in calibrated_agent.networks.state_dict().items():
        torch.testing.assert_close(agent.networks.state_dict()[name], tensor, rtol=0, atol=0)
    more = agent.calibration.underestimate - calibrated_agent.calibration.underestimate
    steps_left = torch.arange(200, 0, -1).repeat(3).to(torch.float32)
    torch.testing.assert_close(more, steps_left, rtol=1e-4, atol=1e-3)


def test_scores_are_cost_less_what_the_planner_expects(tiny_episodes, calibrated_agent):
    agent = calibrated_agent
    unseen = select_episodes(tiny_episodes, is_held_out(12, 0.25))
    windows = Windows(
        unseen, agent.normalizer, 32, discount=1.0, cost_discount=1.0, coverage="all"
    )  # fmt: skip
    torch.testing.assert_close(
        underestimated_values(agent.planner.judge, windows), agent.calibration.underestimate
    )
    batch = windows.get(torch.tensor([0]))
    time_to_go, step = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
    predicted = agent.networks.cost(batch.trajectories, step, time_to_go)[0, -1]  # 0.9-quantile
    expected = unseen.episode_costs[0] - float(predicted)
    assert float(agent.calibration.underestimate[0]) == pytest.approx(expected, rel=1e-4)


def test_any_risk_can_be_asked_for(calibrated_agent, tmp_path):
    calibrated_agent.save(tmp_path)
    scores = calibrated_agent.calibration.underestimate.sort().values
    assert len(scores) == 600 and calibrated_agent.calibration.overspend is None
    for risk, rank in ((0.05, 571), (0.2, 481)):  # ceil(601 (1 - risk))
        agent = TrebiAgent.load(tmp_path, risk=risk, budget_margin=0.0)
        assert agent.margin == pytest.approx(max(0.0, float(scores[rank - 1])))
    agent = TrebiAgent.load(tmp_path, risk=None)
    assert agent.margin == pytest.approx(3.0), "the preset's own"
    assert agent.margin_for(0.05) == pytest.approx(max(0.0, float(scores[570])))
    assert agent.margin_for(1.2) == 0.0
    assert agent.margin_for(0.001) == agent.margin_for(-0.1) == math.inf
    plan = agent.plan(HANGING, 10.0 - agent.margin_for(-0.1), 100, return_candidates=True)
    assert plan.predicted_cost[0] == plan.candidates.predicted_cost.min() and not plan.feasible[0]


@pytest.mark.parametrize("cost_discount", [1.0, 0.99, 0.9])
@pytest.mark.parametrize("error_at", [10, 100, 300])
def test_of_the_episodes_it_was_taken_from_a_margin_lets_few_overspend(cost_discount, error_at):
    """An agent spends nine tenths of what it may at each step, and is wrong once about a cost."""
    num_steps, num, risk, budget = 400, 200, 0.05, 30.0
    generator = torch.Generator().manual_seed(0)
    error = 25.0 * torch.rand(num, generator=generator, dtype=torch.float64)  # in first-step units

    def overspend(margin):
        left, spent = torch.full_like(error, budget), torch.zeros_like(error)
        for t in range(num_steps):
            decay = cost_discount ** torch.full_like(error, t)
            cost = (left - margin.of_episode / decay - margin.of_step).clamp_min(0.0) * 0.9
            cost += (t == error_at) * error / decay
            spent, left = spent + decay * cost, next_remaining_budget(left, cost, cost_discount)
        return spent - budget

    scores = overspend(Margin(0.0))
    assert (scores > 0).float().mean() > 2 * risk
    margin = Calibration(torch.full((num,), -1.0), scores).margin(risk)
    assert margin.of_step == 0.0 < margin.of_episode
    assert float((overspend(margin) > 1e-9).float().mean()) <= risk


def test_what_is_held_back_grows_with_the_remaining_budget(tiny_episodes):
    settings = {"num_steps": 10, "batch_size": 16, "cost_discount": 0.99, "budget_margin": 0.05}
    config = METHODS["trebi"].config("quick", **settings, calibration_share=0.25)
    agent = fit(tiny_episodes, config, seed=0, device="cpu")[0]
    plan = agent.plan([HANGING] * 3, 10.0, [200, 100, 1])
    growth = np.array([1.0, 0.99**-100, 0.99**-199])
    np.testing.assert_allclose(plan.margin, 3.0 * growth, rtol=1e-3)
    assert agent.margin == pytest.approx(3.0)
    of_scores = agent.margin_for(0.2)
    np.testing.assert_allclose(agent.margin_for(0.2, [200, 1]), of_scores, rtol=1e-5)
    agent.calibration = Calibration(torch.zeros(99), torch.arange(99.0))
    np.testing.assert_allclose(
        agent.margin_for(0.2, [200, 100, 1]), agent.margin_for(0.2) * growth, rtol=1e-3
    )
    agent.calibration = Calibration(torch.zeros(99), broken_promises=torch.arange(99.0))
    to_go = np.array([sum(0.99**t for t in range(steps)) for steps in (200, 100, 20)])
    np.testing.assert_allclose(  # a tenth of the episode at least
        agent.margin_for(0.2, [200, 100, 1]), agent.margin_for(0.2) * to_go / to_go[0], rtol=1e-4
    )


def test_agents_without_calibration_say_so(tiny_episodes, tmp_path):
    settings = {"num_steps": 10, "batch_size": 16, "calibration_share": 0.0}
    agent = fit(tiny_episodes, METHODS["trebi"].config("quick", **settings))[0]
    agent.save(tmp_path)
    with pytest.raises(ValueError, match="calibration_share=0.1"):
        TrebiAgent.load(tmp_path, risk=0.05)
    with pytest.raises(ValueError, match="not calibrated"):
        agent.margin_for(0.05)
    config = METHODS["trebi"].config("quick", **settings, risk=0.05)
    with pytest.raises(ValueError, match="needs 19 steps of held-out data; there are 0"):
        fit(tiny_episodes, config, progress=pytest.fail)
