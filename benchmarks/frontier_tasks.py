"""The `frontier` preset against its rivals on the other tasks: small runs.

    python benchmarks/frontier_tasks.py safe/CarCircle-v0 [--episodes 10] [--workers 2]

Needs the task's dataset (`trebi collect`). One training per method. Finished jobs are kept in
runs/frontier-tasks, so that an interrupted benchmark continues. Writes
results/frontier/<task>.json; benchmarks/frontier_tasks_report.py makes a table of all of them.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from safe_diffusion_agent import pipeline
from safe_diffusion_agent.collection import default_dataset_id
from safe_diffusion_agent.data import load_episodes
from safe_diffusion_agent.evaluation import EvaluationConfig
from safe_diffusion_agent.methods import load_agent
from safe_diffusion_agent.provenance import provenance

ROOT = Path(__file__).parent.parent
RUNS, RESULTS = ROOT / "runs" / "frontier-tasks", ROOT / "results" / "frontier"
START_SEED = 3000
# The paper's planner and losses, on the networks of the quick preset.
PAPER = {
    "time_to_go": False, "windows": "inside", "standardize_values": False, "clean_share": 0.0,
    "cost_quantile": None, "budget_margin": 0.0, "clip": False, "penalty": 1000.0,
    "guidance_on": "mean", "num_unguided_steps": 0,
}  # fmt: skip
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "frontier": ("trebi", "frontier", {}),
    "caps": ("caps", "quick", {}),
    "quick": ("trebi", "quick", {}),
    "the paper's planner, small networks": ("trebi", "quick", PAPER),
}
Job = tuple[str, str, int]  # method, dataset id, episodes


def run_job(job: Job) -> dict[str, Any]:
    """Trains and evaluates one method."""
    torch.set_num_threads(1)
    name, dataset_id, num_episodes = job
    method, preset, settings = METHODS[name]
    folder = RUNS / dataset_id.split("/")[1] / name.split()[-1]
    pipeline.train(
        dataset_id, folder, method=method, preset=preset, device="cpu", settings=settings
    )
    agent = load_agent(folder, device="cpu")
    config = EvaluationConfig(num_episodes=num_episodes, seed=START_SEED)
    evaluated = pipeline.evaluate(agent, folder / f"evaluation-{num_episodes}", config=config)
    return {
        "name": name,
        "method": method,
        "preset": preset,
        "margin": getattr(agent, "margin", None),
        "model_errors": agent.about.get("model_errors"),
        "trusted_steps": _trusted_steps(agent),
        "budgets": evaluated["budgets"],
    }


def _trusted_steps(agent: Any) -> int | None:
    dynamics = getattr(getattr(agent, "networks", None), "dynamics", None)
    return None if dynamics is None else int(dynamics.trusted_steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_id")
    parser.add_argument("--quality", default="replay")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    dataset_id = default_dataset_id(options.env_id, options.quality)
    episodes = load_episodes(dataset_id)
    jobs = [(name, dataset_id, options.episodes) for name in METHODS]
    with ProcessPoolExecutor(options.workers) as pool:
        results = list(track(pool.map(run_job, jobs), options.env_id, total=len(jobs)))
    document = {
        "env_id": options.env_id,
        "command": f"python benchmarks/frontier_tasks.py {options.env_id} --quality "
        f"{options.quality} --episodes {options.episodes}",
        "provenance": provenance(),
        "dataset": {
            "id": dataset_id,
            "num_steps": len(episodes.rewards),
            "num_episodes": len(episodes.lengths),
            "max_budget": episodes.max_budget,
            "behavior_policy": episodes.metadata.get("behavior_policy"),
        },
        "methods": results,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = dataset_id.split("/")[1]
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
