"""Bad options of every task: what is said, and that it is said when the task is made."""

import math

import gymnasium as gym
import pytest

from safe_envs import TASKS
from safe_envs.checks import check_choice, check_count, check_number, check_vector

NAN = math.nan

BAD_OPTIONS = {
    "Pendulum": [
        ({"mode": "tets"}, ValueError, "mode should be one of"),
        ({"reward": "sauce"}, ValueError, "reward should be one of"),
        ({"cost_on": "previous"}, ValueError, "cost_on should be one of"),
        ({"action_scale": NAN}, ValueError, "action_scale should be a positive number"),
        ({"action_scale": -1.0}, ValueError, "action_scale should be a positive number"),
        ({"half_width_deg": 0.0}, ValueError, "half_width_deg should be a positive number"),
        ({"half_width_deg": "50"}, TypeError, "half_width_deg should be a number"),
        ({"unsafe_center_deg": NAN}, ValueError, "unsafe_center_deg should be a finite number"),
    ],
    "Reacher": [
        ({"geometry": "sauce"}, ValueError, "geometry should be one of"),
        ({"goal": (1.0, 2.0)}, ValueError, "goal should be 3 finite numbers"),
        ({"goal": "there"}, ValueError, "goal should be 3 finite numbers"),
        ({"unsafe_center": (1.0, 2.0, NAN)}, ValueError, "unsafe_center should be 3 finite"),
        ({"unsafe_radius": 0.0}, ValueError, "unsafe_radius should be a positive number"),
        ({"unsafe_radius": "1"}, TypeError, "unsafe_radius should be a number"),
        ({"cost_scale": -1.0}, ValueError, "cost_scale should be a positive number"),
    ],
    "CarCircle": [
        ({"variant": "dslr"}, ValueError, "variant should be one of"),
        ({"x_limit": NAN}, ValueError, "x_limit should be a positive number"),
        ({"x_limit": "6"}, TypeError, "x_limit should be a number"),
        ({"render_mode": "ansi"}, ValueError, "render_mode should be"),
        ({"width": -1}, ValueError, "width should be 1 or more"),
        ({"height": 1.5}, TypeError, "height should be a whole number"),
    ],
    "BallReach": [
        ({"num_puddles": -1}, ValueError, "num_puddles should be 0 or more"),
        ({"num_puddles": 2.5}, TypeError, "num_puddles should be a whole number"),
        ({"num_puddles": 60}, gym.error.Error, "Choose a smaller num_puddles"),
        ({"goal_bonus": NAN}, ValueError, "goal_bonus should be a finite number"),
        ({"goal_bonus": "a lot"}, TypeError, "goal_bonus should be a number"),
        ({"width": 0}, ValueError, "width should be 1 or more"),
    ],
}
BAD_OPTIONS["ReacherReachable"] = BAD_OPTIONS["Reacher"]
BAD_OF_EVERY_ROBOT = [
    ({"cost": "velocity"}, ValueError, "cost should be one of"),
    ({"speed_limit": 1.0}, ValueError, "belong to cost='speed_limit'"),
    ({"cost": "speed_limit", "speed_limit": -1.0}, ValueError, "zero or more"),
    ({"cost": "speed_limit", "speed_limit": NAN}, ValueError, "zero or more"),
    ({"cost": "speed_limit", "speed_limit": "fast"}, TypeError, "should be a number"),
    ({"cost": "speed_limit", "speed_limit": (2.0, 1.0)}, ValueError, "low <= high"),
]
CASES = [
    (env_id, *case)
    for env_id in TASKS
    for case in BAD_OPTIONS.get(env_id[5:-3], BAD_OF_EVERY_ROBOT)
    + [({"colour": "red"}, TypeError, "unexpected keyword argument 'colour'")]
]


@pytest.mark.parametrize(("env_id", "options", "error", "message"), CASES)
def test_bad_options_are_refused_when_the_task_is_made(env_id, options, error, message):
    with pytest.raises(error, match=message):
        gym.make(env_id, **options)


@pytest.mark.parametrize(
    ("env_id", "options", "error", "message"),
    [
        ("safe/Pendulum-v0", {"state": [1.0]}, ValueError, "state should be 2 finite numbers"),
        ("safe/Pendulum-v0", {"state": [NAN, 0.0]}, ValueError, "state should be 2 finite"),
        ("safe/CarCircle-v0", {"start": 3}, TypeError, "should be a CarStart"),
        ("safe/BallReach-v0", {"layout": "wide"}, TypeError, "should be a BallLayout"),
    ],
)
def test_bad_options_of_a_reset_are_refused(env_id, options, error, message):
    env = gym.make(env_id)
    with pytest.raises(error, match=message):
        env.reset(options=options)
    env.close()


def test_what_is_right_is_accepted():
    check_choice("a", "letter", ("b", "a"))
    check_number(-1.5, "number")
    check_number(3, "number", positive=True)
    check_count(0, "count")
    assert check_vector((1, 2), "point", 2, "(x, y)").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("flag", [True, None])
def test_a_flag_is_not_a_number(flag):
    with pytest.raises(TypeError, match="should be a number"):
        check_number(flag, "number")
    with pytest.raises(TypeError, match="should be a whole number"):
        check_count(flag, "count")
