import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("mujoco")
from safe_envs import TASKS, VectorBudgetObservation  # noqa: E402
from safe_envs.locomotion import SPEED_LIMITS  # noqa: E402

ROBOTS = ["HalfCheetah", "Hopper", "Walker2d"]
robots = pytest.mark.parametrize("robot", ROBOTS)


@robots
def test_episode_is_gymnasiums_and_costs_its_speed(robot):
    """The speed is that of the root's joint, taken from MuJoCo's state before and after."""
    ours, theirs = gym.make(f"safe/{robot}-v0"), gym.make(f"{robot}-v5")
    np.testing.assert_array_equal(ours.reset(seed=1)[0], theirs.reset(seed=1)[0])
    rng = np.random.default_rng(1)
    terminated = truncated = False
    num_steps = 0
    while not (terminated or truncated) and num_steps < 200:
        action = rng.uniform(-1, 1, ours.action_space.shape).astype(np.float32)
        before = ours.unwrapped.data.qpos[0]
        obs, reward, terminated, truncated, info = ours.step(action)
        their_obs, their_reward, their_terminated, *_ = theirs.step(action)
        np.testing.assert_array_equal(obs, their_obs)
        assert (reward, terminated) == (their_reward, their_terminated)
        dt = {"HalfCheetah": 0.05}.get(robot, 0.008)
        speed = abs(ours.unwrapped.data.qpos[0] - before) / dt
        assert info["cost"] == pytest.approx(speed, abs=1e-9)
        num_steps += 1
    assert num_steps > 5


@robots
def test_speed_limit_costs_one_above_it_forwards_only(robot):
    env = (
        gym.make(f"safe/{robot}-v0", cost="speed_limit", terminate_when_unhealthy=False)
        if (robot != "HalfCheetah")
        else gym.make("safe/HalfCheetah-v0", cost="speed_limit")
    )
    limit = SPEED_LIMITS[robot]
    env.reset(seed=0)
    task = env.unwrapped
    for velocity in (-2.0 * limit, 0.9 * limit, 1.1 * limit):
        qvel = np.zeros_like(task.data.qvel)
        qvel[0] = velocity
        task.set_state(task.init_qpos.copy(), qvel)
        *_, info = env.step(np.zeros(env.action_space.shape, np.float32))
        assert info["speed_limit"] == limit
        assert info["cost"] == float(info["x_velocity"] > limit)
        assert (info["cost"] == 1.0) == (velocity > limit)


def test_speed_limit_of_one_episode_and_of_the_next():
    env = gym.make("safe/HalfCheetah-v0", cost="speed_limit", speed_limit=(1.0, 2.0))
    _, info = env.reset(seed=0, options={"speed_limit": 0.25})
    assert info["speed_limit"] == 0.25
    env.get_wrapper_attr("set_speed_limit")(0.5)
    *_, info = env.step(env.action_space.sample())
    assert info["speed_limit"] == 0.5
    drawn = [env.reset(seed=seed)[1]["speed_limit"] for seed in range(30)]
    assert 1.0 <= min(drawn) < 1.1 and 1.9 < max(drawn) <= 2.0
    assert drawn == [env.reset(seed=seed)[1]["speed_limit"] for seed in range(30)]


def test_speed_limit_can_be_observed():
    env = gym.make("safe/Hopper-v0", cost="speed_limit", observe_speed_limit=True)
    obs, info = env.reset(seed=0)
    assert obs.shape == (12,) and obs[-1] == info["speed_limit"] == SPEED_LIMITS["Hopper"]
    assert env.observation_space.contains(obs)
    assert env.step(env.action_space.sample())[0][-1] == info["speed_limit"]


def test_vector_environments_have_a_speed_limit_each():
    envs = VectorBudgetObservation(
        gym.make_vec("safe/Hopper-v0", 3, cost="speed_limit", speed_limit=(0.1, 2.0)), budget=5.0
    )
    _, info = envs.reset(seed=0)
    assert len(set(info["speed_limit"])) == 3
    *_, info = envs.step(envs.action_space.sample())
    np.testing.assert_array_equal(info["cost"], info["x_velocity"] > info["speed_limit"])


def test_friction_of_the_d4rl_walker_can_be_had_back():
    """v2 to v4 slide on both feet alike; v5 has 1.9 on the left and on the right."""
    feet = {}
    for name, options in (("v5", {}), ("v2", {"xml_file": "walker2d.xml"})):
        model = gym.make("safe/Walker2d-v0", **options).unwrapped.model
        feet[name] = [model.geom(foot).friction[0] for foot in ("foot_geom", "foot_left_geom")]
    assert feet["v5"] == [1.9, 1.9]
    assert feet["v2"] == [0.9, 1.9]


def test_positions_can_be_observed():
    sizes = {"HalfCheetah": 18, "Hopper": 12, "Walker2d": 18}
    for robot, size in sizes.items():
        options = {"exclude_current_positions_from_observation": False}
        assert gym.make(f"safe/{robot}-v0", **options).observation_space.shape == (size,)


def test_falls_can_be_ignored():
    env = gym.make("safe/Hopper-v0", terminate_when_unhealthy=False)
    env.reset(seed=0)
    assert not any(env.step(np.ones(3, np.float32))[2] for _ in range(200))


def test_cheetah_is_made_without_a_warning_and_a_log_file(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    gym.make("safe/HalfCheetah-v0").reset(seed=0)
    assert "settotalmass" not in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bad_limits_are_refused_in_mid_episode():
    env = gym.make("safe/Hopper-v0", cost="speed_limit")
    set_limit = env.get_wrapper_attr("set_speed_limit")
    with pytest.raises(gym.error.ResetNeeded):
        set_limit(1.0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="zero or more"):
        set_limit(float("nan"))
    with pytest.raises(ValueError, match="zero or more"):
        env.reset(options={"speed_limit": -2.0})


@pytest.mark.parametrize("robot", ["Hopper", "Walker2d"])
def test_fall_costs_the_largest_budget_where_budgets_are_sums(robot):
    """Everything else is the published task's: the same actions, the same speeds."""
    summed, published = gym.make(f"safe/{robot}Sum-v0"), gym.make(f"safe/{robot}-v0")
    summed.reset(seed=3)
    published.reset(seed=3)
    terminated = False
    while not terminated:
        action = np.zeros(summed.action_space.shape, np.float32)
        obs, reward, terminated, truncated, info = summed.step(action)
        expected = published.step(action)
        np.testing.assert_array_equal(obs, expected[0])
        assert (reward, terminated, truncated) == expected[1:4]
        fall = TASKS[f"safe/{robot}Sum-v0"].max_budget if terminated else 0.0
        assert info["cost"] == expected[4]["cost"] + fall
    with pytest.raises(ValueError, match="0 or more"):
        gym.make(f"safe/{robot}-v0", terminal_cost=-1.0)
