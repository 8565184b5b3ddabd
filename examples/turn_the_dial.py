"""Raises and cuts the budget in the middle of the episode, and draws what the agent does."""

import argparse
from pathlib import Path

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.evaluation.figures import draw_budget_over_time
from safe_diffusion_agent.evaluation.rollout import Rollout, rollout, start_seed

TURNED_AT = 40  # step

# Label -> budget at the start, and remaining budgets set before a step.
SCHEDULES: dict[str, tuple[float, dict[int, float]]] = {
    "60, never changed": (60.0, {}),
    "60, cut to 8": (60.0, {TURNED_AT: 8.0}),
    "8, raised to 60": (8.0, {TURNED_AT: 60.0}),
}


def main(
    path: str = "turn_the_dial.png", num_episodes: int = 20, agent_path: str = "pendulum"
) -> dict[str, Rollout]:
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
    draw_budget_over_time(runs, Path(path), title=title, marked_step=TURNED_AT)
    return runs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", default="turn_the_dial.png", help="picture to write")
    main(**vars(parser.parse_args()))
