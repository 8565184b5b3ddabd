"""Cost functions: pure, vectorised, and usable on any environment through `CostSignal`.

A cost function judges one transition. It is called as

    cost_fn(observation, action, next_observation, info) -> cost

where every array may have leading batch dimensions (a whole dataset at once) and `info` is the
step's info, whose entries then are arrays too. The cost of the transition t -> t+1 is charged at t.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
CostFunction = Callable[..., Any]


def unsafe_angle_cost(
    angle_deg: npt.ArrayLike, *, center_deg: float = 25.0, half_width_deg: float = 50.0
) -> Array:
    """Triangular cost of being near an unsafe angle: `max(0, 1 - |angle - center| / half_width)`.

    Args:
        angle_deg: Angle in degrees, any shape; equal modulo 360.
        center_deg: Angle of the largest cost, in degrees.
        half_width_deg: Distance from the center at which the cost becomes zero, in degrees, in
            (0, 180].

    Returns:
        Cost in [0, 1], shape of `angle_deg`.

    Source: Lin et al. 2023, App. B; Sootla et al. 2022 (unsafe 20..30 degrees, hazard zone 45).
    """
    distance = np.abs((np.asarray(angle_deg) - center_deg + 180.0) % 360.0 - 180.0)
    return np.maximum(0.0, 1.0 - distance / half_width_deg)


def pendulum_cost(
    observation: npt.ArrayLike,
    action: npt.ArrayLike,
    next_observation: npt.ArrayLike,
    info: Mapping[str, Any] | None = None,
    *,
    center_deg: float = 25.0,
    half_width_deg: float = 50.0,
    on: Literal["current", "next"] = "current",
) -> Array:
    """Cost of the pendulum's angle, 0.5 when it stands upright (see `unsafe_angle_cost`).

    Args:
        observation: `(*, 3)`: cosine and sine of the angle from upright, angular velocity [rad/s].
        action: Not used.
        next_observation: Like `observation`, after the step.
        info: Not used.
        center_deg: See `unsafe_angle_cost`.
        half_width_deg: See `unsafe_angle_cost`.
        on: Whether the angle before or after the step is judged. The paper's c(s, a) and its code
            judge the angle before it.

    Returns:
        Cost in [0, 1], shape `(*,)`.
    """
    del action, info
    judged = np.asarray(observation if on == "current" else next_observation, dtype=np.float64)
    angle_deg = np.degrees(np.arctan2(judged[..., 1], judged[..., 0]))
    return unsafe_angle_cost(angle_deg, center_deg=center_deg, half_width_deg=half_width_deg)
