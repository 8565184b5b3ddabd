"""Pictures of results. Every function draws into a new figure and writes it to a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from safe_diffusion_agent.evaluation.protocol import EpisodeResult
from safe_diffusion_agent.storage import write_atomically

BLUE, RED, GRAY = "#3b6fb6", "#c0392b", "#7f7f7f"
COLORS = (BLUE, "#2e8b57", "#e08214", "#8e5ea2", "#b8860b", "#17a2b8", "#d6618f", "#6b8e23")


@dataclass(frozen=True, kw_only=True)
class ComparisonPanel:
    """One task of a comparison.

    Attributes:
        name: Its title.
        episodes: Label of a method -> its evaluated episodes.
        lines: Label -> return of a policy that keeps no budget.
        optimum: Ratio -> most return that this budget allows, where it is known.
    """

    name: str
    episodes: Mapping[str, Sequence[EpisodeResult]]
    lines: Mapping[str, float]
    optimum: Mapping[float, float] = field(default_factory=dict)


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a figure atomically, in the format of the file's ending."""
    with matplotlib.rc_context({"svg.hashsalt": "safe-diffusion-agent"}):
        write_atomically(
            path,
            lambda file: figure.savefig(
                file, format=path.suffix[1:], dpi=150, bbox_inches="tight", metadata={}
            ),
        )


def draw_comparison(
    panels: Sequence[ComparisonPanel], path: Path, *, title: str = "", random_ratios: bool = False
) -> None:
    """Draws methods side by side, a column per task (Lin et al. 2023, Fig. 1 to 3, 5, 6; 8 to 11).

    Above, normalized cost; below, return. Boxes per budget, or, with random budgets, points.

    Args:
        panels: One per task.
        path: Picture to write.
        title: Title of the picture.
        random_ratios: Whether every episode has a budget of its own.
    """
    figure = Figure(figsize=(1.0 + 6.5 * len(panels), 6.0))
    grid = figure.subplots(2, len(panels), sharex=True, squeeze=False)
    draw = _draw_points if random_ratios else _draw_boxes
    for (top, bottom), panel in zip(grid.T, panels, strict=True):
        draw(top, panel, "normalized_cost")
        draw(bottom, panel, "episode_return")
        top.axhline(1.0, color=RED, linestyle="--", linewidth=1.2)
        if random_ratios:  # next to no budget is exceeded by hundreds of times
            top.set_yscale("symlog", linthresh=2.0)
        costs = [row.normalized_cost for rows in panel.episodes.values() for row in rows]
        low, high = top.get_ylim()
        top.set_ylim(0.0 if min(costs, default=0.0) >= 0.0 else low, max(1.15, high))
        top.text(0.0, 1.0, " budget", transform=top.get_yaxis_transform(), color=RED, va="bottom")
        top.set_title(panel.name)
        bottom.set_xlabel("budget / maximum budget")
        for (name, value), style in zip(panel.lines.items(), cycle(("--", ":", "-.", (0, (6, 1))))):
            bottom.axhline(value, color=GRAY, linestyle=style, linewidth=1.2, label=name)
        if panel.optimum:
            ratios, returns = zip(*sorted(panel.optimum.items()), strict=True)
            positions = ratios if random_ratios else range(len(ratios))
            bottom.plot(positions, returns, color="black", linewidth=1.0, label="optimum")
        for axes in (top, bottom):
            axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("episode cost / budget")
    grid[1, 0].set_ylabel("return")
    handles, labels = grid[1, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=5, frameon=False
    )
    figure.suptitle(title)
    write_figure(figure, path)


def _draw_boxes(axes: Any, panel: ComparisonPanel, name: str) -> None:
    ratios = sorted({row.ratio for rows in panel.episodes.values() for row in rows})
    width = 0.8 / max(1, len(panel.episodes))  # there may be lines alone
    for index, ((label, rows), color) in enumerate(zip(panel.episodes.items(), cycle(COLORS))):
        values = [[getattr(row, name) for row in rows if row.ratio == ratio] for ratio in ratios]
        offset = (index + 0.5) * width - 0.4
        axes.boxplot(
            values,
            positions=np.arange(len(ratios)) + offset,
            whis=1.5,
            widths=0.8 * width,
            showmeans=True,
            patch_artist=True,
            boxprops={"facecolor": color, "edgecolor": color, "alpha": 0.55},
            whiskerprops={"color": color},
            capprops={"color": color},
            medianprops={"color": "black", "linewidth": 1.2},
            meanprops={
                "marker": "o", "markersize": 3,
                "markerfacecolor": "black", "markeredgecolor": "black",
            },
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": color},
        )  # fmt: skip
        axes.plot([], [], color=color, linewidth=6, alpha=0.55, label=label)
    axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])


def _draw_points(axes: Any, panel: ComparisonPanel, name: str) -> None:
    for (label, rows), color in zip(panel.episodes.items(), cycle(COLORS)):
        values = [getattr(row, name) for row in rows]
        axes.plot([row.ratio for row in rows], values, ".", color=color, alpha=0.7, label=label)


def draw_losses(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draws training losses against the optimizer step, one panel per loss."""
    names = list(dict.fromkeys(name for row in history for name in row if name != "step"))
    figure = Figure(figsize=(3.2 * len(names), 2.6))
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        steps, values = zip(*((row["step"], row[name]) for row in history if name in row))
        axes.plot(steps, values, color=BLUE, linewidth=1.2)
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
    write_figure(figure, path)


def draw_dataset(
    returns: npt.NDArray[np.float64],
    costs: npt.NDArray[np.float64],
    *,
    max_budget: float,
    ratios: Sequence[float],
    snapshots: Sequence[Mapping[str, float]],
    path: Path,
    title: str,
    discounted: bool,
) -> None:
    """Draws a dataset: return against cost, costs, share within each budget, learning curve.

    Args:
        returns: `(E,)`, of the episodes in the order of collection.
        costs: `(E,)`.
        max_budget: In cost units.
        ratios: Budgets to draw, as shares of it.
        snapshots: `step` and `mean_return` of the policy in the course of its training.
        path: Picture to write.
        title: Title of the picture.
        discounted: Whether the costs are.
    """
    figure = Figure(figsize=(13.0, 3.0))
    scatter, histogram, shares, curve = panels = figure.subplots(1, 4)
    points = scatter.scatter(costs, returns, c=np.arange(len(costs)), s=8, cmap="viridis")
    figure.colorbar(points, ax=scatter, label="episode")
    histogram.hist(costs, bins=40, color=BLUE)
    name = "discounted episode cost" if discounted else "episode cost"
    for axes in (scatter, histogram):
        for ratio in ratios:
            axes.axvline(ratio * max_budget, color=RED, linestyle="--", linewidth=0.8)
        axes.set_xlabel(f"{name} (red: budgets)")
    scatter.set_ylabel("return")
    histogram.set_ylabel("episodes")
    within = [float((costs <= ratio * max_budget).mean()) for ratio in ratios]
    bars = shares.bar([f"{ratio:g}" for ratio in ratios], within, color=BLUE)
    shares.bar_label(bars, [f"{share:.0%}" for share in within], fontsize=8)
    shares.set_ylim(0.0, 1.1)
    shares.set_xlabel("budget / maximum budget")
    shares.set_ylabel("share of episodes within")
    if snapshots:
        steps = [snapshot["step"] for snapshot in snapshots]
        curve.plot(steps, [s["mean_return"] for s in snapshots], color=BLUE, marker=".")
        curve.set_xlabel("steps of SAC")
        curve.set_ylabel("return of its policy")
    else:
        curve.set_axis_off()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.tight_layout()
    write_figure(figure, path)
