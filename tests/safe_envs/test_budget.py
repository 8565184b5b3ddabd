import math

import gymnasium as gym
import numpy as np
import pytest
from costly_env import CostlyEnv
from gymnasium.vector import AutoresetMode
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv

from safe_envs import BudgetObservation, VectorBudgetObservation, next_remaining_budget

costs_lists = st.lists(st.floats(0.0, 100.0, width=32), min_size=1, max_size=30)
discounts = st.sampled_from([1.0, 0.99, 0.9])


@given(st.floats(0.0, 1e4), costs_lists, discounts)
def test_recursion_is_the_closed_form_of_the_paper(budget, costs, discount):
    """Sec. 4.2: z_t = (b - sum_k gamma^k c_k) / gamma^t, and z_{t+1} = (z_t - c_t) / gamma."""
    z = budget
    for cost in costs:
        z = next_remaining_budget(z, cost, discount)
    spent = math.fsum(discount**k * cost for k, cost in enumerate(costs))
    expected = (budget - spent) / discount ** len(costs)
    scale = (budget + spent) / discount ** len(costs)
    assert float(z) == pytest.approx(expected, abs=1e-9 * max(scale, 1.0))


@given(st.floats(0.0, 1e4), costs_lists, discounts)
def test_wrapper_is_the_recursion(budget, costs, discount):
    env = BudgetObservation(CostlyEnv(length=100), budget, cost_discount=discount)
    obs, info = env.reset(seed=0)
    z = float(budget)
    assert info["remaining_budget"] == z
    for cost in costs:
        obs, *_, info = env.step(np.array([cost], np.float32))
        z = (z - float(np.float32(cost))) / discount
        assert info["remaining_budget"] == z
        assert obs["remaining_budget"] == np.float32(z)


def test_budget_of_one_episode_by_options():
    env = BudgetObservation(CostlyEnv(), budget=30.0)
    assert env.reset(options={"budget": 12.5})[1]["remaining_budget"] == 12.5
    assert env.reset()[1]["remaining_budget"] == 30.0


def test_budget_set_mid_episode_counts_from_the_next_step():
    env = BudgetObservation(CostlyEnv(), budget=30.0)
    env.reset()
    env.step(np.array([1.0], np.float32))
    env.set_remaining_budget(5.0)
    assert env.remaining_budget == 5.0
    *_, info = env.step(np.array([2.0], np.float32))
    assert info["remaining_budget"] == 3.0


def test_infinite_budget_stays_infinite():
    env = BudgetObservation(CostlyEnv(), budget=math.inf)
    obs, _ = env.reset()
    assert np.isposinf(obs["remaining_budget"]).all()
    assert env.observation_space.contains(obs)
    *_, info = env.step(np.array([2.0], np.float32))
    assert info["remaining_budget"] == math.inf


def test_budgets_are_drawn_from_a_range_or_a_function_and_seeded():
    env = BudgetObservation(CostlyEnv(), budget=(5.0, 8.0))
    drawn = [env.reset(seed=seed)[1]["remaining_budget"] for seed in range(50)]
    assert min(drawn) >= 5.0 and max(drawn) <= 8.0 and np.ptp(drawn) > 2.0
    assert drawn == [env.reset(seed=seed)[1]["remaining_budget"] for seed in range(50)]
    by_function = BudgetObservation(CostlyEnv(), budget=lambda rng: rng.integers(1, 3) * 10.0)
    assert {by_function.reset(seed=s)[1]["remaining_budget"] for s in range(20)} == {10.0, 20.0}


def test_drawing_a_budget_does_not_change_the_episode():
    with_draw = BudgetObservation(gym.make("safe/Pendulum-v0"), budget=(5.0, 8.0))
    without = gym.make("safe/Pendulum-v0")
    np.testing.assert_array_equal(
        with_draw.reset(seed=7)[0]["observation"], without.reset(seed=7)[0]
    )


def test_remaining_steps_count_down_to_the_time_limit():
    env = BudgetObservation(gym.make("safe/Pendulum-v0"), budget=9.0, remaining_steps=True)
    obs, info = env.reset(seed=0)
    counted = []
    truncated = False
    while not truncated:
        assert obs["remaining_steps"] == info["remaining_steps"]
        counted.append(info["remaining_steps"])
        obs, _, _, truncated, info = env.step(env.action_space.sample())
    assert counted == list(range(200, 0, -1))


def test_flat_observation_ends_with_the_budget():
    env = BudgetObservation(CostlyEnv(), budget=9.0, flat=True)
    obs, _ = env.reset()
    np.testing.assert_array_equal(obs, np.array([0.0, 0.0, 9.0], np.float32))
    assert env.observation_space.contains(obs)


@pytest.mark.parametrize("budget", [float("nan"), -1.0, (3.0, -1.0)])
def test_impossible_budgets_are_refused_at_construction(budget):
    with pytest.raises(ValueError, match="A budget should be zero or more"):
        BudgetObservation(CostlyEnv(), budget)
    with pytest.raises(ValueError, match="A budget should be zero or more"):
        VectorBudgetObservation(gym.vector.SyncVectorEnv([CostlyEnv]), budget)


def test_other_misuse_is_refused_with_what_to_do():
    with pytest.raises(TypeError, match="A budget should be a number"):
        BudgetObservation(CostlyEnv(), "much")
    env = BudgetObservation(CostlyEnv())
    with pytest.raises(ValueError, match="This episode has no budget"):
        env.reset()
    with pytest.raises(gym.error.ResetNeeded):
        env.set_remaining_budget(3.0)
    env.reset(options={"budget": 1.0})
    with pytest.raises(ValueError, match="zero or more"):
        env.set_remaining_budget(float("nan"))
    assert env.remaining_budget == 1.0
    no_cost = BudgetObservation(gym.make("Pendulum-v1"), budget=1.0)
    no_cost.reset(seed=0)
    with pytest.raises(ValueError, match="CostSignal"):
        no_cost.step(no_cost.action_space.sample())
    with pytest.raises(ValueError, match="cost_discount"):
        BudgetObservation(CostlyEnv(), 1.0, cost_discount=0.0)
    with pytest.raises(TypeError, match="one-dimensional Box"):
        BudgetObservation(BudgetObservation(CostlyEnv(), 1.0), 1.0, flat=True)
    with pytest.raises(ValueError, match="time limit"):
        BudgetObservation(CostlyEnv(), 1.0, remaining_steps=True)


def test_budget_can_be_turned_inside_stable_baselines_vec_env():
    """SB3 drops reset options when it resets by itself; the setter reaches every environment."""
    envs = DummyVecEnv([lambda: BudgetObservation(CostlyEnv(length=2), budget=9.0)] * 2)
    envs.reset()
    envs.env_method("set_remaining_budget", 4.0, indices=[1])
    obs, *_ = envs.step(np.ones((2, 1), np.float32))
    np.testing.assert_array_equal(obs["remaining_budget"][:, 0], [8.0, 3.0])
    obs, _, dones, _ = envs.step(np.ones((2, 1), np.float32))
    assert dones.all()
    np.testing.assert_array_equal(obs["remaining_budget"][:, 0], [9.0, 9.0])


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("terminates", [False, True])
def test_vector_twin_equals_single_wrappers_under_every_autoreset_mode(mode, terminates):
    """Drives each environment also by hand, with the single wrapper, and compares every budget."""
    lengths, budgets = [3, 5, 4], np.array([20.0, 30.0, 40.0])
    envs = VectorBudgetObservation(
        gym.vector.SyncVectorEnv(
            [lambda length=length: CostlyEnv(length, terminates) for length in lengths],
            autoreset_mode=mode,
        ),
        budgets,
        cost_discount=0.9,
    )
    singles = [
        BudgetObservation(CostlyEnv(length, terminates), budget, cost_discount=0.9)
        for length, budget in zip(lengths, budgets, strict=True)
    ]
    obs, info = envs.reset(seed=0)
    expected = np.array([single.reset()[1]["remaining_budget"] for single in singles])
    np.testing.assert_allclose(info["remaining_budget"], expected)
    rng, done = np.random.default_rng(0), np.zeros(3, bool)
    for _ in range(17):
        actions = rng.uniform(0.0, 3.0, (3, 1)).astype(np.float32)
        if mode == AutoresetMode.DISABLED and done.any():
            obs, info = envs.reset(options={"reset_mask": done})
            for index in np.flatnonzero(done):
                singles[index].reset()
        was_done = done
        obs, _, terminated, truncated, info = envs.step(actions)
        done = terminated | truncated
        for index, single in enumerate(singles):
            if mode == AutoresetMode.NEXT_STEP and was_done[index]:
                _, single_info = single.reset()  # this step only resets
            else:
                final_obs, _, over, cut, single_info = single.step(actions[index])
                if mode == AutoresetMode.SAME_STEP and (over or cut):
                    final = single_info["remaining_budget"]
                    assert info["final_info"]["remaining_budget"][index] == pytest.approx(final)
                    shown = info["final_obs"][index]
                    np.testing.assert_array_equal(shown["observation"], final_obs["observation"])
                    np.testing.assert_allclose(
                        shown["remaining_budget"], final_obs["remaining_budget"]
                    )
                    _, single_info = single.reset()
            expected[index] = single_info["remaining_budget"]
        np.testing.assert_allclose(info["remaining_budget"], expected)
        np.testing.assert_allclose(obs["remaining_budget"][:, 0], expected, rtol=1e-6)
        assert envs.observation_space.contains(obs)


def test_vector_budgets_can_be_set_for_some_environments():
    envs = VectorBudgetObservation(gym.vector.SyncVectorEnv([CostlyEnv] * 3), budget=9.0)
    envs.reset(options={"budget": [1.0, 2.0, 3.0]})
    np.testing.assert_array_equal(envs.remaining_budget, [1.0, 2.0, 3.0])
    envs.set_remaining_budget(7.0, mask=[False, True, False])
    np.testing.assert_array_equal(envs.remaining_budget, [1.0, 7.0, 3.0])
    *_, info = envs.step(np.ones((3, 1), np.float32))
    np.testing.assert_array_equal(info["remaining_budget"], [0.0, 6.0, 2.0])
    with pytest.raises(ValueError, match="one per environment"):
        envs.reset(options={"budget": [1.0, 2.0]})
