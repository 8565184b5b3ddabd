"""The `frontier` preset against its rivals on the other tasks: small runs.

    python benchmarks/frontier_tasks.py safe/CarCircle-v0 [--episodes 10] [--workers 2]

Needs the task's dataset (`trebi collect`). One training per method. Finished jobs are kept in
runs/frontier-tasks, so that an interrupted benchmark continues. Writes
results/frontier/<task>.json, and results/frontier/tasks.md from all of these files.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from frontier import START_SEED, timed_train
from rich.progress import track

from safe_diffusion_agent.data.collection import default_dataset_id
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.experiments import stages as pipeline
from safe_diffusion_agent.methods.table import load_agent
from safe_diffusion_agent.storage import provenance

ROOT = Path(__file__).parent.parent
RUNS, RESULTS = ROOT / "runs" / "frontier-tasks", ROOT / "results" / "frontier"
DISCOUNTED = "frontier, discounted return"  # as the costs are, where they are
NO_MARGIN = "frontier, no margin"  # the agent of the first line, with risk=None
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "frontier": ("trebi", "frontier", {}),
    NO_MARGIN: ("trebi", "frontier", {}),
    DISCOUNTED: ("trebi", "frontier", {"discount": None}),
    "caps": ("caps", "quick", {}),
    "quick": ("trebi", "quick", {}),
    "the paper's planner, small": ("trebi", "small", {}),
}
Job = tuple[str, str, int]  # method, dataset id, episodes


def run_job(job: Job) -> dict[str, Any]:
    """Trains and evaluates one method."""
    torch.set_num_threads(1)
    name, dataset_id, num_episodes = job
    method, preset, settings = METHODS[name]
    planner = {"risk": None} if name == NO_MARGIN else {}
    parent = RUNS / dataset_id.removeprefix("safe-envs/").replace("/", "-")
    folder = parent / ("frontier" if planner else name.split()[-1])
    training_seconds = timed_train(
        dataset_id, folder, method=method, preset=preset, device="cpu", settings=settings
    )
    agent = load_agent(folder, device="cpu", **planner)
    config = EvaluationConfig(num_episodes=num_episodes, seed=START_SEED)
    results = f"evaluation-{num_episodes}" + "-no-margin" * bool(planner)
    evaluated = pipeline.evaluate(agent, folder / results, config=config)
    return {
        "name": name,
        "method": method,
        "preset": preset,
        "training_seconds": training_seconds,
        "margin": getattr(agent, "margin", None),
        "model_errors": agent.about.get("model_errors"),
        "trusted_steps": _trusted_steps(agent),
        "branches": agent.about.get("branches"),
        "milliseconds_per_act": milliseconds_per_act(agent),
        "budgets": evaluated["budgets"],
    }


def milliseconds_per_act(agent: Any, num_calls: int = 20) -> float:
    """Median CPU time of one `act` for one state, on one thread."""
    env = gym.make(agent.task.env_id)
    obs, times = env.reset(seed=START_SEED)[0], []
    for _ in range(num_calls):
        started = time.process_time()
        agent.act(obs, agent.task.max_budget, agent.task.max_episode_steps)
        times.append(time.process_time() - started)
    env.close()
    return 1e3 * statistics.median(times)


def _trusted_steps(agent: Any) -> int | None:
    dynamics = getattr(getattr(agent, "networks", None), "dynamics", None)
    return None if dynamics is None else int(dynamics.trusted_steps)


def as_markdown(documents: list[dict[str, Any]]) -> str:
    """A table per task: return, episodes over budget and largest cost / budget for each budget."""
    lines = [
        "# The frontier preset on other tasks",
        "",
        "Small runs: one data set and one training seed each; the SAC behind the data of CarCircle",
        "and HalfCheetah had a tenth of the paper's steps, or less. Each cell: mean return;",
        "episodes over budget; largest episode cost / budget. CPU time on one thread.",
    ]
    for document in documents:
        lines += ["", f"## {document['env_id']}, {document['quality']}", "", *_table(document)]
        lines += ["", _origin(document), ""]
        lines += [_model_note(method) for method in document["methods"] if method["model_errors"]]
    return "\n".join(lines) + "\n"


def _table(document: dict[str, Any]) -> list[str]:
    data = document["dataset"]
    ratios = [row["ratio"] for row in document["methods"][0]["budgets"]]
    header = ["", *(f"{ratio:g}" for ratio in ratios), "margin", "training, min", "ms per act"]
    rows = [header, ["---"] * len(header)]
    for method in document["methods"]:
        cells = [
            f"{row['mean_return']:.4g}; {row['over_budget']['num_episodes']} of "
            f"{row['num_episodes']}; {row['normalized_cost']['maximum']:.2f}"
            for row in method["budgets"]
        ]
        seconds = method["training_seconds"]
        margin = "" if method["margin"] is None else f"{method['margin']:.3g}"
        minutes = "" if seconds is None else f"{seconds / 60:.1f}"
        rows.append(
            [method["name"], *cells, margin, minutes, f"{method['milliseconds_per_act']:.1f}"]
        )
    behavior = data["behavior_policy"]
    if behavior:
        costs = [behavior["mean_cost"] / (ratio * data["max_budget"]) for ratio in ratios]
        cells = [f"{behavior['mean_return']:.4g}; mean {cost:.2f}" for cost in costs]
        rows.append(["SAC without a budget", *cells, "", "", ""])
    within = [f"{share:.0%}" for share in data["shares_within"]]
    rows.append(["data's episodes within the budget", *within, "", "", ""])
    return ["| " + " | ".join(row) + " |" for row in rows]


def _origin(document: dict[str, Any]) -> str:
    data, about = document["dataset"], document["provenance"]
    return (
        f"Maximum budget {data['max_budget']:.4g}. Data: `{data['id']}`, {data['num_steps']:,} "
        f"steps in {data['num_episodes']} episodes. Made by `{document['command']}` "
        f"on {about['hardware']}, torch {about['versions']['torch']}."
    )


def _model_note(method: dict[str, Any]) -> str:
    errors = method["model_errors"]
    shares = ", ".join(
        f"{name} {values[0]:.1%} after 1 step, {values[-1]:.1%} after {len(values)}"
        for name, values in errors.items()
        if values
    )
    return (
        f"Models of `{method['name']}`: {shares} of the variance unexplained on held-out episodes; "
        f"{method['trusted_steps']} steps trusted"
        f"{', critic from recorded episodes alone' * (method.get('branches') is False)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_id")
    parser.add_argument("--quality", default="replay")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    dataset_id = default_dataset_id(options.env_id, options.quality)
    episodes = load_episodes(dataset_id)
    names = [name for name in METHODS if name != DISCOUNTED or episodes.cost_discount < 1.0]
    jobs = {name: (name, dataset_id, options.episodes) for name in names}
    without_margin = jobs.pop(NO_MARGIN)  # takes the agent that another job trains
    with ProcessPoolExecutor(options.workers) as pool:
        done = track(pool.map(run_job, jobs.values()), options.env_id, total=len(jobs))
        by_name = dict(zip(jobs, done, strict=True))
        by_name[NO_MARGIN] = pool.submit(run_job, without_margin).result()
    results = [by_name[name] for name in names]
    ratios = np.array([row["ratio"] for row in results[0]["budgets"]])
    within = episodes.discounted_costs[:, None] <= ratios * episodes.max_budget
    document = {
        "env_id": options.env_id,
        "quality": options.quality,
        "command": f"python benchmarks/frontier_tasks.py {options.env_id} --quality "
        f"{options.quality} --episodes {options.episodes}",
        "provenance": provenance(),
        "dataset": {
            "id": dataset_id,
            "num_steps": len(episodes.rewards),
            "num_episodes": len(episodes.lengths),
            "max_budget": episodes.max_budget,
            "shares_within": within.mean(axis=0).tolist(),
            "behavior_policy": episodes.metadata.get("behavior_policy"),
        },
        "methods": results,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = dataset_id.removeprefix("safe-envs/").replace("/", "-")
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    files = sorted(file for file in RESULTS.glob("*.json") if file.stem != "pendulum")
    documents = [json.loads(file.read_text()) for file in files]
    (RESULTS / "tasks.md").write_text(as_markdown(documents))


if __name__ == "__main__":
    main()
