"""Draws one decision: what each candidate would return and cost, and where the budget is."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from safe_diffusion_agent.figures import BLUE, GRAY, RED, write_figure
from safe_diffusion_agent.inspection import Decision


def draw_decision(decision: Decision, path: Path) -> None:
    """Left: the environment, and over it where the candidates go, as far as it can show that.

    Right: return against cost up to the end of the episode.

    With `judge="frontier"` a line per candidate is what it and the best continuations can reach,
    the dashed line what the critic alone foresees. Otherwise a point is a candidate's prediction.
    """
    has_frame = decision.frame is not None
    figure = Figure(figsize=(9.0 if has_frame else 5.5, 3.8))
    widths = {"width_ratios": [1.0, 1.5]} if has_frame else None
    panels = figure.subplots(1, 1 + has_frame, squeeze=False, gridspec_kw=widths)[0]
    if decision.frame is not None:
        panels[0].imshow(decision.frame)
        panels[0].set_axis_off()
        _draw_paths(panels[0], decision)
    axes = panels[-1]
    _draw_candidates(axes, decision)
    allowed = decision.remaining_budget - decision.margin
    if np.isfinite(allowed):
        axes.axvline(allowed, color="black", linewidth=1.2)
        axes.text(allowed, 1.0, " budget", transform=axes.get_xaxis_transform(), va="top")
    feasible = "feasible" if decision.plan.feasible[0] else "no candidate fits"
    axes.set_title(f"{decision.remaining_steps} steps left, {feasible}")
    axes.set_xlabel("cost up to the end of the episode")
    axes.set_ylabel("return up to the end")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    write_figure(figure, path)


def _draw_paths(axes: Any, decision: Decision) -> None:
    candidates = decision.plan.candidates
    if decision.paths is None or candidates is None:
        return
    for path in decision.paths:
        axes.plot(*path.T, color=BLUE, alpha=0.4, linewidth=0.8)
    axes.plot(*decision.paths[int(candidates.chosen[0])].T, color=RED, linewidth=1.5)


def _draw_candidates(axes: Any, decision: Decision) -> None:
    candidates = decision.plan.candidates
    assert candidates is not None
    chosen = int(candidates.chosen[0])
    if decision.curves is None or decision.frontier is None:
        costs, returns = candidates.predicted_cost[0], candidates.predicted_return[0]
        axes.scatter(costs, returns, color=BLUE, s=16, label="candidates")
        axes.scatter(costs[chosen], returns[chosen], color=RED, s=40, label="chosen")
        return
    costs, returns = decision.curves
    for index in range(len(costs)):
        label = "candidates" if index == 0 else None
        axes.plot(costs[index], returns[index], color=BLUE, alpha=0.3, linewidth=0.8, label=label)
    axes.plot(*decision.frontier, color=GRAY, linestyle="--", label="critic alone")
    axes.plot(costs[chosen], returns[chosen], color=RED, marker=".", label="chosen")
