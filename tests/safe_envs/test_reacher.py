import math

import gymnasium as gym
import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")
from safe_envs.reacher import GEOMETRIES  # noqa: E402


def fingertip_by_hand(angles):
    """Forward kinematics of reacher.xml: links of 0.1 and 0.11 m, 1 cm above the ground."""
    first, both = angles[0], angles[0] + angles[1]
    x = 0.1 * math.cos(first) + 0.11 * math.cos(both)
    y = 0.1 * math.sin(first) + 0.11 * math.sin(both)
    return np.array([x, y, 0.01])


def to_the_corner(obs):
    """Stretches the arm and turns it towards 45 degrees, where the unsafe region begins."""
    angles = np.arctan2(obs[2:4], obs[0:2])
    return np.clip(3.0 * ([math.pi / 4, 0.0] - angles) - 0.25 * obs[6:8], -1, 1).astype(np.float32)


@pytest.mark.parametrize("geometry", ["saute", "reachable"])
def test_episode_is_that_of_mujoco_alone(geometry):
    """Simulates the same model by hand, and judges its bodies by the paper's formulas."""
    env = gym.make("safe/Reacher-v0", geometry=geometry)
    obs, _ = env.reset(seed=0)
    task = env.unwrapped
    model = mujoco.MjModel.from_xml_path(task.fullpath)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = task.data.qpos, task.data.qvel
    mujoco.mj_forward(model, data)
    shape = GEOMETRIES[geometry]
    goal, center = np.array(shape.goal), np.array(shape.unsafe_center)
    num_costly = 0
    for _ in range(50):
        action = to_the_corner(obs)
        before = data.body("fingertip").xpos.copy()
        data.ctrl[:] = action
        for _ in range(2):
            mujoco.mj_step(model, data)
        after = data.body("fingertip").xpos
        obs, reward, terminated, truncated, info = env.step(action)
        expected = -np.linalg.norm(before - goal) - np.sum(np.float64(action) ** 2)
        assert reward == pytest.approx(expected, abs=1e-6)
        distance = np.linalg.norm(after - center)
        if geometry == "saute":
            cost = 100.0 - 200.0 * distance if distance < 0.5 else 0.0
        else:
            cost = 1.0 - distance / 0.06 if distance < 0.06 else 0.0
        assert info["cost"] == pytest.approx(cost, abs=1e-9)
        by_hand = [*np.cos(data.qpos[:2]), *np.sin(data.qpos[:2]), *data.qpos[2:], *data.qvel[:2]]
        np.testing.assert_allclose(obs, [*by_hand, *(after - goal)], rtol=0, atol=1e-12)
        # MuJoCo's bodies lag behind its joints by a substep.
        assert np.linalg.norm(after - fingertip_by_hand(data.qpos[:2])) < 6e-3
        assert not terminated
        num_costly += cost > 0
    assert truncated
    assert num_costly > 3


def test_sautes_geometry_is_nearly_degenerate():
    """Its largest cost within reach, analytically: |center| - reach, at the fingertip's height."""
    nearest = math.hypot(math.hypot(0.5, 0.5) - 0.21, 0.01)
    largest = 100.0 - 200.0 * nearest
    assert largest == pytest.approx(0.5585, abs=1e-4)
    env = gym.make("safe/Reacher-v0")
    obs, _ = env.reset(seed=3)
    costs = []
    for _ in range(50):
        obs, *_, info = env.step(to_the_corner(obs))
        costs.append(info["cost"])
    assert 0.3 < max(costs) <= largest + 1e-9
    assert sum(costs) < 50 * largest


def test_reachable_geometry_can_be_reached_and_the_short_way_costs():
    env = gym.make("safe/Reacher-v0", geometry="reachable")
    obs, _ = env.reset(seed=0)
    costs = []
    for _ in range(50):
        obs, *_, info = env.step(to_the_corner(obs))
        costs.append(info["cost"])
    assert np.linalg.norm(obs[8:]) < 0.02
    assert sum(costs) > 2.0


def test_starts_nearly_straight_with_the_target_at_the_goal():
    env = gym.make("safe/Reacher-v0")
    starts = np.array([env.reset(seed=seed)[0] for seed in range(200)])
    angles = np.arctan2(starts[:, 2:4], starts[:, 0:2])
    assert 0.095 < np.abs(angles).max() <= 0.1
    np.testing.assert_array_equal(starts[:, 4:6], 1.0)
    assert 0.0045 < np.abs(starts[:, 6:8]).max() <= 0.005


def test_target_is_thrown_back_unless_it_is_pinned():
    for pinned in (False, True):
        env = gym.make("safe/Reacher-v0", pin_target=pinned)
        env.reset(seed=0)
        targets = [env.step(np.zeros(2, np.float32))[0][4:6] for _ in range(20)]
        assert np.allclose(targets, 1.0) == pinned


def test_target_does_not_change_the_arm():
    trajectories = []
    for pinned in (False, True):
        env = gym.make("safe/Reacher-v0", pin_target=pinned)
        env.reset(seed=0)
        arm = [env.step(np.array([0.5, -0.7], np.float32)) for _ in range(50)]
        trajectories.append([(np.delete(obs, [4, 5]), reward) for obs, reward, *_ in arm])
    for (obs, reward), (other_obs, other_reward) in zip(*trajectories, strict=True):
        np.testing.assert_allclose(obs, other_obs, atol=1e-12)
        assert reward == pytest.approx(other_reward, abs=1e-12)


def test_numbers_of_the_geometry_can_be_changed():
    env = gym.make(
        "safe/Reacher-v0", unsafe_center=(0.21, 0.0, 0.01), unsafe_radius=0.1, cost_scale=3
    )
    env.reset(seed=0)
    *_, info = env.step(np.zeros(2, np.float32))
    assert 1.5 < info["cost"] <= 3.0


def test_position_of_an_observation_is_the_fingertip():
    env = gym.make("safe/Reacher-v0")
    obs, _ = env.reset(seed=0)
    for _ in range(5):
        obs, *_ = env.step(np.array([0.3, -0.2], np.float32))
    fingertip = env.unwrapped.data.body("fingertip").xpos[:2]
    np.testing.assert_allclose(env.unwrapped.position_of(obs[None])[0], fingertip, atol=1e-6)
    env.close()
