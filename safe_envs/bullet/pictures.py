"""What the Bullet tasks look like from above."""

import math

import numpy as np
import numpy.typing as npt

from safe_envs.rendering.canvas import (
    FAINT,
    INK,
    PAPER,
    SAFE,
    SOFT_INK,
    WALL,
    Canvas,
    Frame,
    Point,
    View,
    turned_box,
    with_alpha,
)

CAR_BODY = (45, 92, 160)
WINDOW = (205, 222, 242)
BALL = (240, 178, 58)
BOX = (140, 98, 74)
PUDDLE = (92, 158, 214)

# The racecar as drawn, in meters from its center of mass.
FRONT_AXLE, REAR_AXLE, HALF_TRACK, TYRE = 0.37, -0.6, 0.35, (0.42, 0.17)
BODY_CENTER = (-0.1, 0.0)


def draw_car_circle(
    view: View,
    size: tuple[int, int],
    position: Point,
    yaw: float,
    *,
    steering: float,
    circle_radius: float,
) -> Frame:
    """Draws the arena, the circle to follow, and the car."""
    canvas = Canvas(PAPER, size, view)
    _draw_grid(canvas, 12)
    corners = [
        (13.0 * math.cos(angle), 13.0 * math.sin(angle))
        for angle in (math.pi / 8 + np.arange(8) * math.pi / 4)
    ]
    canvas.line(corners, WALL, width=7, closed=True)
    canvas.disc((0.0, 0.0), circle_radius, outline=with_alpha(SAFE, 0.55), width=3)
    for axle, turn in ((FRONT_AXLE, steering), (REAR_AXLE, 0.0)):
        for side in (-HALF_TRACK, HALF_TRACK):
            wheel = turned_box((0.0, 0.0), *TYRE, turn)
            on_car = [(x + axle, y + side) for x, y in wheel]
            canvas.polygon([_moved(point, position, yaw) for point in on_car], INK)
    middle = _moved(BODY_CENTER, position, yaw)
    canvas.polygon(turned_box(middle, 1.5, 0.54, yaw), CAR_BODY)
    canvas.polygon(turned_box(middle, 0.45, 0.44, yaw, (-0.12, 0.0)), WINDOW)
    canvas.polygon(turned_box(middle, 0.12, 0.54, yaw, (0.69, 0.0)), BALL)
    return canvas.frame()


def draw_ball_reach(
    view: View,
    size: tuple[int, int],
    *,
    ball: Point,
    box: Point,
    box_yaw: float,
    puddles: npt.NDArray[np.float64],
    goal: Point,
    goal_radius: float,
) -> Frame:
    """Draws the room, the puddles, the goal, the box and the ball."""
    canvas = Canvas(PAPER, size, view)
    _draw_grid(canvas, 10)
    canvas.line([(-10, -10), (10, -10), (10, 10), (-10, 10)], WALL, width=7, closed=True)
    for puddle in puddles:
        canvas.disc(puddle, 1.0, fill=with_alpha(PUDDLE, 0.75))
    canvas.disc(goal, goal_radius, fill=with_alpha(SAFE, 0.18), outline=SAFE, width=2.5)
    canvas.disc(goal, 0.16, fill=SAFE)
    canvas.polygon(turned_box(box, 1.0, 1.0, box_yaw), BOX)
    canvas.line(turned_box(box, 0.7, 0.7, box_yaw), (176, 132, 104), width=1.5, closed=True)
    canvas.disc(ball, 0.5, fill=BALL, outline=(196, 134, 22), width=1.5)
    canvas.disc((ball[0] - 0.16, ball[1] + 0.16), 0.13, fill=(255, 226, 160))
    return canvas.frame()


def _draw_grid(canvas: Canvas, half_size: int) -> None:
    for line in range(-half_size, half_size + 1, 2):
        color = SOFT_INK if line == 0 else FAINT
        color = with_alpha(color, 0.35) if line == 0 else color
        canvas.line([(line, -half_size), (line, half_size)], color, width=1)
        canvas.line([(-half_size, line), (half_size, line)], color, width=1)


def _moved(point: Point, position: Point, yaw: float) -> tuple[float, float]:
    """Returns a point of the car's frame in the world's."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    x, y = point
    return position[0] + cos * x - sin * y, position[1] + sin * x + cos * y
