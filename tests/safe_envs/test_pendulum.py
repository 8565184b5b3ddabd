import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv

import safe_envs  # noqa: F401


def reference_step(angle, velocity, action, action_scale=2.0):
    """One step by the constants of the specification: g = 10, m = l = 1, dt = 0.05."""
    torque = max(-2.0, min(2.0, action_scale * action))
    normalised = math.atan2(math.sin(angle), math.cos(angle))
    reward = (17.0 - (normalised**2 + 0.1 * velocity**2 + 0.001 * torque**2)) / 17.0
    degrees = math.degrees(normalised)
    cost = 1.0 - abs(degrees - 25.0) / 50.0 if -25.0 <= degrees <= 75.0 else 0.0
    velocity = velocity + (15.0 * math.sin(angle) + 3.0 * torque) * 0.05
    angle = angle + velocity * 0.05
    return angle, max(-8.0, min(8.0, velocity)), reward, cost


@pytest.mark.parametrize("seed", range(3))
def test_episode_matches_the_specification(seed):
    env = gym.make("safe/Pendulum-v0", mode="train")
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    angle, velocity = env.unwrapped.state
    total_cost = 0.0
    for step in range(200):
        action = np.float32(2.0 * np.sign(velocity) if seed else rng.uniform(-2, 2))
        angle, velocity, reward, cost = reference_step(angle, velocity, float(action))
        obs, given_reward, terminated, truncated, info = env.step(np.array([action]))
        np.testing.assert_allclose(
            obs, [math.cos(angle), math.sin(angle), velocity], rtol=0, atol=1e-6
        )
        assert given_reward == pytest.approx(reward, abs=1e-9)
        assert info["cost"] == pytest.approx(cost, abs=1e-5)  # the observation is float32
        assert not terminated
        assert truncated == (step == 199)
        total_cost += cost
    assert (total_cost > 0) or seed == 0


def test_dynamics_are_gymnasiums_while_the_speed_is_not_clipped():
    ours = gym.make("safe/Pendulum-v0", action_scale=1.0, reward="gym").unwrapped
    theirs = PendulumEnv()
    ours.reset(options={"state": (math.pi - 0.3, 0.2)})
    theirs.reset(seed=0)
    theirs.state = np.array([math.pi - 0.3, 0.2])
    for step in range(60):
        action = np.array([1.5 * math.sin(0.3 * step)], np.float32)
        obs, reward, *_ = ours.step(action)
        their_obs, their_reward, *_ = theirs.step(action)
        np.testing.assert_allclose(obs, their_obs, atol=1e-5)
        assert reward == pytest.approx(float(their_reward), abs=1e-5)
        assert abs(obs[2]) < 8.0


def test_angle_moves_before_the_speed_is_clipped():
    env = gym.make("safe/Pendulum-v0").unwrapped
    env.reset(options={"state": (math.pi / 2, 7.9)})
    env.step(np.array([2.0], np.float32))
    unclipped = 7.9 + (15.0 + 6.0) * 0.05
    assert env.state == pytest.approx([math.pi / 2 + unclipped * 0.05, 8.0])


@pytest.mark.parametrize(
    ("mode", "center", "widths"),
    [
        ("test", math.pi, (0.2, 0.1)),
        ("train", 0.0, (math.pi, 1.0)),
        ("deterministic", math.pi, (0, 0)),
    ],
)
def test_start_states_fill_their_range(mode, center, widths):
    env = gym.make("safe/Pendulum-v0", mode=mode).unwrapped
    states = []
    for seed in range(200):
        env.reset(seed=seed)
        states.append(env.state - [center, 0.0])
    reach = np.abs(states).max(axis=0)
    assert (reach <= widths).all()
    assert (reach >= 0.95 * np.array(widths)).all()


def test_renders_an_image_without_a_screen():
    env = gym.make("safe/Pendulum-v0", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    env.close()
    assert frame.shape == (500, 500, 3)
    assert frame.std() > 0
