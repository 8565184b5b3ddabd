"""An evaluation that is interrupted and started again is the uninterrupted one."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from safe_diffusion_agent.evaluation.action_log import ActionLog
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig, evaluate_agent
from safe_diffusion_agent.experiments import stages as pipeline

TASK = "safe/Pendulum-v0"
NUM_STEPS = 200


class Chance:
    """An agent whose plans are three random actions, moved by the observation and the budget."""

    method, cost_discount, budget_scale = "chance", None, 1.0
    task = SimpleNamespace(max_budget=60.0, cost_discount=1.0)

    def __init__(self, stop_at=None, own_agents=False):
        self.num_plans, self.stop_at = SimpleNamespace(value=0), stop_at
        self.own_agents = own_agents

    def for_budget(self, budget):
        if not self.own_agents:
            return self
        other = Chance(self.stop_at)
        other.num_plans = self.num_plans  # counted together
        return other

    def new_generator(self, seed):
        return torch.Generator().manual_seed(seed)

    def plan(self, obs, remaining_budget, remaining_steps, *, generator):
        if self.num_plans.value == self.stop_at:
            raise KeyboardInterrupt
        self.num_plans.value += 1
        noise = torch.randn(len(obs), 3, 1, generator=generator).numpy()
        moved = noise + obs[:, None, 2:] + 0.01 * np.asarray(remaining_budget)[:, None, None]
        return SimpleNamespace(actions=np.tanh(moved).astype(np.float32))

    def act(self, obs, remaining_budget, remaining_steps, *, generator):
        return self.plan(obs, remaining_budget, remaining_steps, generator=generator).actions[:, 0]


def evaluate(config, path=None, identity=None, save_seconds=0.0, **of_agent):
    """The results, None if it was interrupted before plan `stop_at`; and the number of plans."""
    log = None if path is None else ActionLog(path, {"name": identity}, save_seconds)
    agent = Chance(**of_agent)
    try:
        return evaluate_agent(agent, TASK, config, log=log), agent.num_plans.value
    except KeyboardInterrupt:
        return None, agent.num_plans.value


@pytest.mark.parametrize("stop_at", [1, 100, 199])
def test_it_goes_on_with_the_step_at_which_it_was_stopped(stop_at, tmp_path):
    config = EvaluationConfig(ratios=(0.2, 1.0), num_episodes=2, seed=3)
    whole, _ = evaluate(config)
    log = tmp_path / "log"
    assert evaluate(config, log, stop_at=stop_at) == (None, stop_at)
    assert evaluate(config, log) == (whole, NUM_STEPS - stop_at)
    assert evaluate(config, log) == (whole, 0)


def test_it_may_be_stopped_again_and_again(tmp_path):
    config = EvaluationConfig(ratios=(1.0,), num_episodes=2)
    for _ in range(3):
        evaluate(config, tmp_path / "log", stop_at=60)
    again = evaluate(config, tmp_path / "log")
    assert again == (evaluate(config)[0], NUM_STEPS - 180)


def test_plans_that_last_for_several_steps_are_saved_between_them(tmp_path):
    config = EvaluationConfig(ratios=(1.0,), num_episodes=2, control_interval=3)
    whole, num_plans = evaluate(config)
    assert num_plans == 67  # 200 / 3

    def stop_within_a_plan(step, total):
        if step == 62:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log = ActionLog(tmp_path / "log", {"name": None}, save_seconds=0.0)
        evaluate_agent(Chance(), TASK, config, log=log, progress=stop_within_a_plan)
    assert evaluate(config, tmp_path / "log") == (whole, 67 - 20)


@pytest.mark.parametrize("stop_at", [150, 250])
def test_agents_that_have_one_for_each_budget(stop_at, tmp_path):
    config = EvaluationConfig(ratios=(0.2, 1.0), num_episodes=2)
    whole, _ = evaluate(config, own_agents=True)
    log = tmp_path / "log"
    assert evaluate(config, log, own_agents=True, stop_at=stop_at) == (None, stop_at)
    assert evaluate(config, log, own_agents=True) == (whole, 2 * NUM_STEPS - stop_at)


def test_it_saves_as_often_as_it_is_told(tmp_path):
    config = EvaluationConfig(ratios=(1.0,), num_episodes=1)
    evaluate(config, tmp_path / "log", stop_at=50, save_seconds=1e9)
    assert not (tmp_path / "log").exists()


def test_another_or_a_damaged_log_is_not_used(tmp_path):
    config = EvaluationConfig(ratios=(1.0,), num_episodes=1)
    evaluate(config, tmp_path / "log", stop_at=50)
    assert evaluate(config, tmp_path / "log", stop_at=60, identity="other")[1] == 60
    content = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(content[:-3])
    assert evaluate(config, tmp_path / "log", identity="other")[1] == NUM_STEPS


def test_evaluate_continues_and_cleans_up(tiny_agent, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "ActionLog", functools.partial(ActionLog, save_seconds=0.0))
    config = EvaluationConfig(ratios=(0.5, 1.0), num_episodes=1)
    whole = pipeline.evaluate(tiny_agent, tmp_path / "whole", config=config)

    def interrupt(step, total):
        if step == 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.evaluate(tiny_agent, tmp_path / "again", config=config, progress=interrupt)
    assert [file.name for file in (tmp_path / "again").iterdir()] == ["actions.safetensors"]
    again = pipeline.evaluate(tiny_agent, tmp_path / "again", config=config)
    assert again["budgets"] == whole["budgets"]
    assert not (tmp_path / "again" / "actions.safetensors").exists()
