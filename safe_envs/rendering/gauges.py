"""The gauges under a picture of `RenderOverlay`: cost or speed, and the budget."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safe_envs import costs
from safe_envs.rendering.canvas import INK, SAFE, SOFT_INK, UNSAFE, WARNING, Canvas, Color, Frame

TRACK: Color = (222, 226, 232)
FOOTER_HEIGHT, MARGIN, GAP, BAR_HEIGHT = 54, 16.0, 28.0, 10.0  # pixels


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is to be shown.

    Attributes:
        env: The unwrapped environment.
        cost_fn: Function that judges it, or None.
        cost_kwargs: Its keyword arguments.
        info: Of the last step.
        budget_left: What is not spent, in units of the first step; None without a budget.
        full_budget: What a full bar means, in the same units.
        affordable_cost: Cost per step that would spend the budget exactly, or None.
    """

    env: Any
    cost_fn: Callable[..., Any] | None
    cost_kwargs: Mapping[str, Any]
    info: Mapping[str, Any]
    budget_left: float | None
    full_budget: float
    affordable_cost: float | None


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """A bar with two texts over it.

    Attributes:
        label: Text on the left.
        value: Text on the right.
        share: How full the bar is, in [0, 1].
        color: Of the bar.
        mark: Where a mark is, in [0, 1], or None.
        alarm: Whether what it shows is unsafe.
    """

    label: str
    value: str
    share: float
    color: Color
    mark: float | None = None
    alarm: bool = False


def gauges_of(scene: Scene) -> list[Gauge]:
    """Returns what the cost measures, and the budget if there is one."""
    measures_speed = scene.cost_fn in (costs.speed_cost, costs.speed_limit_cost)
    gauges = [_speed_gauge(scene) if measures_speed else _cost_gauge(scene)]
    if scene.budget_left is not None:
        gauges.append(_budget_gauge(scene.budget_left, scene.full_budget))
    return gauges


def draw_footer(gauges: Sequence[Gauge], width: int) -> Frame:
    """Draws the gauges side by side, `(FOOTER_HEIGHT, width, 3)`."""
    canvas = Canvas((255, 255, 255), (width, FOOTER_HEIGHT))
    each = (width - 2 * MARGIN - GAP * (len(gauges) - 1)) / len(gauges)
    for index, gauge in enumerate(gauges):
        start = MARGIN + index * (each + GAP)
        _draw_gauge(canvas, gauge, start, start + each)
    return canvas.frame()


def _cost_gauge(scene: Scene) -> Gauge:
    """Returns the cost of the last step."""
    cost = float(scene.info.get("cost", 0.0))
    largest = max(float(scene.cost_kwargs.get("cost_scale", 1.0)), cost)
    return Gauge(
        label="cost of the step",
        value=f"{cost:.2f}",
        share=cost / largest,
        color=UNSAFE,
        alarm=cost > 0.0,
    )


def _speed_gauge(scene: Scene) -> Gauge:
    """Returns the speed, and what it is measured against."""
    velocity = float(scene.info.get("x_velocity", 0.0))
    if scene.cost_fn is costs.speed_cost:
        speed, mark, name = abs(velocity), scene.affordable_cost, "budget allows"
    else:
        limit = scene.cost_kwargs.get("speed_limit")
        mark = scene.info.get("speed_limit") if limit is None else limit
        speed, name = max(velocity, 0.0), "limit"
    over = mark is not None and speed > mark
    scale = max(1.6 * (mark or 0.0), 1.1 * speed, 1.0)
    return Gauge(
        label=f"{velocity:.2f} m/s",
        value="" if mark is None else f"{name} {mark:.2f}",
        share=speed / scale,
        color=UNSAFE if over else SAFE,
        mark=None if mark is None else mark / scale,
        alarm=over,
    )


def _budget_gauge(left: float, full: float) -> Gauge:
    """Returns the budget that is left, in a color that changes as it empties."""
    if math.isinf(full):
        return Gauge(label="budget", value="unlimited", share=1.0, color=SAFE)
    share = max(left, 0.0) / full if full > 0 else 0.0
    return Gauge(
        label="budget left" if left >= 0 else "over budget by",
        value=f"{_number(left)} of {_number(full)}" if left >= 0 else _number(-left),
        share=share,
        color=SAFE if share > 0.5 else WARNING if share > 0.2 else UNSAFE,
        alarm=left < 0,
    )


def _draw_gauge(canvas: Canvas, gauge: Gauge, x0: float, x1: float) -> None:
    base_line, top = 22.0, 31.0
    size = min(14.0, 0.08 * (x1 - x0))  # both texts find room in small pictures, too
    canvas.text((x0, base_line), gauge.label, SOFT_INK, size)
    canvas.text((x1, base_line), gauge.value, UNSAFE if gauge.alarm else INK, size, anchor="rs")
    round_end = BAR_HEIGHT / 2
    canvas.rectangle((x0, top), (x1, top + BAR_HEIGHT), TRACK, radius=round_end)
    if gauge.share > 0.0:
        end = max(x0 + gauge.share * (x1 - x0), x0 + BAR_HEIGHT)
        canvas.rectangle((x0, top), (end, top + BAR_HEIGHT), gauge.color, radius=round_end)
    if gauge.mark is not None:
        x = x0 + gauge.mark * (x1 - x0)
        canvas.line([(x, top - 4), (x, top + BAR_HEIGHT + 4)], INK, width=2.5)


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
