"""What `RenderOverlay` draws into a picture: one painter for each cost function."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from safe_envs import costs
from safe_envs.rendering.canvas import SAFE, UNSAFE, Canvas, Frame, Point, turned_box, with_alpha
from safe_envs.rendering.gauges import Scene, draw_footer, gauges_of

NUM_SHADES = 40


def paint(frame: Frame, scene: Scene) -> Frame:
    """Draws the frame with everything drawn over it, and a footer with the gauges under it."""
    height, width = frame.shape[:2]
    canvas = Canvas(frame, view=getattr(scene.env, "view", None))
    if canvas.view is not None and scene.cost_fn in REGIONS:
        REGIONS[scene.cost_fn](canvas, scene)
    gauges = gauges_of(scene)
    if gauges[0].alarm:
        canvas.view = None
        edges = [(2, 2), (width - 3, 2), (width - 3, height - 3), (2, height - 3)]
        canvas.line(edges, UNSAFE, width=4, closed=True)
    return np.vstack([canvas.frame(), draw_footer(gauges, width)])


def paint_sector(canvas: Canvas, scene: Scene) -> None:
    """Draws the pendulum's unsafe sector, the redder the more it costs."""
    center = scene.cost_kwargs.get("center_deg", 25.0)
    half_width = scene.cost_kwargs.get("half_width_deg", 50.0)
    for share in np.linspace(1.0, 0.0, NUM_SHADES, endpoint=False):
        angles = center + share * half_width * np.linspace(-1.0, 1.0, 61)
        outside, inside = _arc(1.9, angles), _arc(0.22, angles[::-1])
        canvas.polygon([*outside, *inside], with_alpha(UNSAFE, 0.022))
    for edge in (center - half_width, center + half_width):
        canvas.line([*_arc(0.22, [edge]), *_arc(1.9, [edge])], UNSAFE, width=1.5)


def paint_region(canvas: Canvas, scene: Scene) -> None:
    """Draws the part of the plane that Reacher's fingertip should avoid, and the goal."""
    goal, center = scene.cost_kwargs["goal"], scene.cost_kwargs["unsafe_center"]
    radius = scene.cost_kwargs["unsafe_radius"]
    height = goal[2] - center[2]
    in_plane = math.sqrt(max(radius**2 - height**2, 0.0))
    for share in np.linspace(1.0, 0.0, NUM_SHADES, endpoint=False):
        canvas.disc(center[:2], in_plane * share, fill=with_alpha(UNSAFE, 0.022))
    canvas.disc(center[:2], in_plane, outline=UNSAFE, width=1.5)
    size = 0.02 * scene.env.view.half_size
    canvas.disc(goal[:2], 2 * size, outline=SAFE, width=2.5)
    canvas.disc(goal[:2], size / 2, fill=SAFE)


def paint_sides(canvas: Canvas, scene: Scene) -> None:
    """Draws the sides of the car's arena, where the circle leaves the safe band."""
    limit = scene.cost_kwargs.get("x_limit", 6.0)
    wall, diagonal = 11.8, 11.8 * math.sqrt(2.0)
    if limit >= wall:
        return
    inner, outer = min(wall, diagonal - limit), diagonal - wall
    bend = [(outer, wall)] if limit < outer else []
    upper = [(limit, inner), *bend, (wall, outer)]
    side = [*upper, *((x, -y) for x, y in reversed(upper))]
    for sign in (-1, 1):
        canvas.polygon([(sign * x, y) for x, y in side], with_alpha(UNSAFE, 0.2))
        canvas.line([(sign * limit, -inner), (sign * limit, inner)], UNSAFE, width=1.5)


def paint_obstacles(canvas: Canvas, scene: Scene) -> None:
    """Draws where the ball's center should not be: around each puddle, and next to the box."""
    for puddle in scene.env.layout.puddles:
        canvas.disc(puddle, 1.5, fill=with_alpha(UNSAFE, 0.16), outline=UNSAFE, width=1.5)
    box, yaw = scene.env.box_pose
    canvas.line(turned_box(box, 1.25, 1.25, yaw), UNSAFE, width=2.5, closed=True)


REGIONS: dict[Callable[..., Any] | None, Callable[[Canvas, Scene], None]] = {
    costs.pendulum_cost: paint_sector,
    costs.reacher_cost: paint_region,
    costs.car_circle_cost: paint_sides,
    costs.ball_reach_cost: paint_obstacles,
}


def _arc(radius: float, angles_deg: Iterable[float]) -> list[Point]:
    """Points at angles from upright, counter-clockwise, as the pendulum is drawn."""
    angles = [math.radians(angle) for angle in angles_deg]
    return [(-radius * math.sin(angle), radius * math.cos(angle)) for angle in angles]
