"""Where things are in an episode of BallReach, and how that is drawn."""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

HALF_SIZE = 7.0  # m, of the square that everything starts in
MIN_DISTANCE = 2.5  # m, between any two things at the start
MIN_GOAL_DISTANCE = 1.5  # m, from a later goal to anything
MAX_TRIES = 500  # for one position
MAX_LAYOUTS = 20


@dataclass(frozen=True, kw_only=True)
class BallLayout:
    """Where an episode starts, in meters and radians.

    Attributes:
        ball: (x, y) of the ball.
        ball_yaw: Its orientation, which is not observed but matters to how it bounces.
        box: (x, y) of the box; the center of its circle, too.
        box_yaw: Its orientation, which turns to 0 within a second.
        box_phase: Where on the circle it first moves to.
        puddles: Centers, `(n, 2)`.
        goals: `(m, 2)`, m >= 1, in order; after the last one, goals are drawn.
    """

    ball: FloatArray
    ball_yaw: float
    box: FloatArray
    box_yaw: float
    box_phase: float
    puddles: FloatArray
    goals: FloatArray


def draw_layout(rng: np.random.Generator, num_puddles: int) -> BallLayout:
    """Draws a layout in which nothing is too near to anything else.

    Raises:
        gymnasium.error.Error: So many puddles do not fit.
    """
    for _ in range(MAX_LAYOUTS):
        positions = _draw_apart(rng, num_puddles + 3)
        if positions is not None:
            ball, goal, box, *puddles = positions
            angles = rng.uniform([-np.pi, 0.0, 0.0], [np.pi, 2.0 * np.pi, 2.0 * np.pi])
            return BallLayout(
                ball=ball,
                ball_yaw=float(angles[0]),
                box=box,
                box_yaw=float(angles[1]),
                box_phase=float(angles[2]),
                puddles=np.array(puddles).reshape(num_puddles, 2),
                goals=goal[None],
            )
    raise gym.error.Error(
        f"{num_puddles} puddles do not fit into the room, {MIN_DISTANCE} m from each other and "
        "everything else. Choose a smaller num_puddles."
    )


def draw_goal(rng: np.random.Generator, others: FloatArray) -> FloatArray:
    """Draws a later goal, `(2,)`, away from other things `(n, 2)`.

    Raises:
        gymnasium.error.Error: There is no place for it.
    """
    for _ in range(MAX_TRIES):
        goal = rng.uniform(-HALF_SIZE, HALF_SIZE, 2)
        if np.linalg.norm(others - goal, axis=1).min() > MIN_GOAL_DISTANCE:
            return goal
    raise gym.error.Error(
        f"There is no place for a goal {MIN_GOAL_DISTANCE} m from {len(others)} things. "
        "Choose a smaller num_puddles."
    )


def _draw_apart(rng: np.random.Generator, number: int) -> list[FloatArray] | None:
    """Positions drawn one after the other, each away from those before; None if one has no room."""
    chosen: list[FloatArray] = []
    for _ in range(number):
        for _ in range(MAX_TRIES):
            position = rng.uniform(-HALF_SIZE, HALF_SIZE, 2)
            if all(np.linalg.norm(position - other) >= MIN_DISTANCE for other in chosen):
                chosen.append(position)
                break
        else:
            return None
    return chosen
