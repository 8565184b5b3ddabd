import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_envs.costs import pendulum_cost, unsafe_angle_cost


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
