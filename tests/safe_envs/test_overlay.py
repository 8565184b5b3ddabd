import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import HumanRendering

from safe_envs import TASKS, BudgetObservation, CostSignal, RenderOverlay
from safe_envs.rendering.canvas import SAFE, UNSAFE, WARNING, Canvas, View, turned_box
from safe_envs.rendering.gauges import FOOTER_HEIGHT, Scene, draw_footer, gauges_of

VARIANTS = [
    *((env_id, {}) for env_id in TASKS),
    ("safe/Reacher-v0", {"geometry": "reachable"}),
    ("safe/Hopper-v0", {"cost": "speed_limit"}),
    ("safe/CarCircle-v0", {"variant": "dsrl", "x_limit": 3.0}),
    ("safe/BallReach-v0", {"num_puddles": 0}),
]


def rendered(env, num_steps=3):
    """A picture after some steps; skips where the machine has no OpenGL, and says so."""
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(num_steps):
        env.step(env.action_space.sample())
    try:
        frame = env.render()
    except gym.error.DependencyNotInstalled as error:
        assert "apt-get install" in str(error)
        pytest.skip(str(error))
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    return frame


@pytest.mark.parametrize(("env_id", "options"), VARIANTS)
def test_draws_over_every_task(env_id, options):
    env = gym.make(env_id, render_mode="rgb_array", **options)
    plain = rendered(env)
    overlaid = RenderOverlay(BudgetObservation(env, TASKS[env_id].max_budget))
    frame = rendered(overlaid)
    env.close()
    assert plain.std() > 5
    assert frame.shape == (plain.shape[0] + FOOTER_HEIGHT, *plain.shape[1:])
    changed = (frame[: plain.shape[0]] != plain).any(axis=2).mean()
    if any(robot in env_id for robot in ("Cheetah", "Hopper", "Walker")):
        assert changed < 0.05  # a speed has no place in the picture, but the gauge below
    else:
        assert 0.001 < changed < 0.7


@pytest.mark.parametrize("env_id", TASKS)
def test_same_state_same_picture(env_id):
    frames = []
    for _ in range(2):
        env = RenderOverlay(BudgetObservation(gym.make(env_id, render_mode="rgb_array"), 9.0))
        frames.append(rendered(env))
        env.close()
    np.testing.assert_array_equal(*frames)


@pytest.mark.parametrize("env_id", ["safe/Pendulum-v0", "safe/CarCircle-v0", "safe/BallReach-v0"])
def test_shows_a_window(env_id):
    """With SDL's dummy driver; MuJoCo's own window needs a screen."""
    env = gym.make(env_id, render_mode="human")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.render() is None
    env.close()


@pytest.mark.parametrize("env_id", ["safe/BallReach-v0"])
def test_shows_the_overlay_in_a_window(env_id):
    env = gym.make(env_id, render_mode="rgb_array")
    env = HumanRendering(RenderOverlay(BudgetObservation(env, 9.0)))
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()


@pytest.mark.parametrize("env_id", ["safe/CarCircle-v0", "safe/BallReach-v0"])
def test_without_a_render_mode_there_is_no_picture(env_id):
    env = gym.make(env_id).unwrapped
    env.reset(seed=0)
    assert env.render() is None


def test_works_without_a_budget_and_with_any_cost():
    env = CostSignal(gym.make("Pendulum-v1", render_mode="rgb_array"), lambda *_: 0.25)
    assert rendered(RenderOverlay(env)).shape == (500 + FOOTER_HEIGHT, 500, 3)
    env.close()


def test_other_render_modes_are_refused():
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        RenderOverlay(gym.make("safe/Pendulum-v0"))


def test_pendulums_sector_is_where_the_cost_is():
    """The pixel at each angle, half-way along the pole, is red exactly where the cost is not 0."""
    env = RenderOverlay(gym.make("safe/Pendulum-v0", render_mode="rgb_array", mode="deterministic"))
    frame = rendered(env, num_steps=0).astype(int)
    env.close()
    for angle_deg in range(-120, 121, 10):
        angle = math.radians(angle_deg)
        x, y = -1.5 * math.sin(angle), 1.5 * math.cos(angle)  # counter-clockwise from upright
        column, row = 250 + x * 500 / 4.4, 250 - y * 500 / 4.4
        red, green, _ = frame[round(row), round(column)]
        assert (red - green > 5) == (-25 < angle_deg < 75), angle_deg


def test_reachers_region_and_goal_are_where_mujoco_draws_the_target():
    """The dark red ball of MuJoCo's picture is under the ring of the overlay."""
    env = gym.make("safe/Reacher-v0", geometry="reachable", render_mode="rgb_array")
    plain = rendered(env, num_steps=1).astype(int)
    view = env.unwrapped.view
    env.close()
    column, row = view.pixel((0.14, 0.14), (480, 480))
    red, green, blue = plain[round(row), round(column)]
    assert red > 1.5 * green and red > 1.5 * blue
    elsewhere = plain[round(row), round(480 - column)]
    assert abs(elsewhere[0] - elsewhere[1]) < 30


def scene(**changes):
    defaults = {
        "env": None, "cost_fn": None, "cost_kwargs": {}, "info": {"cost": 0.0},
        "budget_left": None, "full_budget": 0.0, "affordable_cost": None,
    }  # fmt: skip
    return Scene(**(defaults | changes))


@pytest.mark.parametrize(
    ("left", "share", "color"),
    [(30.0, 1.0, SAFE), (12.0, 0.4, WARNING), (3.0, 0.1, UNSAFE), (0.0, 0.0, UNSAFE),
     (-3.0, 0.0, UNSAFE)],
)  # fmt: skip
def test_budget_bar_empties(left, share, color):
    gauge = gauges_of(scene(budget_left=left, full_budget=30.0))[1]
    assert gauge.share == pytest.approx(share)
    assert gauge.color == color
    assert gauge.alarm == (left < 0)
    footer = draw_footer([gauge], 400)[36, :, :3].astype(int)
    length = np.abs(footer - color[:3]).max(axis=1) < 12
    assert length.mean() == pytest.approx(share * (400 - 32) / 400, abs=0.02)


def test_unlimited_budget_is_full():
    gauge = gauges_of(scene(budget_left=math.inf, full_budget=math.inf))[1]
    assert (gauge.share, gauge.value) == (1.0, "unlimited")


def test_bar_of_a_discounted_budget_never_fills_up_again():
    """z_t itself grows at every step by 1 / gamma; what is not spent of b only shrinks."""
    env = gym.make("safe/HalfCheetah-v0", render_mode="rgb_array")
    overlay = RenderOverlay(BudgetObservation(env, 50.0))
    overlay.reset(seed=0)
    spent, lefts = 0.0, []
    for step in range(30):
        *_, info = overlay.step(overlay.action_space.sample())
        spent += 0.99**step * info["cost"]
        lefts.append(overlay._budget_left())
        assert lefts[-1] == pytest.approx(50.0 - spent)
    assert (np.diff(lefts) <= 1e-9).all()
    overlay.get_wrapper_attr("set_remaining_budget")(500.0)
    assert overlay._budget_left() == pytest.approx(500.0 * 0.99**30)


@pytest.mark.parametrize("env_id", ["safe/HalfCheetah-v0", "safe/BallReach-v0"])
def test_affordable_speed_spends_the_budget_exactly(env_id):
    env = RenderOverlay(BudgetObservation(gym.make(env_id, render_mode="rgb_array"), 40.0))
    _, info = env.reset(seed=0)
    affordable, discount = env._affordable_cost(), TASKS[env_id].cost_discount
    steps = np.arange(info["remaining_steps"])
    assert affordable * (discount**steps).sum() == pytest.approx(40.0)


def test_view_maps_metres_to_pixels():
    view = View(center=(1.0, -2.0), half_size=4.0)
    assert view.pixel((1.0, -2.0), (200, 100)) == (100.0, 50.0)
    assert view.pixel((1.0, 2.0), (200, 100)) == (100.0, 0.0)
    assert view.scale((200, 100)) == 12.5
    canvas = Canvas((255, 255, 255), (200, 100), view)
    canvas.disc((3.0, -1.0), 0.5, fill=(0, 0, 0))
    dark = np.argwhere(canvas.frame()[..., 0] < 128)
    assert dark.mean(axis=0)[::-1] == pytest.approx(view.pixel((3.0, -1.0), (200, 100)), abs=0.6)
    assert len(dark) == pytest.approx(math.pi * (0.5 * 12.5) ** 2, rel=0.1)


def test_turned_box_turns_and_shifts_in_its_own_frame():
    corners = turned_box((1.0, 1.0), 4.0, 2.0, math.pi / 2, (1.0, 0.0))
    expected = [(0.0, 4.0), (0.0, 0.0), (2.0, 0.0), (2.0, 4.0)]
    np.testing.assert_allclose(corners, expected, atol=1e-12)
