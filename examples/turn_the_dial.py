"""Raises and cuts the budget in the middle of the episode, and draws what the agent does."""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.evaluation.figures import BLUE, GRAY, RED, write_figure
from safe_diffusion_agent.evaluation.rollout import Rollout, rollout, start_seed

TURNED_AT = 40  # step

# Label -> budget at the start, and remaining budgets set before a step.
SCHEDULES: dict[str, tuple[float, dict[int, float]]] = {
    "60, never changed": (60.0, {}),
    "60, cut to 8": (60.0, {TURNED_AT: 8.0}),
    "8, raised to 60": (8.0, {TURNED_AT: 60.0}),
}


def main(path: str = "turn_the_dial.png", num_episodes: int = 20, agent_path: str = "pendulum"):
    runs = {}
    seeds = [start_seed(0, episode) for episode in range(num_episodes)]
    for label, (budget, changes) in SCHEDULES.items():
        agent = TrebiAgent.load(agent_path)
        runs[label] = rollout(
            agent.act, "safe/Pendulum-v0", [budget] * num_episodes, seeds, budget_changes=changes
        )
        later = runs[label].costs[TURNED_AT:].sum(axis=0)
        print(f"{label}: cost after that: mean {later.mean():.1f}, largest {later.max():.1f}")
    title = f"SafePendulum, budget turned at step {TURNED_AT}: {num_episodes} episodes each"
    draw(runs, Path(path), title)


def draw(runs: dict[str, Rollout], path: Path, title: str) -> None:
    """Remaining budget and spent cost over time: the mean of each run, and all episodes faintly."""
    figure = Figure(figsize=(7.5, 4.6))
    panels = figure.subplots(2, 1, sharex=True)
    for (label, run), color in zip(runs.items(), (GRAY, RED, BLUE), strict=True):
        series = (run.remaining_budgets, np.cumsum(run.costs, axis=0))
        for axes, values in zip(panels, series, strict=True):
            axes.plot(values, color=color, alpha=0.15, linewidth=0.8)
            axes.plot(values.mean(axis=1), color=color, linewidth=2, label=label)
    for axes, name in zip(panels, ("remaining budget", "cost so far"), strict=True):
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.axvline(TURNED_AT, color="black", linestyle=":", linewidth=1)
    panels[0].set_title(title, pad=26)
    panels[0].axhline(0.0, color="black", linewidth=0.8)
    panels[0].legend(frameon=False, ncols=len(runs), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    panels[-1].set_xlabel("step")
    write_figure(figure, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", default="turn_the_dial.png", help="picture to write")
    main(**vars(parser.parse_args()))
