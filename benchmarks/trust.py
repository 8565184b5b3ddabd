"""Does an agent know whether it can keep a budget? Risks, forecasts, shifts, budgets that move.

    python benchmarks/trust.py [--task safe/Pendulum-v0] [--presets frontier,quick] [--seeds 0]

Needs the task's dataset (`trebi collect`). Trains the agents, or takes one with --agent FOLDER.
Start states are those of seed 7000, which nothing was tuned on. Finished parts are kept in
runs/trust, so that an interrupted benchmark continues. Writes results/trust/<task>.json, a table
(.md) and pictures (.png) beside it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from trust_forecasts import agent_forecasts, behavior_forecasts, call_times
from trust_measures import (
    RATIOS,
    adaptive,
    guard,
    moving_budgets,
    risk_curve,
    shifted_risk_curves,
)
from trust_report import write_report
from trust_settings import SHIFTS

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.data.collection import default_dataset_id
from safe_diffusion_agent.experiments import stages as pipeline
from safe_diffusion_agent.storage import provenance

ROOT = Path(__file__).parent.parent
RUNS, RESULTS = ROOT / "runs" / "trust", ROOT / "results" / "trust"
# More imagined episodes than the preset's, so that a risk of 0.02 can be asked for.
TRAINING: dict[str, dict[str, Any]] = {"frontier": {"calibration_episodes": 200}}
# Each is called with the agent and the number of episodes per setting.
PARTS = {
    "risk": lambda agent, num: risk_curve(agent, SHIFTS[0], RATIOS, num),
    "forecasts": lambda agent, num: agent_forecasts(agent, 20 * num),
    "behavior": lambda agent, num: behavior_forecasts(agent, 20 * num),
    "moving": lambda agent, num: moving_budgets(agent, num),
    "times": lambda agent, num: call_times(agent),
    "shifts": lambda agent, num: shifted_risk_curves(agent, max(1, num // 2)),
    "guard": guard,
    "adaptive": lambda agent, num: adaptive(agent, lanes=8, num=2 * num),
}
ONLY_FRONTIER = ("shifts", "guard")  # the longest, and the one that needs one-step models


def name_of(env_id: str) -> str:
    """`safe/Pendulum-v0` -> `pendulum`."""
    return env_id.split("/")[1].partition("-")[0].lower()


def trained_agent(task: str, dataset_id: str, preset: str, seed: int) -> Path:
    folder = RUNS / name_of(task) / f"{preset}-seed{seed}"
    settings = TRAINING.get(preset, {})
    pipeline.train(dataset_id, folder, preset=preset, seed=seed, device="cpu", settings=settings)
    return folder


def measure(folder: Path, keep: Path, part: str, num: int) -> Any:
    """One part of one agent, from the file that keeps it or anew."""
    output = keep / f"{part}-{num}.json"
    if not output.exists():
        agent = TrebiAgent.load(folder, device="cpu", risk=None, budget_margin=0.0)
        if part in ONLY_FRONTIER and agent.config.model.judge != "frontier":
            return []
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(PARTS[part](agent, num)))
    return json.loads(output.read_text())


def about_agent(folder: Path) -> dict[str, Any]:
    agent = TrebiAgent.load(folder, device="cpu", risk=None)
    scores = vars(agent.calibration).items()
    return {
        "preset": agent.config.preset,
        "dataset": agent.task.dataset_id,
        "max_budget": agent.task.max_budget,
        "num_scores": {name: len(values) for name, values in scores if values is not None},
        "seed": agent.about["seed"],
        "trained_by": agent.about["provenance"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="safe/Pendulum-v0")
    parser.add_argument("--dataset", help="default: what `trebi collect` makes for the task")
    parser.add_argument("--presets", default="frontier,quick")
    parser.add_argument("--seeds", default="0", help="of the trainings")
    parser.add_argument("--agent", help="folder of a trained agent, instead of presets and seeds")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--episodes", type=int, default=15, help="per setting")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset_id = options.dataset or default_dataset_id(options.task, "replay")
    if options.agent:
        folders = [Path(options.agent)]
    else:
        folders = [
            trained_agent(options.task, dataset_id, preset, int(seed))
            for preset in options.presets.split(",")
            for seed in options.seeds.split(",")
        ]
    task = name_of(options.task)
    agents = []
    for folder in folders:
        keep = RUNS / task / f"measured-{folder.parent.name}-{folder.name}"
        parts = {
            part: measure(folder, keep, part, options.episodes)
            for part in track(options.parts.split(","), folder.name)
        }
        agents.append(about_agent(folder) | parts)
    document = {
        "task": options.task,
        "num_episodes": options.episodes,
        "provenance": provenance(),
        "agents": agents,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{task}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    write_report(path)


if __name__ == "__main__":
    main()
