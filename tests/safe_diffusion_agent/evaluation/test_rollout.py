from types import SimpleNamespace

import numpy as np
import pytest

from safe_diffusion_agent.evaluation.protocol import (
    EvaluationConfig,
    evaluate_agent,
    evaluate_policy,
)
from safe_diffusion_agent.evaluation.rollout import OpenLoop


def test_plans_are_carried_out_and_then_made_again():
    """Plan number p is (10 p, 10 p + 1, 10 p + 2) for both episodes."""
    calls = []

    def plan(obs, budget, steps):
        calls.append(budget)
        number = 10.0 * len(calls)
        return SimpleNamespace(actions=number + np.tile(np.arange(3.0), (2, 1))[..., None])

    policy = OpenLoop(plan, 2)
    taken = [policy(np.zeros((2, 1)), budget, None)[0, 0] for budget in range(5)]
    assert taken == [10.0, 11.0, 20.0, 21.0, 30.0] and calls == [0, 2, 4]
    with pytest.raises(ValueError, match="at most the horizon of the plans, 3. Received 4"):
        OpenLoop(plan, 4)(np.zeros((2, 1)), 1.0, None)


def test_an_interval_of_one_is_acting(tiny_agent):
    config = EvaluationConfig(ratios=(0.5,), num_episodes=2)
    before = (tiny_agent.seed, tiny_agent.generator.get_state().tolist())
    acted = evaluate_agent(tiny_agent, "safe/Pendulum-v0", config)
    assert (tiny_agent.seed, tiny_agent.generator.get_state().tolist()) == before
    generator = tiny_agent.new_generator(0)
    policy = OpenLoop(
        lambda obs, budget, steps: tiny_agent.plan(obs, budget, steps, generator=generator), 1
    )
    planned = evaluate_policy(policy, "safe/Pendulum-v0", config)
    assert [e.episode_return for e in acted] == [e.episode_return for e in planned]
