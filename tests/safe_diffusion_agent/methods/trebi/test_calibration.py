import math

import numpy as np
import pytest
import torch

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.episodes import is_held_out, select_episodes
from safe_diffusion_agent.methods.trebi.calibration import underestimated_values
from safe_diffusion_agent.methods.trebi.fit import fit
from safe_diffusion_agent.methods.trebi.presets import preset_config
from safe_diffusion_agent.methods.trebi.windows import Windows

HANGING = [-1.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def calibrated_agent(tiny_episodes):
    config = preset_config("quick", num_steps=40, batch_size=64, calibration_share=0.25)
    return fit(tiny_episodes, config, seed=0, device="cpu")[0]


def test_every_few_episodes_are_held_out():
    assert np.flatnonzero(is_held_out(12, 0.25)).tolist() == [3, 7, 11]
    assert not is_held_out(12, 0.0).any() and is_held_out(12, 1.0).sum() == 6


def test_episodes_are_selected_whole(tiny_episodes):
    chosen = is_held_out(12, 0.25)
    part = select_episodes(tiny_episodes, chosen)
    assert part.lengths.tolist() == [200] * 3 and len(part.observations) == 3 * 201
    np.testing.assert_allclose(part.episode_costs, tiny_episodes.episode_costs[chosen])
    rest = select_episodes(tiny_episodes, ~chosen)
    np.testing.assert_array_equal(rest.actions[:200], tiny_episodes.actions[:200])
    np.testing.assert_array_equal(rest.observations[603:804], tiny_episodes.observations[804:1005])


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
        underestimated_values(agent.planner, windows), agent.calibration.underestimate
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


def test_agents_without_calibration_say_so(tiny_episodes, tmp_path):
    settings = {"num_steps": 10, "batch_size": 16, "calibration_share": 0.0}
    agent = fit(tiny_episodes, preset_config("quick", **settings))[0]
    agent.save(tmp_path)
    with pytest.raises(ValueError, match="calibration_share=0.1"):
        TrebiAgent.load(tmp_path, risk=0.05)
    with pytest.raises(ValueError, match="not calibrated"):
        agent.margin_for(0.05)
    config = preset_config("quick", **settings, risk=0.05)
    with pytest.raises(ValueError, match="needs 19 steps of held-out data; there are 0"):
        fit(tiny_episodes, config, progress=pytest.fail)
