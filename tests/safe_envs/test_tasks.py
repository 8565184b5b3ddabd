"""The contract of every registered task: a new task is tested by being in the table."""

import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from safe_envs import TASKS, BudgetObservation, task_spec

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


@all_tasks
def test_passes_gymnasiums_checker(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # recommendations: range of the action space
        check_env(gym.make(env_id).unwrapped, skip_render_check=True)
        check_env(gym.make(env_id), skip_render_check=True)


@all_tasks
@pytest.mark.parametrize("flat", [False, True])
def test_passes_both_checkers_with_a_budget(env_id, flat):
    env = BudgetObservation(gym.make(env_id), budget=5.0, flat=flat)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check_env(env, skip_render_check=True)
        sb3_check_env(env)


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
def test_is_registered_with_the_tables_time_limit(env_id):
    assert gym.spec(env_id).max_episode_steps == TASKS[env_id].max_episode_steps


def test_unknown_task_names_the_nearest():
    with pytest.raises(gym.error.NameNotFound, match="Did you mean 'safe/Pendulum-v0'"):
        task_spec("safe/Pendulm-v0")
    assert task_spec("safe_envs:safe/Pendulum-v0") is TASKS["safe/Pendulum-v0"]


def test_import_is_light_and_not_needed_with_the_prefix():
    heavy = "torch stable_baselines3 minari mujoco pybullet pygame matplotlib".split()
    code = f"""
import sys, gymnasium as gym
gym.make("safe_envs:safe/Pendulum-v0").reset(seed=0)
loaded = [name for name in {heavy!r} if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)
