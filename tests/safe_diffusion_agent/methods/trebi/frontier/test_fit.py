import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.recording import EpisodeRecorder
from safe_diffusion_agent.data.writing import write_dataset
from safe_diffusion_agent.experiments.inspection import facts
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.methods.trebi.calibration import Calibration
from safe_diffusion_agent.methods.trebi.fit import fit
from safe_diffusion_agent.methods.trebi.frontier import fit as frontier_fit
from safe_diffusion_agent.methods.trebi.frontier.branches import RolloutSource
from safe_diffusion_agent.settings import change

HANGING = np.array([-1.0, 0.0, 0.0], np.float32)


def test_risk_sets_the_margin(frontier_agent, tmp_path):
    calibration = frontier_agent.calibration
    overspend = calibration.overspend.sort().values
    underestimate = calibration.underestimate.sort().values
    assert len(overspend) == 20 and len(underestimate) >= 20  # of two held-out episodes
    frontier_agent.save(tmp_path)
    for risk, overspend_rank in ((0.1, 20), (0.5, 16)):  # ceil(21 (1 - risk / 2))
        rank = math.ceil((len(underestimate) + 1) * (1 - risk / 2))
        expected = max(0, overspend[overspend_rank - 1]) + max(0, underestimate[rank - 1])
        agent = TrebiAgent.load(tmp_path, risk=risk)
        assert agent.margin == pytest.approx(float(expected))
    assert TrebiAgent.load(tmp_path, risk=None).margin == 0.0
    with pytest.raises(ValueError, match="larger risk"):
        TrebiAgent.load(tmp_path, risk=0.001)
    again = TrebiAgent.load(tmp_path)
    np.testing.assert_array_equal(
        again.act(HANGING, 10.0, 100), TrebiAgent.load(tmp_path).act(HANGING, 10.0, 100)
    )


def test_models_that_are_not_trusted_imagine_nothing(tiny_episodes, quickly, monkeypatch):
    monkeypatch.setattr(RolloutSource, "branch", pytest.fail)
    poor = quickly | {"model_tolerance": 1e-9, "min_branch_steps": 2, "critic_steps": 3}
    agent = fit(tiny_episodes, METHODS["trebi"].config("frontier", **poor), seed=0)[0]
    assert int(agent.networks.dynamics.trusted_steps) == 1
    assert agent.calibration.overspend is None
    scores = agent.calibration.underestimate, agent.calibration.broken_promises
    assert min(map(len, scores)) > 100
    assert "imitation of the recorded" in facts(agent)["model rollouts"]
    assert agent.act(HANGING, 10.0, 100).shape == (1,)


def test_too_small_a_risk_is_refused_before_the_training(tiny_episodes, quickly):
    config = METHODS["trebi"].config("frontier", "safe/Pendulum-v0", **(quickly | {"risk": 0.01}))
    with pytest.raises(ValueError, match="needs 199 calibration_episodes.*there are 20 and 50"):
        fit(tiny_episodes, config, progress=pytest.fail)


def test_model_errors_travel_with_the_agent(frontier_agent, tmp_path):
    errors = frontier_agent.about["model_errors"]
    assert set(errors) == {"observation", "return", "cost"}
    assert all(len(values) == 8 for values in errors.values())
    frontier_agent.save(tmp_path)
    assert TrebiAgent.load(tmp_path).about["model_errors"] == errors


@pytest.mark.parametrize("stop_at", [20, 60, 85])  # denoiser, models, critic
def test_interrupted_training_ends_in_the_same_agent(tiny_episodes, quickly, tmp_path, stop_at):
    quickly = quickly | {"calibration_episodes": 0, "risk": None}
    config = METHODS["trebi"].config("frontier", "safe/Pendulum-v0", **quickly)
    whole, _ = fit(tiny_episodes, config, seed=3)

    def stop(done, total, **values):
        if done == stop_at:
            raise KeyboardInterrupt

    path = tmp_path / "training.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_episodes, config, seed=3, state_path=path, save_interval=10, progress=stop)
    seen = []
    continued, _ = fit(
        tiny_episodes, config, seed=3, state_path=path, save_interval=10,
        progress=lambda done, total, **values: seen.append(done),
    )  # fmt: skip
    assert seen[0] > stop_at - 41 and seen[-1] == 100
    for name, tensor in whole.networks.state_dict().items():
        torch.testing.assert_close(continued.networks.state_dict()[name], tensor, msg=name)


def test_terminations_and_discounted_budgets(datasets_root, quickly):
    """Hopper falls, and its budgets are discounted: both are part of the models and the critic."""
    env = EpisodeRecorder(gym.make("safe/Hopper-v0"), 0)
    env.action_space.seed(0)
    for _ in range(40):
        env.reset()
        done = False
        while not done:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            done = terminated or truncated
    env.close()
    metadata = {"cost_discount": 0.99, "max_episode_steps": 1000, "max_budget": 30.0}
    write_dataset("tests/hopper/random-v0", "safe/Hopper-v0", env.finished, metadata)
    quickly = quickly | {"model_steps": 300, "calibration_episodes": 0, "risk": None}
    config = METHODS["trebi"].config("frontier", "safe/Hopper-v0", **quickly)
    agent, _ = fit(load_episodes("tests/hopper/random-v0"), config, device="cpu")
    dynamics, critic = agent.networks.dynamics, agent.networks.critic
    assert critic.discount == 1.0 and critic.cost_discount == agent.cost_discount == 0.99
    assert dynamics.terminates == 1
    episode = env.finished[0]
    ends = torch.tensor(
        episode["observations"][[0, -2]], dtype=torch.float32
    )  # the first step, and the last one
    actions = torch.tensor(episode["actions"][[0, -1]], dtype=torch.float32)
    survival = dynamics.step(
        agent.normalizer.observations(ends),
        agent.normalizer.actions(actions),
    ).survival
    assert survival[0] > 0.9 > survival[1]
    plan = agent.plan(episode["observations"][0], 20.0, 1000)
    assert np.isfinite(plan.predicted_return).all() and plan.actions.shape == (1, 8, 3)


@pytest.mark.parametrize("margins", [(40.0, 30.0), (40.0, 50.0), (70.0, 65.0), (20.0, 0.0)])
def test_a_critic_that_needs_too_large_a_margin_is_trained_without_branches(
    tiny_episodes, quickly, monkeypatch, margins
):
    """Then it is the one that a training without branches gives, if that needs a smaller one."""
    by_branches = METHODS["trebi"].config("frontier", "safe/Pendulum-v0", **quickly)
    calibrations = [Calibration(torch.zeros(200), torch.full((20,), margin)) for margin in margins]
    asked = iter(calibrations)
    done = []
    monkeypatch.setattr(frontier_fit, "calibrate", lambda *_, **__: next(asked))
    agent, _ = fit(tiny_episodes, by_branches, progress=lambda *steps, **_: done.append(steps))
    assert done[-1][0] <= done[-1][1] and sorted(done) == done
    tries, kept = (1, 0) if margins[0] < 30 else (2, int(margins == (40.0, 30.0)))
    assert len(list(asked)) == 2 - tries
    assert agent.calibration is calibrations[kept] and agent.about["branches"] == (not kept)
    alike = change(by_branches, {"branch_share": 0.0}) if kept else by_branches
    monkeypatch.setattr(frontier_fit, "calibrate", lambda *_, **__: calibrations[0])
    expected = fit(tiny_episodes, change(alike, {"max_margin": 1.0}))[0]
    for tensor, other in zip(
        agent.networks.critic.parameters(), expected.networks.critic.parameters(), strict=True
    ):
        torch.testing.assert_close(tensor, other)
