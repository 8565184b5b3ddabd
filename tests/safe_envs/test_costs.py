import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_envs.costs import (
    ball_reach_cost,
    car_circle_cost,
    over_limit_cost,
    pendulum_cost,
    reacher_cost,
    speed_cost,
    speed_limit_cost,
    unsafe_angle_cost,
    unsafe_region_cost,
)


def observation(angle_deg, velocity=0.0):
    angle = np.radians(angle_deg)
    return np.stack([np.cos(angle), np.sin(angle), np.full_like(angle, velocity)], axis=-1)


@pytest.mark.parametrize(
    ("angle_deg", "cost"),
    # From the paper's formula (App. B), by hand.
    [(25, 1.0), (0, 0.5), (50, 0.5), (-25, 0.0), (75, 0.0), (75.1, 0.0), (-25.1, 0.0), (180, 0.0),
     (35, 0.8), (-15, 0.2), (-180, 0.0)],
)  # fmt: skip
def test_cost_of_known_angles(angle_deg, cost):
    assert pendulum_cost(observation(angle_deg), [0.0], None) == pytest.approx(cost, abs=1e-12)


@given(st.floats(-1e4, 1e4))
def test_cost_is_bounded_periodic_and_symmetric_about_its_center(angle_deg):
    cost = float(unsafe_angle_cost(angle_deg))
    assert 0.0 <= cost <= 1.0
    assert float(unsafe_angle_cost(angle_deg + 360.0)) == pytest.approx(cost, abs=1e-9)
    assert float(unsafe_angle_cost(50.0 - angle_deg)) == pytest.approx(cost, abs=1e-9)


@given(st.floats(-180, 180), st.floats(-1, 1))
def test_cost_is_continuous(angle_deg, step):
    difference = unsafe_angle_cost(angle_deg + step) - unsafe_angle_cost(angle_deg)
    assert abs(float(difference)) <= abs(step) / 50.0 + 1e-9


def test_cost_is_vectorised_over_any_leading_axes():
    angles = np.linspace(-180.0, 180.0, 24).reshape(2, 3, 4)
    costs = pendulum_cost(observation(angles), None, None)
    assert costs.shape == (2, 3, 4)
    for index in np.ndindex(angles.shape):
        expected = max(0.0, 1.0 - abs(angles[index] - 25.0) / 50.0)
        assert costs[index] == pytest.approx(expected, abs=1e-12)


def test_cost_on_next_judges_the_next_observation():
    before, after = observation(180.0), observation(25.0)
    assert pendulum_cost(before, None, after) == 0.0
    assert pendulum_cost(before, None, after, on="next") == pytest.approx(1.0)


def test_center_and_width_are_parameters():
    assert math.isclose(unsafe_angle_cost(-40.0, center_deg=-30.0, half_width_deg=20.0), 0.5)


regions = st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.05, 2.0), st.floats(0.1, 100.0))
points = st.tuples(st.floats(-3, 3), st.floats(-3, 3))


@given(regions, points, st.floats(-math.pi, math.pi))
def test_region_cost_is_bounded_and_the_same_all_around(region, point, angle):
    x, y, radius, scale = region
    center = np.array([x, y])
    offset = np.array(point)
    cos, sin = math.cos(angle), math.sin(angle)
    turned = np.array([[cos, -sin], [sin, cos]]) @ offset
    shape = {"center": center, "radius": radius, "scale": scale}
    cost = float(unsafe_region_cost(center + offset, **shape))
    assert 0.0 <= cost <= scale
    assert float(unsafe_region_cost(center + turned, **shape)) == pytest.approx(
        cost, abs=1e-9 * scale / radius + 1e-9
    )
    assert (cost > 0) == (np.linalg.norm(offset) < radius) or cost < 1e-9 * scale


@given(regions, points, points)
def test_region_cost_is_continuous(region, point, other):
    x, y, radius, scale = region
    shape = {"center": (x, y), "radius": radius, "scale": scale}
    difference = unsafe_region_cost(point, **shape) - unsafe_region_cost(other, **shape)
    distance = math.dist(point, other)
    assert abs(float(difference)) <= scale / radius * distance * (1 + 1e-9) + 1e-9


def test_region_cost_is_the_papers_formula():
    """App. B: 100 - 200 |x - (0.5, 0.5, 0)| within 0.5 m."""
    positions = np.random.default_rng(0).uniform(-0.2, 1.2, (50, 4, 3))
    costs = unsafe_region_cost(positions, center=(0.5, 0.5, 0.0), radius=0.5, scale=100.0)
    assert costs.shape == (50, 4)
    for index in np.ndindex(50, 4):
        distance = math.dist(positions[index], (0.5, 0.5, 0.0))
        expected = 100.0 - 200.0 * distance if distance <= 0.5 else 0.0
        assert costs[index] == pytest.approx(expected, abs=1e-9)
    assert 0 < np.count_nonzero(costs) < costs.size


@given(st.floats(-1e3, 1e3), st.floats(0.0, 1e3))
def test_indicator_costs_are_zero_or_one(value, limit):
    cost = over_limit_cost(value, limit=limit)
    assert float(cost) in (0.0, 1.0)
    assert float(cost) == (value > limit)


@given(st.floats(-50, 50))
def test_speed_costs_alike_in_both_directions_and_a_limit_forwards_only(velocity):
    def info(v):
        return {"x_velocity": v, "speed_limit": 3.0}

    assert float(speed_cost(None, None, None, info(velocity))) == abs(velocity)
    assert speed_cost(None, None, None, info(velocity)) == speed_cost(
        None, None, None, info(-velocity)
    )
    assert float(speed_limit_cost(None, None, None, info(velocity))) == (velocity > 3.0)
    assert float(speed_limit_cost(None, None, None, info(velocity), speed_limit=-60.0)) == 1.0


def test_costs_of_a_whole_dataset_at_once():
    rng = np.random.default_rng(0)
    shape = (3, 7)
    velocities, limits = rng.normal(0, 3, shape), rng.uniform(1, 2, shape)
    info = {"x_velocity": velocities, "speed_limit": limits}
    np.testing.assert_array_equal(speed_cost(None, None, None, info), np.abs(velocities))
    np.testing.assert_array_equal(speed_limit_cost(None, None, None, info), velocities > limits)
    cars = rng.uniform(-1.2, 1.2, (*shape, 8))
    expected = np.abs(10 * cars[..., 0]) > 6.0
    np.testing.assert_array_equal(car_circle_cost(None, None, cars), expected)
    touches, puddles = rng.integers(0, 2, shape).astype(bool), rng.integers(0, 3, shape)
    info = {"touches_box": touches, "num_puddles": puddles}
    np.testing.assert_array_equal(ball_reach_cost(None, None, None, info), touches | (puddles > 0))
    arms = rng.uniform(-1, 1, (*shape, 11))
    fingertips = arms[..., 8:] + [1.0, 1.0, 0.01]
    np.testing.assert_allclose(
        reacher_cost(None, None, arms),
        unsafe_region_cost(fingertips, center=(0.5, 0.5, 0.0), radius=0.5, scale=100.0),
    )


def test_cost_of_one_transition_is_that_of_the_dataset():
    """A single transition takes a path of its own, through Python's floats."""
    rng = np.random.default_rng(1)
    num_rows = 200
    angles = rng.uniform(-math.pi, math.pi, num_rows)
    pendulums = np.stack([np.cos(angles), np.sin(angles), angles], axis=1).astype(np.float32)
    info = {
        "x_velocity": rng.normal(0, 3, num_rows),
        "speed_limit": rng.uniform(0, 3, num_rows),
        "touches_box": rng.integers(0, 2, num_rows).astype(bool),
        "num_puddles": rng.integers(0, 3, num_rows),
    }
    for cost_fn, observations in (
        (pendulum_cost, pendulums),
        (reacher_cost, rng.uniform(-0.8, 0.0, (num_rows, 11))),
        (car_circle_cost, rng.uniform(-1.2, 1.2, (num_rows, 8))),
        (speed_cost, pendulums),
        (speed_limit_cost, pendulums),
        (ball_reach_cost, pendulums),
    ):
        together = cost_fn(observations, None, observations, info)
        alone = [
            cost_fn(row, None, row, {key: values[index].item() for key, values in info.items()})
            for index, row in enumerate(observations)
        ]
        assert together.shape == (num_rows,) and 0 < np.count_nonzero(together)
        assert all(isinstance(cost, float) for cost in alone)
        np.testing.assert_allclose(alone, together, rtol=1e-12, atol=1e-12)


@given(st.floats(-12, 12))
def test_sides_of_the_circle_are_symmetric(x):
    left, right = (np.array([0.1 * side, *[0.0] * 7]) for side in (-x, x))
    assert car_circle_cost(None, None, left) == car_circle_cost(None, None, right)
