import warnings

import gymnasium as gym
import numpy as np
import pytest
from costly_env import CostlyEnv
from gymnasium.utils.env_checker import check_env

from safe_envs import BudgetObservation, FromSafetyGymnasium, ToSafetyGymnasium


class SafetyGymnasiumLike:
    """What safety-gymnasium's environments are: six values, a cost in the tuple, no inheritance."""

    observation_space = CostlyEnv.observation_space
    action_space = CostlyEnv.action_space
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self):
        self.inner, self.closed = CostlyEnv(), False

    def reset(self, *, seed=None, options=None):
        return self.inner.reset(seed=seed, options=options)[0], {}

    def step(self, action):
        obs, reward, terminated, truncated, _ = self.inner.step(action)
        return obs, reward, float(action[0]), terminated, truncated, {"cost_sum": 1.0}

    def render(self):
        return np.zeros((2, 2, 3), np.uint8)

    def close(self):
        self.closed = True


def test_cost_of_a_six_tuple_goes_into_the_info():
    theirs = SafetyGymnasiumLike()
    env = FromSafetyGymnasium(theirs)
    assert env.reset(seed=0)[1] == {"cost": 0.0}
    obs, reward, terminated, truncated, info = env.step(np.array([2.5], np.float32))
    assert info == {"cost_sum": 1.0, "cost": 2.5}
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert env.render().shape == (2, 2, 3)
    env.close()
    assert theirs.closed


def test_adapted_environment_passes_the_checker_and_takes_a_budget():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # recommendations: range of the action space
        check_env(FromSafetyGymnasium(SafetyGymnasiumLike()), skip_render_check=True)
    env = BudgetObservation(FromSafetyGymnasium(SafetyGymnasiumLike()), budget=9.0)
    env.reset(seed=0)
    assert env.step(np.array([2.5], np.float32))[4]["remaining_budget"] == 6.5


def test_cost_of_the_info_goes_into_a_six_tuple():
    env = ToSafetyGymnasium(gym.make("safe/Pendulum-v0", mode="train"))
    plain = gym.make("safe/Pendulum-v0", mode="train")
    np.testing.assert_array_equal(env.reset(seed=1)[0], plain.reset(seed=1)[0])
    for _ in range(50):
        action = np.array([1.0], np.float32)
        obs, reward, cost, terminated, truncated, info = env.step(action)
        expected = plain.step(action)
        np.testing.assert_array_equal(obs, expected[0])
        assert (reward, terminated, truncated) == expected[1:4]
        assert type(cost) is float and cost == expected[4]["cost"]


def test_there_and_back_again_changes_nothing():
    env = FromSafetyGymnasium(ToSafetyGymnasium(gym.make("safe/Pendulum-v0")))
    plain = gym.make("safe/Pendulum-v0")
    env.reset(seed=0)
    plain.reset(seed=0)
    action = np.array([1.0], np.float32)
    for mine, theirs in zip(env.step(action), plain.step(action), strict=True):
        np.testing.assert_equal(mine, theirs)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="six values"):
        env = FromSafetyGymnasium(CostlyEnv())
        env.reset()
        env.step(np.array([1.0], np.float32))
    env = ToSafetyGymnasium(gym.make("Pendulum-v1"))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="CostSignal"):
        env.step(env.action_space.sample())
