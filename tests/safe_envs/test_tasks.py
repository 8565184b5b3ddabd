"""The contract of every registered task: a new task is tested by being in the table."""

import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from safe_envs import (
    TASKS,
    BudgetObservation,
    FromSafetyGymnasium,
    RecordEpisodeCost,
    RenderOverlay,
    SpeedLimit,
    ToSafetyGymnasium,
    VectorBudgetObservation,
    VectorRecordEpisodeCost,
    task_spec,
)

all_tasks = pytest.mark.parametrize("env_id", TASKS)


def episode(env, seed, num_steps=60):
    observations, infos, rewards = [], [], []
    obs, info = env.reset(seed=seed)
    env.action_space.seed(seed)
    observations.append(obs)
    infos.append(info)
    for _ in range(num_steps):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        observations.append(obs)
        rewards.append(reward)
        infos.append(info)
        if terminated or truncated:
            break
    return observations, rewards, infos


WRAPPED = {
    "task": gym.make,
    "physics": lambda env_id: gym.make(env_id).unwrapped,
    "budget": lambda env_id: BudgetObservation(gym.make(env_id), 5.0, remaining_steps=True),
    "flat budget": lambda env_id: BudgetObservation(gym.make(env_id), 5.0, flat=True),
    "episode cost": lambda env_id: RecordEpisodeCost(gym.make(env_id)),
    "speed limit": lambda env_id: SpeedLimit(gym.make(env_id), (1.0, 2.0), observe=True),
    "overlay": lambda env_id: RenderOverlay(gym.make(env_id, render_mode="rgb_array")),
    "six-tuple and back": lambda env_id: FromSafetyGymnasium(ToSafetyGymnasium(gym.make(env_id))),
}


@all_tasks
@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_passes_the_checkers_of_gymnasium_and_stable_baselines(env_id, wrapped):
    env = wrapped(env_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # recommendations: range of the action space
        check_env(env, skip_render_check=True)
        sb3_check_env(env)
    env.close()


@all_tasks
def test_reports_a_finite_cost_from_the_reset_on(env_id):
    _, rewards, infos = episode(gym.make(env_id), seed=0)
    assert infos[0]["cost"] == 0.0
    assert len({frozenset(info) for info in infos}) == 1, "the info should keep its keys"
    costs = np.array([info["cost"] for info in infos])
    assert np.isfinite(costs).all() and (costs >= 0).all()
    assert np.isfinite(rewards).all()


@all_tasks
def test_same_seed_same_episode_whatever_came_before(env_id):
    env = gym.make(env_id)
    first = episode(env, seed=3)
    episode(env, seed=4)
    again = episode(env, seed=3)
    fresh = episode(gym.make(env_id), seed=3)
    for other in (again, fresh):
        np.testing.assert_array_equal(first[0], other[0])
        np.testing.assert_array_equal(first[1], other[1])
    assert not np.array_equal(first[0], episode(env, seed=4)[0])


@all_tasks
def test_observations_share_no_memory(env_id):
    observations, *_ = episode(gym.make(env_id), seed=0, num_steps=3)
    assert not any(
        np.shares_memory(a, b) for a, b in zip(observations, observations[1:], strict=False)
    )


@all_tasks
def test_is_rebuilt_from_its_spec_through_json(env_id):
    env = BudgetObservation(gym.make(env_id), budget=5.0, cost_discount=0.9)
    rebuilt = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(rebuilt, BudgetObservation)
    assert rebuilt.cost_discount == 0.9
    mine, theirs = episode(env, seed=1), episode(rebuilt, seed=1)
    assert [info["remaining_budget"] for info in mine[2]] == [
        info["remaining_budget"] for info in theirs[2]
    ]


@all_tasks
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_environments_are_the_single_ones(env_id, mode):
    envs = gym.make_vec(env_id, num_envs=2, vectorization_mode=mode)
    obs, _ = envs.reset(seed=[5, 6])
    actions = [envs.action_space.sample() for _ in range(5)]
    stepped = [envs.step(action) for action in actions]
    envs.close()
    for index, seed in enumerate((5, 6)):
        single = gym.make(env_id)
        np.testing.assert_array_equal(single.reset(seed=seed)[0], obs[index])
        for action, (vector_obs, _, _, _, info) in zip(actions, stepped, strict=True):
            single_obs, _, _, _, single_info = single.step(action[index])
            np.testing.assert_array_equal(single_obs, vector_obs[index])
            assert single_info["cost"] == info["cost"][index]


@all_tasks
def test_starts_vary_and_observations_change(env_id):
    env = gym.make(env_id)
    starts = np.array([env.reset(seed=seed)[0] for seed in range(60)])
    assert (starts.std(axis=0) > 0).any()
    observations = np.array([*starts, *episode(env, seed=0)[0]])
    assert env.observation_space.contains(observations[-1])
    assert np.isfinite(observations).all()
    assert (observations.std(axis=0) > 0).mean() > 0.8  # a ray may see nothing all the time


@all_tasks
def test_whole_episode_has_the_tables_length_unless_it_falls(env_id):
    env = RecordEpisodeCost(BudgetObservation(gym.make(env_id), budget=9.0))
    env.reset(seed=0)
    env.action_space.seed(0)
    costs, terminated, truncated = [], False, False
    while not (terminated or truncated):
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        costs.append(info["cost"])
    assert terminated or len(costs) == TASKS[env_id].max_episode_steps
    assert info["episode"]["l"] == len(costs)
    assert info["episode"]["c"] == pytest.approx(sum(costs))
    assert terminated or info["remaining_steps"] == 0


@all_tasks
def test_pickles(env_id):
    """Pickled environments are built anew from their arguments, as Gymnasium's are."""
    env = BudgetObservation(gym.make(env_id), budget=5.0)
    first = episode(env, seed=2, num_steps=5)
    copied = episode(pickle.loads(pickle.dumps(env)), seed=2, num_steps=5)
    for mine, theirs in zip(first[0], copied[0], strict=True):
        np.testing.assert_equal(mine, theirs)
    assert first[1] == copied[1]


@all_tasks
def test_speaks_the_six_tuple_of_safety_gymnasium(env_id):
    env = ToSafetyGymnasium(gym.make(env_id))
    env.reset(seed=0)
    _, _, cost, terminated, truncated, info = env.step(env.action_space.sample())
    assert cost == info["cost"] and not (terminated or truncated)


@all_tasks
@pytest.mark.parametrize("flat", [False, True])
def test_budget_of_each_episode_can_be_given_drawn_and_turned(env_id, flat):
    env = BudgetObservation(gym.make(env_id), budget=(5.0, 8.0), flat=flat)
    drawn = [env.reset(seed=seed)[1]["remaining_budget"] for seed in range(5)]
    assert len(set(drawn)) == 5 and all(5.0 <= budget <= 8.0 for budget in drawn)
    obs, info = env.reset(seed=0, options={"budget": 12.5})
    assert info["remaining_budget"] == 12.5
    env.set_remaining_budget(4.0)
    obs, *_, info = env.step(env.action_space.sample())
    expected = (4.0 - info["cost"]) / TASKS[env_id].cost_discount
    assert info["remaining_budget"] == pytest.approx(expected)
    shown = obs[-1] if flat else obs["remaining_budget"][0]
    assert shown == pytest.approx(expected, rel=1e-6)


@all_tasks
def test_budgets_are_drawn_and_turned_inside_stable_baselines_vec_env(env_id):
    """SB3 loses the options of a reset when it resets by itself."""
    envs = DummyVecEnv(
        [lambda: BudgetObservation(gym.make(env_id, max_episode_steps=2), (5.0, 8.0))] * 2
    )
    envs.seed(0)
    first = envs.reset()["remaining_budget"][:, 0]
    envs.env_method("set_remaining_budget", 4.0, indices=[1])
    actions = np.zeros((2, *envs.action_space.shape), np.float32)
    obs, _, _, infos = envs.step(actions)
    before = np.array([first[0], 4.0])
    spent = np.array([info["cost"] for info in infos])
    expected = (before - spent) / TASKS[env_id].cost_discount
    np.testing.assert_allclose(obs["remaining_budget"][:, 0], expected, rtol=1e-6)
    obs, _, dones, infos = envs.step(actions)
    assert dones.all()
    fresh = obs["remaining_budget"][:, 0]
    assert ((fresh >= 5.0) & (fresh <= 8.0)).all() and not np.isclose(fresh, first).any()
    assert all(info["terminal_observation"]["remaining_budget"][0] < 8.2 for info in infos)
    envs.close()


@pytest.mark.parametrize("env_id", ["safe/Hopper-v0", "safe/BallReach-v0"])
def test_budgets_work_in_stable_baselines_processes(env_id):
    """One of each kind of physics, in processes of their own."""
    envs = SubprocVecEnv([lambda: BudgetObservation(gym.make(env_id), 9.0)] * 2)
    envs.reset()
    envs.env_method("set_remaining_budget", 4.0, indices=[1])
    actions = np.zeros((2, *envs.action_space.shape), np.float32)
    obs, _, _, infos = envs.step(actions)
    spent = np.array([info["cost"] for info in infos])
    expected = (np.array([9.0, 4.0]) - spent) / TASKS[env_id].cost_discount
    envs.close()
    np.testing.assert_allclose(obs["remaining_budget"][:, 0], expected, rtol=1e-6)


@all_tasks
@pytest.mark.parametrize("mode", AutoresetMode)
def test_vector_budgets_and_episode_costs_under_every_autoreset_mode(env_id, mode):
    """Two episodes and a bit of three steps each; a step that only resets costs nothing."""
    envs = gym.make_vec(
        env_id, num_envs=2, max_episode_steps=3, vector_kwargs={"autoreset_mode": mode}
    )
    envs = VectorRecordEpisodeCost(VectorBudgetObservation(envs, budget=50.0))
    _, info = envs.reset(seed=0)
    envs.action_space.seed(0)
    discount = TASKS[env_id].cost_discount
    left, sums, done = np.full(2, 50.0), np.zeros(2), np.zeros(2, bool)
    for _ in range(8):
        if mode == AutoresetMode.DISABLED and done.all():
            _, info = envs.reset(options={"reset_mask": done})
            left, sums = np.full(2, 50.0), np.zeros(2)
        only_resets = mode == AutoresetMode.NEXT_STEP and done.all()
        *_, terminated, truncated, info = envs.step(envs.action_space.sample())
        done = terminated | truncated
        last = info["final_info"] if mode == AutoresetMode.SAME_STEP and done.all() else info
        if only_resets:
            left, sums = np.full(2, 50.0), np.zeros(2)
        else:
            left, sums = (left - last["cost"]) / discount, sums + last["cost"]
        np.testing.assert_allclose(last["remaining_budget"], left)
        if done.all():
            np.testing.assert_allclose(info["episode"]["c"], sums)
            assert info["episode"]["l"].tolist() == [3, 3]
            if mode == AutoresetMode.SAME_STEP:
                left, sums = np.full(2, 50.0), np.zeros(2)
                np.testing.assert_allclose(info["remaining_budget"], left)
    envs.close()


@all_tasks
@pytest.mark.parametrize("budget", [-1.0, float("nan"), "much", None])
def test_bad_budgets_are_refused_at_the_reset(env_id, budget):
    env = BudgetObservation(gym.make(env_id), budget=5.0)
    with pytest.raises((TypeError, ValueError), match="budget"):
        env.reset(options={"budget": budget})
    assert env.reset(seed=0)[1]["remaining_budget"] == 5.0


@all_tasks
def test_is_registered_with_the_tables_time_limit(env_id):
    assert gym.spec(env_id).max_episode_steps == TASKS[env_id].max_episode_steps


def test_unknown_task_names_the_nearest():
    with pytest.raises(gym.error.NameNotFound, match="Did you mean 'safe/Pendulum-v0'"):
        task_spec("safe/Pendulm-v0")
    assert task_spec("safe_envs:safe/Pendulum-v0") is TASKS["safe/Pendulum-v0"]


def test_import_is_light_and_not_needed_with_the_prefix():
    heavy = "torch stable_baselines3 minari mujoco pybullet pygame matplotlib".split()
    code = f"""
import sys, safe_envs, gymnasium as gym
loaded = [name for name in [*{heavy!r}, "PIL"] if name in sys.modules]
assert not loaded, loaded
gym.make("safe_envs:safe/Pendulum-v0").reset(seed=0)
loaded = [name for name in {heavy!r} if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@all_tasks
def test_needs_no_import_with_the_prefix(env_id):
    code = f"import gymnasium as gym; gym.make('safe_envs:{env_id}').reset(seed=0)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)
