import gymnasium as gym
import numpy as np
import pytest

from safe_envs import CostSignal


def speed(observation, action, next_observation, info, *, factor=1.0):
    return factor * abs(float(next_observation[2]))


def test_judges_the_transition_with_any_function():
    env = CostSignal(gym.make("Pendulum-v1"), speed, factor=2.0)
    _, info = env.reset(seed=0)
    assert info["cost"] == 0.0
    for _ in range(5):
        obs, *_, info = env.step(np.array([1.0], np.float32))
        assert info["cost"] == pytest.approx(2.0 * abs(float(obs[2])))


def test_judges_the_observation_before_the_step():
    seen = []

    def record(observation, action, next_observation, info):
        seen.append((observation.copy(), next_observation.copy()))
        return 0.0

    env = CostSignal(gym.make("Pendulum-v1"), record)
    observations = [env.reset(seed=0)[0]]
    for _ in range(3):
        observations.append(env.step(env.action_space.sample())[0])
    env.reset(seed=1)
    for (before, after), left, right in zip(seen, observations, observations[1:], strict=False):
        np.testing.assert_array_equal(before, left)
        np.testing.assert_array_equal(after, right)


@pytest.mark.parametrize("cost", [float("nan"), float("inf")])
def test_a_cost_that_is_not_finite_is_refused(cost):
    env = CostSignal(gym.make("Pendulum-v1"), lambda *_: cost)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="A cost should be a finite number"):
        env.step(env.action_space.sample())
