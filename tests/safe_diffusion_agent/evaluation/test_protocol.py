import copy
import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from safe_diffusion_agent.evaluation.protocol import (
    EpisodeResult,
    EvaluationConfig,
    evaluate_agent,
    evaluate_policy,
    summarize,
)
from safe_diffusion_agent.evaluation.rollout import rollout, start_seed
from safe_envs import BudgetObservation, CostSignal


def swinging(obs, remaining_budget, remaining_steps):
    """Pumps energy in while there is budget, then brakes: its cost depends on the budget."""
    sign = np.where(np.asarray(remaining_budget) > 0, 1.0, -1.0)
    return (2.0 * sign * np.sign(obs[:, 2]))[:, None].astype(np.float32)


def test_lockstep_episodes_are_the_single_ones():
    budgets, seeds = [3.0, 8.0, math.inf], [11, 12, 13]
    run = rollout(swinging, "safe/Pendulum-v0", budgets, seeds)
    assert run.costs.shape == (200, 3)
    for index, (budget, seed) in enumerate(zip(budgets, seeds, strict=True)):
        env = BudgetObservation(gym.make("safe/Pendulum-v0"), budget)
        obs, info = env.reset(seed=seed)
        for step in range(200):
            assert run.remaining_budgets[step, index] == pytest.approx(info["remaining_budget"])
            action = swinging(obs["observation"][None], info["remaining_budget"], None)[0]
            obs, reward, _, truncated, info = env.step(action)
            assert run.rewards[step, index] == pytest.approx(reward)
            assert run.costs[step, index] == pytest.approx(info["cost"])
        assert truncated


def test_policy_is_given_the_steps_that_are_left():
    seen = []

    def policy(obs, remaining_budget, remaining_steps):
        seen.append(remaining_steps.copy())
        return np.zeros((len(obs), 1), np.float32)

    rollout(policy, "safe/Pendulum-v0", [1.0, 2.0], [0, 1])
    np.testing.assert_array_equal(seen, np.repeat(np.arange(200, 0, -1)[:, None], 2, axis=1))


def test_budget_changes_are_set_before_their_step():
    run = rollout(
        swinging, "safe/Pendulum-v0", [50.0, 60.0], [0, 1], budget_changes={40: 8.0, 90: [1.0, 2.0]}
    )
    assert run.remaining_budgets[40].tolist() == [8.0, 8.0]
    assert run.remaining_budgets[90].tolist() == [1.0, 2.0]
    np.testing.assert_allclose(
        run.remaining_budgets[41:90], 8.0 - np.cumsum(run.costs[40:89], axis=0)
    )


def test_evaluation_judges_by_the_budget_and_starts_alike_under_every_budget():
    config = EvaluationConfig(ratios=(0.1, 0.5), num_episodes=3, seed=4)
    results = evaluate_policy(swinging, "safe/Pendulum-v0", config)
    assert [(r.ratio, r.episode) for r in results] == [(x, k) for x in (0.1, 0.5) for k in range(3)]
    for result in results:
        assert result.budget == pytest.approx(60.0 * result.ratio)
        assert result.normalized_cost == pytest.approx(result.cost / result.budget)
        assert result.over_budget == (result.cost > result.budget + 1e-9 * result.budget)
        assert result.num_steps == 200
    assert any(result.over_budget for result in results)
    again = evaluate_policy(swinging, "safe/Pendulum-v0", config)
    assert again == results
    seeds = {start_seed(seed, episode) for seed in range(5) for episode in range(20)}
    assert len(seeds) == 100


def test_budget_scale_changes_what_the_policy_is_given_and_not_the_judgement():
    given = []

    def policy(obs, remaining_budget, remaining_steps):
        given.append(np.array(remaining_budget))
        return np.zeros((len(obs), 1), np.float32)

    config = EvaluationConfig(ratios=(0.5,), num_episodes=1)
    (result,) = evaluate_policy(
        policy, "safe/Pendulum-v0", config, budget_scale=0.336, cost_discount=0.99
    )
    assert given[0][0] == pytest.approx(30.0 * 0.336)
    assert given[1][0] == pytest.approx(30.0 * 0.336 / 0.99)
    assert result.budget == 30.0


def made_up(costs, ratio=0.5):
    return [
        EpisodeResult(
            ratio=ratio, budget=10.0, episode=k, episode_return=float(k), cost=cost,
            undiscounted_cost=cost, normalized_cost=cost / 10.0, over_budget=cost > 10.0,
            num_steps=200,
        )
        for k, cost in enumerate(costs)
    ]  # fmt: skip


def test_summary_by_hand():
    (row,) = summarize(made_up([2.0, 4.0, 6.0, 8.0, 20.0]))
    assert row["normalized_cost"]["median"] == 0.6
    assert row["normalized_cost"]["mean"] == pytest.approx(0.8)
    assert row["normalized_cost"]["maximum"] == 2.0
    assert row["over_budget"]["num_episodes"] == 1
    assert row["over_budget"]["share"] == 0.2
    assert row["mean_return"] == 2.0
    rows = summarize(made_up([1.0], 0.8) + made_up([2.0, 3.0], 0.2))
    assert [(row["ratio"], row["num_episodes"]) for row in rows] == [(0.2, 2), (0.8, 1)]


class Watched(gym.Wrapper):
    """Says when it is closed."""

    num_open = 0

    def __init__(self, env):
        super().__init__(env)
        Watched.num_open += 1

    def close(self):
        Watched.num_open -= 1
        super().close()


def make_effort():
    env = gym.make("Pendulum-v1").unwrapped
    return Watched(CostSignal(env, lambda obs, action, *_: float(abs(action[0]))))


gym.register("tests/Effort-v0", make_effort, max_episode_steps=20)
gym.register("tests/Endless-v0", make_effort)
gym.register("tests/Costless-v0", lambda: Watched(gym.make("Pendulum-v1")), max_episode_steps=20)


def test_an_agent_is_judged_by_its_own_task_in_any_environment(tiny_agent):
    agent = copy.copy(tiny_agent)
    agent.task = replace(agent.task, cost_discount=0.5, max_budget=4.0)
    config = EvaluationConfig(ratios=(0.5,), num_episodes=2)
    results = evaluate_agent(agent, "tests/Effort-v0", config)
    generator, seeds = agent.new_generator(0), [start_seed(0, k) for k in range(2)]
    run = rollout(
        lambda *state: agent.act(*state, generator=generator),
        "tests/Effort-v0", [2.0, 2.0], seeds, cost_discount=0.5,
    )  # fmt: skip
    assert run.costs.sum() > 0.0
    for result, costs in zip(results, run.costs.T, strict=True):
        assert result.num_steps == 20 and result.budget == 2.0
        assert result.cost == pytest.approx(sum(0.5**t * cost for t, cost in enumerate(costs)))


@pytest.mark.parametrize(
    ("env_id", "message"), [("Endless", "no time limit"), ("Costless", r'no info\["cost"\]')]
)
def test_environments_are_closed_where_a_rollout_is_refused(env_id, message):
    Watched.num_open = 0
    with pytest.raises(ValueError, match=message):
        rollout(swinging, f"tests/{env_id}-v0", [1.0, 2.0], [0, 1])
    assert Watched.num_open == 0


@pytest.mark.parametrize(
    "arguments",
    [{"ratios": ()}, {"ratios": (0.0,)}, {"ratios": (0.5, 1.0, 0.5)}, {"num_episodes": 0},
     {"max_budget": 0.0}, {"max_budget": math.inf}],
)  # fmt: skip
def test_impossible_evaluations_are_refused(arguments):
    with pytest.raises(ValueError, match="should be"):
        EvaluationConfig(**arguments)
