import math
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from safe_envs import BudgetObservation, VectorBudgetObservation

pytest.importorskip("pybullet")
from safe_envs.bullet.car_circle import CarStart, draw_start  # noqa: E402

FOLDER = Path(__file__).parent / "recordings"
ORIGINAL, DSRL = np.load(FOLDER / "car_circle.npz"), np.load(FOLDER / "car_circle_dsrl.npz")


def recorded(episode, key, recording=ORIGINAL):
    return recording[f"ep{episode}_{key}"]


def recorded_start(episode, recording=ORIGINAL):
    return CarStart(
        position=recorded(episode, "agent_xy", recording),
        yaw=float(recorded(episode, "agent_yaw", recording)),
        joint_angles=recorded(episode, "joint_angles", recording),
    )


def replay(env, episode, num_steps=None, recording=ORIGINAL):
    obs, _ = env.reset(options={"start": recorded_start(episode, recording)})
    observations, rewards, costs = [obs], [], []
    for action in recorded(episode, "actions", recording)[:num_steps]:
        obs, reward, terminated, truncated, info = env.step(action)
        observations.append(obs)
        rewards.append(reward)
        costs.append(info["cost"])
    assert not terminated
    assert truncated == (num_steps is None)
    return np.array(observations), np.array(rewards), np.array(costs)


@pytest.fixture(scope="module")
def env():
    env = gym.make("safe/CarCircle-v0")
    yield env
    env.close()


@pytest.mark.parametrize("episode", range(6))
def test_replays_the_original_over_the_whole_length_in_one_client(env, episode):
    observations, rewards, costs = replay(env, episode)
    np.testing.assert_allclose(observations, recorded(episode, "observations"), rtol=0, atol=1e-9)
    np.testing.assert_allclose(rewards, recorded(episode, "rewards"), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(costs, recorded(episode, "costs"))


def test_replays_the_original_in_a_fresh_client_with_pictures():
    env = gym.make("safe/CarCircle-v0", render_mode="rgb_array")
    observations, *_ = replay(env, 4, num_steps=100)
    env.render()
    np.testing.assert_allclose(observations, recorded(4, "observations")[:101], rtol=0, atol=1e-9)
    env.close()


def test_recordings_cover_what_can_go_wrong():
    costs = [recorded(episode, "costs").sum() for episode in range(6)]
    assert costs[2] > 100 and costs[0] == 0
    assert recorded(2, "rewards").sum() > 1000


def test_last_action_of_an_episode_does_not_reach_into_the_next(env):
    """The original's motors keep their targets over a reset, and it simulates a step there."""
    start = recorded_start(1)
    first, _ = env.reset(options={"start": start})
    for _ in range(30):
        env.step(np.array([1.0, 1.0], np.float32))
    again, _ = env.reset(options={"start": start})
    np.testing.assert_array_equal(first, again)


def test_reward_and_cost_are_those_of_the_simulations_state(env):
    """From the formulas of the specification and what pybullet says, not from our observation."""
    env.reset(options={"start": recorded_start(2)})
    bullet, car = env.unwrapped._world.bullet, env.unwrapped._car
    num_costly = 0
    for action in recorded(2, "actions")[:300]:
        _, reward, *_, info = env.step(action)
        (x, y, _), _ = bullet.getBasePositionAndOrientation(car)
        (vx, vy, _), _ = bullet.getBaseVelocity(car)
        expected = 0.1 * (-x * vy + y * vx) / (1 + abs(math.hypot(x, y) - 7))
        assert reward == pytest.approx(expected, abs=1e-12)
        assert info["cost"] == (1.0 if abs(x) > 6 else 0.0)
        num_costly += abs(x) > 6
    assert 0 < num_costly < 300


def test_actions_are_clipped(env):
    def end(action):
        env.reset(options={"start": recorded_start(0)})
        return [env.step(np.array(action, np.float32))[0] for _ in range(20)][-1]

    np.testing.assert_array_equal(end([1.0, -1.0]), end([7.0, -3.0]))
    assert not np.allclose(end([1.0, -1.0]), end([0.5, -1.0]))


def test_starts_in_the_ring_heading_counter_clockwise():
    rng = np.random.default_rng(0)
    starts = [draw_start(rng) for _ in range(500)]
    radii = np.array([np.linalg.norm(start.position) for start in starts])
    assert 2.0 <= radii.min() < 2.1 and 3.9 < radii.max() <= 4.0
    for start in starts:
        heading = np.array([math.cos(start.yaw), math.sin(start.yaw)])
        counter_clockwise = np.array([-start.position[1], start.position[0]])
        assert heading @ counter_clockwise == pytest.approx(np.linalg.norm(counter_clockwise))
    angles = np.concatenate([start.joint_angles for start in starts])
    assert np.abs(angles).max() <= 0.1 and np.ptp(angles) > 0.19


def test_dsrl_variant_has_its_own_clock_and_length():
    env = BudgetObservation(gym.make("safe/CarCircle-v0", variant="dsrl"), budget=9.0)
    _, info = env.reset(seed=0)
    assert env.unwrapped._world.dt == pytest.approx(0.1)
    num_steps, truncated = 0, False
    while not truncated:
        assert info["remaining_steps"] == 300 - num_steps
        *_, truncated, info = env.step(np.zeros(2, np.float32))
        num_steps += 1
    assert num_steps == 300
    envs = VectorBudgetObservation(gym.make_vec("safe/CarCircle-v0", 2, variant="dsrl"), budget=9.0)
    assert envs.reset(seed=0)[1]["remaining_steps"].tolist() == [300, 300]
    shorter = gym.make("safe/CarCircle-v0", variant="dsrl", max_episode_steps=7)
    assert BudgetObservation(shorter, 9.0).reset()[1]["remaining_steps"] == 7
    for opened in (env, envs, shorter):
        opened.close()


@pytest.mark.parametrize("episode", range(2))
def test_dsrl_variant_replays_the_fork_that_dsrl_used(episode):
    env = gym.make("safe/CarCircle-v0", variant="dsrl")
    observations, rewards, costs = replay(env, episode, recording=DSRL)
    for name, values in (("observations", observations), ("rewards", rewards), ("costs", costs)):
        np.testing.assert_allclose(values, recorded(episode, name, DSRL), rtol=0, atol=1e-9)
    assert recorded(0, "costs", DSRL).sum() > 0
    env.close()


def test_x_limit_is_a_parameter():
    env = gym.make("safe/CarCircle-v0", x_limit=1.0)
    costs = replay(env, 2)[2]
    x = 10 * recorded(2, "observations")[1:, 0]
    np.testing.assert_array_equal(costs, np.abs(x) > 1.0)
    env.close()
