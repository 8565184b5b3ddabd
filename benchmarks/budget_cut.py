"""How well an agent keeps a budget that is cut in mid-episode, on SafePendulum.

    python benchmarks/budget_cut.py [--agent pendulum] [--episodes 20]

Episodes start with the maximum budget; at some step what remains is set to a smaller value. What
was spent from then on is reported. Some of these cuts may be impossible to keep by any policy: the
pendulum may be in mid-swing. Writes results/quickstart/budget_cut.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from rich.progress import track

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.evaluation.rollout import rollout, start_seed
from safe_diffusion_agent.evaluation.statistics import wilson_interval
from safe_diffusion_agent.storage import provenance

ENV_ID = "safe/Pendulum-v0"
STEPS = (20, 40, 60, 80, 100, 120, 140, 160)
OUTPUT = Path(__file__).parent.parent / "results" / "quickstart" / "budget_cut.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default="pendulum")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--before", type=float, default=60.0)
    parser.add_argument("--after", type=float, default=8.0)
    options = parser.parse_args()
    seeds = [start_seed(2000, episode) for episode in range(options.episodes)]
    rows = []
    for step in track(STEPS, "cut at step"):
        agent = TrebiAgent.load(options.agent, device="cpu")
        run = rollout(
            agent.act,
            ENV_ID,
            [options.before] * options.episodes,
            seeds,
            budget_changes={step: options.after},
        )
        later = run.costs[step:].sum(axis=0)
        kept = int((later <= options.after).sum())
        rows.append(
            {
                "step": step,
                "num_episodes": options.episodes,
                "num_kept": kept,
                "kept_wilson_95": wilson_interval(kept, options.episodes),
                "median_later_cost": float(np.median(later)),
                "max_later_cost": float(later.max()),
            }
        )
    document = {
        "agent": options.agent,
        "before": options.before,
        "after": options.after,
        "cuts": rows,
        "provenance": provenance(),
    }
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
