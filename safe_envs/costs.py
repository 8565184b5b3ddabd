"""Cost functions: pure, vectorized, and usable on any environment through `CostSignal`.

A cost function judges one transition. It is called as

    cost_fn(observation, action, next_observation, info) -> cost

where every array may have leading batch dimensions (a whole dataset at once) and `info` is the
step's info, whose entries then are arrays too. The cost of the transition t -> t+1 is charged at t.

The first half of the module has the shapes that costs take, as functions of what is measured; the
second half says what each task measures.

Some functions treat a single transition apart, on Python's own floats: that is what an environment
asks for at every step, and NumPy takes five times as long for one number. Tests hold the two
together.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Cost = Array | float
CostFunction = Callable[..., Any]
Info = Mapping[str, Any]


def cone(distance: Cost, radius: float, height: float = 1.0) -> Cost:
    """Returns `height` at no distance, falling in a straight line to 0 at `radius` and beyond."""
    value = height - height / radius * distance
    return max(0.0, value) if isinstance(value, float) else np.maximum(0.0, value)


def unsafe_angle_cost(
    angle_deg: npt.ArrayLike, *, center_deg: float = 25.0, half_width_deg: float = 50.0
) -> Cost:
    """Returns a triangular cost near an angle: `max(0, 1 - |angle - center| / half_width)`.

    Args:
        angle_deg: Angle in degrees, any shape; equal modulo 360.
        center_deg: Angle of the largest cost, in degrees.
        half_width_deg: Distance from the center at which the cost becomes zero, in degrees, in
            (0, 180].

    Returns:
        Cost in [0, 1], shape of `angle_deg`.

    Source: Lin et al. 2023, App. B; Sootla et al. 2022 (unsafe 20..30 degrees, hazard zone 45).
    """
    angle = angle_deg if isinstance(angle_deg, float) else np.asarray(angle_deg)
    return cone(abs((angle - center_deg + 180.0) % 360.0 - 180.0), half_width_deg)


def unsafe_region_cost(
    position: npt.ArrayLike, *, center: Sequence[float], radius: float, scale: float = 1.0
) -> Cost:
    """Returns a conical cost in a ball: `scale * max(0, 1 - |position - center| / radius)`.

    Args:
        position: `(*, n)`, in meters.
        center: `(n,)`, where the cost is largest.
        radius: Distance from the center at which the cost becomes zero, > 0.
        scale: Cost at the center.

    Returns:
        Cost in [0, scale], shape `(*,)`.

    Source: Lin et al. 2023, App. B: 100 - 200 |x - x_unsafe| is a radius of 0.5 and a scale of 100.
    """
    offset = np.asarray(position, np.float64) - center
    return cone(np.sqrt(np.vecdot(offset, offset)), radius, scale)


def over_limit_cost(value: npt.ArrayLike | float, *, limit: npt.ArrayLike | float) -> Cost:
    """Returns an indicator cost: 1 where `value > limit`, else 0.

    Args:
        value: Any shape and unit.
        limit: Broadcastable to it, same unit; `inf` means no limit.

    Returns:
        0.0 or 1.0, the broadcast shape.
    """
    if isinstance(value, float) and isinstance(limit, float):
        return float(value > limit)
    return np.asarray(np.greater(value, limit), np.float64)


def pendulum_cost(
    observation: npt.ArrayLike,
    action: npt.ArrayLike,
    next_observation: npt.ArrayLike,
    info: Info | None = None,
    *,
    center_deg: float = 25.0,
    half_width_deg: float = 50.0,
    on: Literal["current", "next"] = "current",
) -> Cost:
    """Returns the cost of the pendulum's angle, 0.5 when it stands upright.

    Args:
        observation: `(*, 3)`: cosine and sine of the angle from upright, angular velocity [rad/s].
        action: Not used.
        next_observation: Like `observation`, after the step.
        info: Not used.
        center_deg: Middle of the unsafe sector, degrees from upright.
        half_width_deg: Half of its width, degrees.
        on: Whether the angle before or after the step is judged. The paper's c(s, a) and its code
            judge the angle before it.

    Returns:
        Cost in [0, 1], shape `(*,)`.
    """
    del action, info
    judged = np.asarray(observation if on == "current" else next_observation)
    if judged.ndim == 1:
        angle_deg: Cost = math.degrees(math.atan2(judged[1], judged[0]))
    else:
        judged = judged.astype(np.float64)
        angle_deg = np.degrees(np.arctan2(judged[..., 1], judged[..., 0]))
    return unsafe_angle_cost(angle_deg, center_deg=center_deg, half_width_deg=half_width_deg)


def reacher_cost(
    observation: npt.ArrayLike,
    action: npt.ArrayLike,
    next_observation: npt.ArrayLike,
    info: Info | None = None,
    *,
    goal: Sequence[float] = (1.0, 1.0, 0.01),
    unsafe_center: Sequence[float] = (0.5, 0.5, 0.0),
    unsafe_radius: float = 0.5,
    cost_scale: float = 100.0,
) -> Cost:
    """Returns the cost of the fingertip in the unsafe region after the step.

    Args:
        observation: Not used.
        action: Not used.
        next_observation: `(*, 11)`; its last three entries are the fingertip minus the goal [m].
        info: Not used.
        goal: `(3,)` [m], to find the fingertip by. This and the defaults below are Sauté's.
        unsafe_center: `(3,)` [m].
        unsafe_radius: In meters.
        cost_scale: Cost at the center.

    Returns:
        Cost in [0, cost_scale], shape `(*,)`. With Sauté's values the arm reaches no more than
        0.56, because its reach ends 3 mm inside the region.
    """
    del observation, action, info
    observed = np.asarray(next_observation)
    if observed.ndim == 1:
        dx, dy, dz = observed[8:11].tolist()
        fingertip = (goal[0] + dx, goal[1] + dy, goal[2] + dz)
        return cone(math.dist(fingertip, unsafe_center), unsafe_radius, cost_scale)
    return unsafe_region_cost(
        observed[..., 8:11].astype(np.float64) + goal,
        center=unsafe_center,
        radius=unsafe_radius,
        scale=cost_scale,
    )


def speed_cost(
    observation: npt.ArrayLike, action: npt.ArrayLike, next_observation: npt.ArrayLike, info: Info
) -> Cost:
    """Returns the speed itself, whichever way it goes: `|v|`.

    Args:
        observation: Not used.
        action: Not used.
        next_observation: Not used.
        info: Has `"x_velocity"`, `(*,)`: forward velocity of the torso over the step [m/s].

    Returns:
        Cost >= 0 in m/s, shape `(*,)`.

    Source: Lin et al. 2023, App. B, after FOCOPS (Zhang et al. 2020). The reference code charges
    the velocity of a step to the next one; here, a step pays for itself.
    """
    del observation, action, next_observation
    speed: Cost = np.abs(info["x_velocity"])
    return speed


def speed_limit_cost(
    observation: npt.ArrayLike,
    action: npt.ArrayLike,
    next_observation: npt.ArrayLike,
    info: Info,
    *,
    speed_limit: npt.ArrayLike | None = None,
) -> Cost:
    """Returns the indicator of driving too fast: `1(v > limit)`.

    Args:
        observation: Not used.
        action: Not used.
        next_observation: Not used.
        info: Has `"x_velocity"`, `(*,)` [m/s], forwards positive; going backwards costs nothing.
        speed_limit: In m/s. None reads `info["speed_limit"]`, which `SpeedLimit` adds and which may
            differ from episode to episode.

    Returns:
        0.0 or 1.0, shape `(*,)`.

    Source: the velocity tasks of safety-gymnasium (Ji et al. 2023).
    """
    del observation, action, next_observation
    limit = info["speed_limit"] if speed_limit is None else speed_limit
    return over_limit_cost(info["x_velocity"], limit=limit)


def car_circle_cost(
    observation: npt.ArrayLike,
    action: npt.ArrayLike,
    next_observation: npt.ArrayLike,
    info: Info | None = None,
    *,
    x_limit: float = 6.0,
) -> Cost:
    """Returns 1 outside the band that the circle does not fit into, else 0: `1(|x| > x_limit)`.

    Args:
        observation: Not used.
        action: Not used.
        next_observation: `(*, 8)`, whose first entry is a tenth of x [m].
        info: Not used.
        x_limit: In meters.

    Returns:
        0.0 or 1.0, shape `(*,)`.

    Source: Lin et al. 2023, App. B; Bullet-Safety-Gym (Gronauer 2022), CircleTask.
    """
    del observation, action, info
    observed = np.asarray(next_observation)
    x = observed.item(0) if observed.ndim == 1 else observed[..., 0]
    return over_limit_cost(10.0 * abs(x), limit=x_limit)


def ball_reach_cost(
    observation: npt.ArrayLike, action: npt.ArrayLike, next_observation: npt.ArrayLike, info: Info
) -> Cost:
    """Returns the indicator of a collision: `min(1, [ball touches box] + puddles under the ball)`.

    Args:
        observation: Not used.
        action: Not used.
        next_observation: Not used.
        info: Has `"touches_box"`, `(*,)`, 0 or 1, and `"num_puddles"`, `(*,)`: puddles whose
            center is within the radii of puddle and ball, after the step.

    Returns:
        0.0 or 1.0, shape `(*,)`.

    Source: Bullet-Safety-Gym (Gronauer 2022), ReachGoalTask.
    """
    del observation, action, next_observation
    touches_box, num_puddles = info["touches_box"], info["num_puddles"]
    if isinstance(num_puddles, int):
        return float(touches_box or num_puddles > 0)
    return np.asarray(np.greater(touches_box, 0) | np.greater(num_puddles, 0), np.float64)


# Those that are called as (observation, action, next_observation, info), by their short names.
COST_FUNCTIONS: dict[str, CostFunction] = {
    "pendulum": pendulum_cost,
    "reacher": reacher_cost,
    "speed": speed_cost,
    "speed_limit": speed_limit_cost,
    "car_circle": car_circle_cost,
    "ball_reach": ball_reach_cost,
}
