import gc
import os
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

pybullet = pytest.importorskip("pybullet")

BULLET_TASKS = ["safe/CarCircle-v0", "safe/BallReach-v0"]
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
bullet_tasks = pytest.mark.parametrize("env_id", BULLET_TASKS)


def client_of(env):
    return env.unwrapped._world.bullet.id


def trajectory(env, seed, num_steps):
    yield env.reset(seed=seed)[0]
    rng = np.random.default_rng(seed)
    for _ in range(num_steps):
        yield env.step(rng.uniform(-1, 1, 2).astype(np.float32))[0]


@bullet_tasks
def test_instances_do_not_touch_each_others_physics(env_id):
    """Three environments of one kind and one of the other, step by step in turn, against one."""
    envs = [gym.make(env_id) for _ in range(3)]
    other = gym.make(next(name for name in BULLET_TASKS if name != env_id))
    other.reset(seed=0)
    interleaved = [[] for _ in envs]
    for observations in zip(*(trajectory(env, i, 60) for i, env in enumerate(envs)), strict=True):
        other.step(other.action_space.sample())
        for index, observation in enumerate(observations):
            interleaved[index].append(observation)
    for index in range(3):
        alone = gym.make(env_id)
        np.testing.assert_array_equal(interleaved[index], list(trajectory(alone, index, 60)))
        alone.close()
    for env in (*envs, other):
        env.close()


@bullet_tasks
def test_close_frees_the_client_and_can_be_repeated(env_id):
    env = gym.make(env_id)
    other = gym.make(env_id)
    client = client_of(env)
    assert pybullet.isConnected(client)
    env.close()
    env.close()
    assert not pybullet.isConnected(client)
    assert pybullet.isConnected(client_of(other))
    other.close()


@bullet_tasks
def test_a_forgotten_environment_frees_its_client(env_id):
    env = gym.make(env_id)
    client = client_of(env)
    del env
    gc.collect()
    assert not pybullet.isConnected(client)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@bullet_tasks
def test_thousands_of_resets_and_a_hundred_instances_leak_nothing(env_id):
    def mebibytes():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE / 2**20

    env = gym.make(env_id)
    bullet = env.unwrapped._world.bullet
    counts, memory = [], []
    for episode in range(3000):
        env.reset(seed=episode)
        if episode in (200, 2999):
            counts.append((bullet.getNumBodies(), bullet.getNumConstraints()))
            memory.append(mebibytes())
    assert counts[0] == counts[1]
    assert memory[1] - memory[0] < 2.0
    env.close()
    for instance in range(100):
        gym.make(env_id).close()
        if instance == 20:
            memory.append(mebibytes())
    assert mebibytes() - memory[-1] < 5.0


def test_missing_pybullet_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pybullet", None)
    for module in list(sys.modules):
        if module.startswith("safe_envs.bullet"):
            monkeypatch.delitem(sys.modules, module)
    for env_id in BULLET_TASKS:
        with pytest.raises(gym.error.DependencyNotInstalled, match=r"\[bullet\]"):
            gym.make(env_id)
