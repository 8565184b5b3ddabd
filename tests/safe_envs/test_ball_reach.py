import math
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pybullet")
from safe_envs.bullet.ball_layout import BallLayout, draw_layout  # noqa: E402
from safe_envs.bullet.ball_reach import puddle_sectors  # noqa: E402

RECORDED = np.load(Path(__file__).parent / "recordings" / "ball_reach.npz")


def recorded(episode, key):
    return RECORDED[f"ep{episode}_{key}"]


def recorded_layout(episode):
    return BallLayout(
        ball=recorded(episode, "agent_xy"),
        ball_yaw=float(recorded(episode, "agent_yaw")),
        box=recorded(episode, "box_xy"),
        box_yaw=float(recorded(episode, "box_yaw")),
        box_phase=float(recorded(episode, "box_phase")),
        puddles=recorded(episode, "puddles_xy"),
        goals=recorded(episode, "goals_xy"),
    )


@pytest.fixture(scope="module")
def env():
    env = gym.make("safe/BallReach-v0")
    yield env
    env.close()


def replay(env, episode):
    obs, info = env.reset(options={"layout": recorded_layout(episode)})
    steps = [env.step(action) for action in recorded(episode, "actions")]
    assert not any(step[2] for step in steps) and steps[-1][3]
    return [obs, *(step[0] for step in steps)], [s[1] for s in steps], [s[4] for s in steps]


@pytest.mark.parametrize("episode", range(6))
def test_replays_the_original_over_the_whole_length_in_one_client(env, episode):
    observations, rewards, infos = replay(env, episode)
    np.testing.assert_allclose(observations, recorded(episode, "observations"), rtol=0, atol=1e-9)
    np.testing.assert_allclose(rewards, recorded(episode, "rewards"), rtol=0, atol=1e-9)
    for key, name in (
        ("cost", "costs"),
        ("touches_box", "box_contact"),
        ("num_puddles", "puddle_hits"),
    ):
        np.testing.assert_array_equal([info[key] for info in infos], recorded(episode, name))


def test_replays_the_original_in_a_fresh_client():
    """With box contacts, and with bounces off the walls."""
    for episode in (5, 4):
        env = gym.make("safe/BallReach-v0", render_mode="rgb_array")
        observations, *_ = replay(env, episode)
        env.render()
        np.testing.assert_allclose(
            observations, recorded(episode, "observations"), rtol=0, atol=1e-9
        )
        env.close()


def test_recordings_cover_what_can_go_wrong():
    assert recorded(5, "box_contact").sum() > 0
    assert recorded(3, "puddle_hits").max() == 2
    assert recorded(2, "goal_reached").sum() > 1


def test_cost_is_that_of_the_simulations_state(env):
    """From distances that pybullet and the recorded puddles give, not from our observation."""
    for episode in (3, 5):
        env.reset(options={"layout": recorded_layout(episode)})
        bullet, ball, box = (env.unwrapped._world.bullet, env.unwrapped._ball, env.unwrapped._box)
        for action in recorded(episode, "actions"):
            *_, info = env.step(action)
            (x, y, _), _ = bullet.getBasePositionAndOrientation(ball)
            in_puddle = any(
                math.hypot(x - px, y - py) <= 1.5 for px, py in recorded(episode, "puddles_xy")
            )
            touching = len(bullet.getContactPoints(bodyA=box, bodyB=ball)) > 0
            assert info["cost"] == float(in_puddle or touching)


def test_rays_see_what_is_there(env):
    layout = recorded_layout(0)
    layout = replace(
        layout, ball=np.array([7.0, 0.0]), box=np.array([7.0, 3.0]), box_yaw=0.0,
        puddles=np.array([[7.0, -2.0]]), goals=np.array([[0.0, 0.0]]),
    )  # fmt: skip
    still = gym.make("safe/BallReach-v0", moving_box=False)
    obs, _ = still.reset(options={"layout": layout})
    rays, sectors = obs[7:31], obs[31:55]
    assert rays[0] == pytest.approx(1 - 2.5 / 5, abs=1e-3)  # +y: the side of the box
    assert rays[6] == pytest.approx(1 - 2.9 / 5, abs=1e-3)  # +x: the wall at 9.9 m
    assert rays[18] == 0.0  # -x: nothing within 5 m
    np.testing.assert_allclose(obs[55:], [-7 / 20, 0.0], atol=1e-3)
    assert sectors.max() == pytest.approx(1 - 2 / 5, abs=1e-3) and (sectors > 0).sum() == 1
    still.close()


@given(st.floats(-math.pi, math.pi), st.floats(0.0, 8.0))
def test_puddle_sectors_turn_with_the_puddle(angle, distance):
    ball = np.array([1.0, -2.0])
    puddle = ball + distance * np.array([math.sin(angle), math.cos(angle)])
    seen = puddle_sectors(ball, puddle[None])
    assert seen.shape == (24,) and (0.0 <= seen).all() and (seen <= 1.0).all()
    assert seen.max() == pytest.approx(max(0.0, 1.0 - distance / 5.0), abs=1e-9)
    assert (seen > 0).sum() <= 1
    turned = ball + distance * np.array(
        [math.sin(angle + math.pi / 12), math.cos(angle + math.pi / 12)]
    )
    if 1e-3 < distance < 4.999 and 1e-6 < (angle * 12 / math.pi) % 1 < 1 - 1e-6:
        np.testing.assert_allclose(np.roll(seen, 1), puddle_sectors(ball, turned[None]), atol=1e-9)


def test_nearest_puddle_of_a_sector_counts():
    puddles = np.array([[0.0, 3.0], [0.1, 1.0], [0.1, 4.0]])
    assert puddle_sectors(np.zeros(2), puddles).max() == pytest.approx(1 - math.hypot(0.1, 1.0) / 5)
    np.testing.assert_array_equal(puddle_sectors(np.zeros(2), np.zeros((0, 2))), np.zeros(24))


def test_layouts_keep_their_distances():
    rng = np.random.default_rng(0)
    for _ in range(100):
        layout = draw_layout(rng, num_puddles=8)
        things = np.vstack([layout.ball, layout.goals, layout.box, layout.puddles])
        assert np.abs(things).max() <= 7.0
        distances = np.linalg.norm(things[:, None] - things[None], axis=-1)
        assert distances[~np.eye(len(things), dtype=bool)].min() >= 2.5


def test_later_goals_keep_their_distance(env):
    layout = recorded_layout(2)
    env.reset(seed=1, options={"layout": replace(layout, goals=layout.goals[:1])})
    task = env.unwrapped
    for _ in range(200):
        task._next_goal(np.array([3.0, 3.0]))
        others = np.vstack([layout.puddles, task.box_pose[0], [3.0, 3.0]])
        assert np.linalg.norm(others - task.goal, axis=1).min() > 1.5
        assert np.abs(task.goal).max() <= 7.0


def test_box_follows_simulated_time_and_can_stay():
    """In the original it follows the wall clock."""
    angles = {}
    for moving in (True, False):
        env = gym.make("safe/BallReach-v0", moving_box=moving)
        env.reset(seed=0)
        center, trace = env.unwrapped.layout.box, []
        for _ in range(250):
            env.step(np.zeros(2, np.float32))
            trace.append(env.unwrapped.box_pose[0] - center)
        angles[moving] = np.unwrap(np.arctan2(*np.array(trace[60:]).T))
        radius = np.linalg.norm(trace[-1])
        assert radius == pytest.approx(0.7 if moving else 0.0, abs=0.05)
        env.close()
    assert np.ptp(angles[True]) == pytest.approx(189 / 60, abs=0.01)  # 1 rad/s


def test_number_of_puddles_and_goal_bonus_are_parameters():
    for num_puddles in (0, 3):
        env = gym.make("safe/BallReach-v0", num_puddles=num_puddles, goal_bonus=30.0)
        obs, _ = env.reset(seed=0)
        assert env.unwrapped.layout.puddles.shape == (num_puddles, 2)
        assert env.observation_space.contains(obs)
        layout = env.unwrapped.layout
        near_goal = replace(layout, goals=np.vstack([layout.ball + [0.5, 0.0], layout.goals]))
        env.reset(options={"layout": near_goal})
        assert env.step(np.zeros(2, np.float32))[1] == pytest.approx(30.0, abs=0.01)
        env.close()
