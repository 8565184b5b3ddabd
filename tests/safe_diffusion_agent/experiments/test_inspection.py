import numpy as np
import pytest
from matplotlib.image import imread

from safe_diffusion_agent.experiments.inspection import (
    decision_at,
    decision_of,
    draw_decision,
    facts,
    held_back_too_much,
)
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.fit import fit
from safe_diffusion_agent.methods.trebi.plan import Margin


@pytest.fixture(scope="module")
def frontier_agent(tiny_episodes):
    settings = {
        "num_steps": 10, "model_steps": 20, "critic_steps": 10, "imitation_steps": 10,
        "num_branches": 30, "horizon": 8,
        "calibration_episodes": 0, "risk": None, "num_candidates": 3,
    }  # fmt: skip
    return fit(tiny_episodes, METHODS["trebi"].config("frontier", **settings))[0]


def test_the_curves_explain_the_choice(frontier_agent):
    """Each candidate's rating is the dual bound of the curve that is drawn, if nobody rests."""
    frontier_agent.networks.critic.imitates.fill_(0.0)
    frontier_agent.planner.judge.refresh()
    decision = decision_of(frontier_agent, [-1.0, 0.0, 0.0], 20.0, 100)
    costs, returns = decision.curves
    candidates = decision.plan.candidates
    critic = frontier_agent.networks.critic
    prices = float(critic.multiplier_unit()) * critic.multipliers.cpu().numpy()
    bounds = (returns + prices * (20.0 - costs)).min(axis=1)
    np.testing.assert_allclose(bounds, candidates.predicted_return[0], rtol=1e-3)
    np.testing.assert_allclose(costs[:, -3:].min(axis=1), candidates.predicted_cost[0], rtol=1e-3)
    assert decision.frontier[0].shape == (costs.shape[1],)


@pytest.mark.parametrize("which", ["frontier_agent", "tiny_agent"])
def test_decision_is_drawn(which, request, tmp_path):
    agent = request.getfixturevalue(which)
    decision = decision_at(agent, budget=20.0, step=2)
    assert decision.remaining_steps == 198 and decision.frame is not None
    # Every candidate starts at the tip of the rod: 1 m from the center, 2.2 m to the edge.
    height, width = decision.frame.shape[:2]
    cos, sin = decision.observation[:2]
    tip = [width / 2 - sin * height / 4.4, height / 2 - cos * height / 4.4]
    np.testing.assert_allclose(decision.paths[:, 0], [tip] * len(decision.paths), atol=0.01)
    assert decision.frame[int(tip[1]), int(tip[0])].std() > 20, "the rod is red"
    draw_decision(decision, tmp_path / "decision.png")
    assert imread(tmp_path / "decision.png").std() > 0.05


def test_unconstrained_decision_and_bad_steps(tiny_agent, tmp_path):
    draw_decision(decision_at(tiny_agent, budget=np.inf), tmp_path / "decision.png")
    with pytest.raises(ValueError, match="over after 200 steps"):
        decision_at(tiny_agent, budget=20.0, step=201)


def test_facts_tell_how_far_the_models_are_trusted(frontier_agent, tiny_agent):
    known = facts(frontier_agent)
    assert "after 8 steps" in known["model errors"] and "of 8 steps" in known["model rollouts"]
    assert "model errors" not in facts(tiny_agent)
    assert facts(tiny_agent)["margin"].startswith("3 ")


def test_a_margin_that_leaves_no_choice_is_told(tiny_agent, monkeypatch):
    assert held_back_too_much(tiny_agent) == ""
    monkeypatch.setattr(tiny_agent, "_margin", Margin(0.6 * tiny_agent.task.max_budget))
    assert held_back_too_much(tiny_agent).startswith("36 of a budget are held back, of 60")
    assert "a larger risk" in facts(tiny_agent)["margin"]
