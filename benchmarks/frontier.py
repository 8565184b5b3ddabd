"""The `frontier` preset against its rivals on SafePendulum, and what each of its parts is worth.

    python benchmarks/frontier.py [--data-seeds 0,1] [--train-seeds 0,1] [--workers 2]

Start states are those of seed 3000, which nothing was tuned on. Finished jobs are kept in
runs/frontier, so that an interrupted benchmark continues. Writes results/frontier/pendulum.csv, one
row per agent and budget; benchmarks/frontier_report.py makes tables and pictures of it.
"""

import argparse
import csv
import json
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from safe_diffusion_agent.data.collection import CollectConfig, collect
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.evaluation.rollout import rollout, start_seed
from safe_diffusion_agent.experiments import stages as pipeline
from safe_diffusion_agent.methods.table import load_agent
from safe_diffusion_agent.storage import provenance

ENV_ID = "safe/Pendulum-v0"
ROOT = Path(__file__).parent.parent
RUNS, RESULTS = ROOT / "runs" / "frontier", ROOT / "results" / "frontier"
START_SEED = 3000
CUT_STEPS = (40, 60, 80, 100, 120, 140)
# The paper's planner and losses, on the networks of the quick preset.
PAPER = {
    "time_to_go": False, "windows": "inside", "standardize_values": False, "clean_share": 0.0,
    "calibration_share": 0.0,
    "cost_quantile": None, "budget_margin": 0.0, "clip": False, "penalty": 1000.0,
    "guidance_on": "mean", "num_unguided_steps": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """What is trained, and how it plans."""

    name: str
    method: str = "trebi"
    preset: str = "frontier"
    training: dict[str, Any] = field(default_factory=dict)
    planner: dict[str, Any] = field(default_factory=dict)
    ablation: bool = False  # fewer episodes, one training seed

    def agent_folder(self, data_seed: int, train_seed: int) -> Path:
        parts = [self.method, self.preset, *(f"{k}={v}" for k, v in self.training.items())]
        name = "-".join(parts) if len(parts) < 5 else f"{self.method}-{self.preset}-paper"
        return RUNS / f"{name}-data{data_seed}-seed{train_seed}"


VARIANTS = (
    Variant("frontier"),
    Variant("caps", method="caps", preset="quick"),
    Variant("quick", preset="quick"),
    Variant("the paper's planner, small networks", preset="quick", training=PAPER),
    Variant("frontier, no margin", planner={"risk": None}, ablation=True),
    Variant("frontier, one multiplier", planner={"bound": "single"}, ablation=True),
    Variant("frontier, without the critic's plans", planner={"critic_plans": False}, ablation=True),
    Variant("frontier, one diffusion sample", planner={"num_candidates": 1}, ablation=True),
    Variant(
        "frontier, one model step",
        training={"model_tolerance": 1e-9, "min_branch_steps": 1},
        ablation=True,
    ),
    Variant("frontier, no imagined branches", training={"branch_share": 0.0}, ablation=True),
)


@dataclass(frozen=True)
class Job:
    """One agent of a variant."""

    variant: Variant
    data_seed: int
    train_seed: int
    num_episodes: int


def dataset_of(seed: int) -> str:
    return f"safe-envs/pendulum/sac-replay-frontier{seed}-v0"


def collect_job(seed: int) -> None:
    config = CollectConfig(env_id=ENV_ID, seed=seed)
    collect(config, dataset_id=dataset_of(seed), state_dir=RUNS / f"collection-{seed}")


def timed_train(dataset_id: str, folder: Path, **options: Any) -> float | None:
    """Trains, and returns the CPU seconds that it took; None if it was interrupted in between."""
    file = folder / "training_seconds"
    fresh, started = not any(folder.glob("*.safetensors")), time.process_time()
    pipeline.train(dataset_id, folder, **options)
    if fresh:
        file.write_text(f"{time.process_time() - started:.1f}\n")
    return float(file.read_text()) if file.exists() else None


def train_job(job: Job, subfolder: str = "") -> None:
    torch.set_num_threads(1)
    variant = job.variant
    settings = variant.training
    if variant.preset == "quick":
        settings = settings | variant.planner
    timed_train(
        dataset_of(job.data_seed),
        variant.agent_folder(job.data_seed, job.train_seed) / subfolder,
        method=variant.method,
        preset=variant.preset,
        seed=job.train_seed,
        device="cpu",
        settings=settings,
    )


def time_job(job: Job) -> None:
    """Trains once more where it is not known how long that takes, and keeps only the time."""
    folder = job.variant.agent_folder(job.data_seed, job.train_seed)
    if not (folder / "training_seconds").exists():
        train_job(job, "again")
        (folder / "again" / "training_seconds").rename(folder / "training_seconds")
        shutil.rmtree(folder / "again")


def evaluate_job(job: Job) -> dict[str, Any]:
    """What one agent does: fixed budgets, random budgets, cuts and raises in mid-episode."""
    torch.set_num_threads(1)
    folder = job.variant.agent_folder(job.data_seed, job.train_seed)
    tag = "-".join(f"{k}={v}" for k, v in job.variant.planner.items()) or "default"
    output = folder / f"results-{tag}-{job.num_episodes}.json"
    if output.exists():
        return json.loads(output.read_text())
    agent = load_agent(folder, device="cpu", **job.variant.planner)
    fixed = pipeline.evaluate(
        agent,
        folder / f"evaluation-{tag}-{job.num_episodes}",
        config=EvaluationConfig(num_episodes=job.num_episodes, seed=START_SEED),
    )
    document = {
        "variant": job.variant.name,
        "data_seed": job.data_seed,
        "train_seed": job.train_seed,
        "margin": getattr(agent, "margin", None),
        "trained_on": agent.about["provenance"],
        "budgets": fixed["budgets"],
    }
    if not job.variant.ablation:
        document |= {"random": random_budgets(agent), "changes": changed_budgets(agent)}
    output.write_text(json.dumps(document))
    return document


def random_budgets(agent, num: int = 100) -> dict[str, Any]:
    """Budgets uniform in (0, 1] of the maximum, one episode each."""
    budgets = agent.task.max_budget * (1.0 - np.random.default_rng(START_SEED).random(num))
    run = rollout(agent.act, ENV_ID, budgets, [start_seed(START_SEED, k) for k in range(num)])
    costs = run.costs.sum(axis=0)
    return {
        "num_episodes": num,
        "num_over_budget": int((costs > budgets).sum()),
        "max_normalized_cost": float((costs / budgets).max()),
        "mean_return": float(run.rewards.sum(axis=0).mean()),
    }


def changed_budgets(agent, num: int = 10) -> dict[str, Any]:
    """60 cut to 8 at several steps; 8 raised to 60; no budget at all, and no limit at all."""
    seeds = [start_seed(START_SEED, k) for k in range(num)]
    document: dict[str, Any] = {"num_episodes": num, "cut_to": 8.0, "cuts": []}
    for step in CUT_STEPS:
        run = rollout(agent.act, ENV_ID, [60.0] * num, seeds, budget_changes={step: 8.0})
        later = run.costs[step:].sum(axis=0)
        document["cuts"].append(
            {"step": step, "num_kept": int((later <= 8.0).sum()), "max_later": float(later.max())}
        )
    for name, budget, changes in (
        ("raised from 8 to 60 at step 60", 8.0, {60: 60.0}),
        ("0", 0.0, {}),
        ("infinite", np.inf, {}),
    ):
        run = rollout(agent.act, ENV_ID, [budget] * num, seeds, budget_changes=changes)
        document[name] = {
            "mean_return": float(run.rewards.sum(axis=0).mean()),
            "mean_cost": float(run.costs.sum(axis=0).mean()),
            "max_cost": float(run.costs.sum(axis=0).max()),
        }
    return document


def jobs_of(names: list[str], data_seeds: list[int], train_seeds: list[int]) -> list[Job]:
    jobs = []
    for variant in (variant for variant in VARIANTS if variant.name in names):
        small = variant.ablation or variant.preset == "quick" and variant.method == "trebi"
        seeds = train_seeds[:1] if small else train_seeds
        data = data_seeds[:1] if variant.ablation else data_seeds
        num_episodes = 20 if small else 60
        jobs += [Job(variant, d, t, num_episodes) for t in seeds for d in data]
    return jobs


def rows_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    about = {key: document[key] for key in ("variant", "data_seed", "train_seed", "margin")}
    return [
        about
        | {
            "ratio": row["ratio"],
            "num_episodes": row["num_episodes"],
            "mean_return": row["mean_return"],
            "std_return": row["std_return"],
            "median_normalized_cost": row["normalized_cost"]["median"],
            "max_normalized_cost": row["normalized_cost"]["maximum"],
            "num_over_budget": row["over_budget"]["num_episodes"],
        }
        for row in document["budgets"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-seeds", default="0,1")
    parser.add_argument("--train-seeds", default="0,1")
    parser.add_argument("--without", default="", help="variants to leave out; semicolons between")
    parser.add_argument(
        "--times", action="store_true", help="only find out how long trainings take"
    )
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    data_seeds, train_seeds = (
        [int(seed) for seed in text.split(",")]
        for text in (options.data_seeds, options.train_seeds)
    )
    left_out = options.without.split(";")
    names = [variant.name for variant in VARIANTS if variant.name not in left_out]
    jobs = jobs_of(names, data_seeds, train_seeds)
    trainings = {job.variant.agent_folder(job.data_seed, job.train_seed): job for job in jobs}
    with ProcessPoolExecutor(options.workers) as pool:
        if options.times:
            unknown = [
                job for job in trainings.values() if (job.data_seed, job.train_seed) == (0, 0)
            ]
            list(track(pool.map(time_job, unknown), "times", total=len(unknown)))
            return
        for description, call, items in (
            ("collect", collect_job, data_seeds),
            ("train", train_job, list(trainings.values())),
            ("evaluate", evaluate_job, jobs),
        ):
            results = list(track(pool.map(call, items), description, total=len(items)))
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = [row for document in results for row in rows_of(document)]
    with (RESULTS / "pendulum.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    changes = [document for document in results if "random" in document]
    command = " ".join(
        ["python benchmarks/frontier.py", "--data-seeds", options.data_seeds]
        + ["--train-seeds", options.train_seeds]
        + (["--without", f"'{options.without}'"] if options.without else [])
    )
    document = {"command": command, "provenance": provenance(), "agents": changes}
    (RESULTS / "pendulum.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
