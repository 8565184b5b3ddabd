"""What each improvement of the `quick` preset over the paper's planner is worth, on SafePendulum.

    python benchmarks/ablation.py [--data-seeds 0,1] [--episodes 20] [--workers 2]

Two ladders with the same small networks: from the paper's planner upwards, one improvement after
the other; and the preset with one of them taken away. Every variant is run on several data sets and
on start states that were not used to choose anything (seed 1000). Finished jobs are kept in
runs/ablation, so that an interrupted benchmark continues. Writes results/ablation/pendulum.csv and
pendulum.md.
"""

import argparse
import csv
import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from rich.progress import track

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.data.collection import CollectConfig, collect
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.evaluation.statistics import wilson_interval
from safe_diffusion_agent.experiments import stages as pipeline
from safe_diffusion_agent.methods.trebi.config import SETTINGS
from safe_diffusion_agent.storage import provenance

ENV_ID = "safe/Pendulum-v0"
ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "ablation"
START_SEED = 1000

# The paper's planner and losses, on the networks of the quick preset.
PAPER = {
    "time_to_go": False, "windows": "inside", "standardize_values": False, "clean_share": 0.0,
    "calibration_share": 0.0,
    "cost_quantile": None, "budget_margin": 0.0, "clip": False, "penalty": 1000.0,
    "guidance_on": "mean", "num_unguided_steps": 0, "guidance_repeats": 1, "score": "final",
}  # fmt: skip
STEPS = {
    "+ time to go": {"time_to_go": True},
    "+ windows up to the end": {"windows": "all"},
    "+ clipping": {"clip": True},
    "+ standardised values, clean windows": {"standardize_values": True, "clean_share": 0.15},
    "+ 0.9-quantile of the cost": {"cost_quantile": 0.9},
    "+ 5 % margin": {"budget_margin": 0.05},
    "+ penalty n = 100": {"penalty": 100.0},
    "+ guidance on the input, not in the last two steps (= quick)": {
        "guidance_on": "input", "num_unguided_steps": 2,
    },
}  # fmt: skip
WITHOUT = {
    "quick": {},
    "quick, time-blind": {"time_to_go": False},
    "quick, windows inside": {"windows": "inside"},
    "quick, no clipping": {"clip": False},
    "quick, raw values, no clean windows": {"standardize_values": False, "clean_share": 0.0},
    "quick, mean cost": {"cost_quantile": None},
    "quick, no margin": {"budget_margin": 0.0},
    "quick, n = 20": {"penalty": 20.0},
    "quick, n = 1000": {"penalty": 1000.0},
    "quick, guidance on the mean": {"guidance_on": "mean", "num_unguided_steps": 0},
    "quick, guidance twice per step": {"guidance_repeats": 2},
    "quick, scored before the last denoising": {"score": "noised"},
    "quick, no guidance": {"guidance_scale": 0.0},
    "quick, 64 candidates": {"num_candidates": 64},
    "quick, 1 candidate": {"num_candidates": 1},
}


def variants() -> dict[str, dict]:
    ladder = {"the paper's planner": dict(PAPER)}
    settings = dict(PAPER)
    for name, change in STEPS.items():
        settings = settings | change
        ladder[name] = settings
    return ladder | WITHOUT


def digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def dataset_of(seed: int) -> str:
    return f"safe-envs/pendulum/sac-replay-seed{seed}-v0"


def split(settings: dict) -> tuple[dict, dict]:
    """Settings that need a training of their own, and those of the planner."""
    planner = {k: v for k, v in settings.items() if SETTINGS[k] == "planner"}
    return {k: v for k, v in settings.items() if k not in planner}, planner


def agent_folder(training: dict, data_seed: int) -> Path:
    return RUNS / f"agent-{digest([training, data_seed])}"


def collect_job(seed: int) -> None:
    torch.set_num_threads(1)
    config = CollectConfig(env_id=ENV_ID, seed=seed)
    collect(config, dataset_id=dataset_of(seed), state_dir=RUNS / f"collection-{seed}")


def train_job(job: tuple[dict, int]) -> None:
    torch.set_num_threads(1)
    training, data_seed = job
    folder = agent_folder(training, data_seed)
    pipeline.train(dataset_of(data_seed), folder, settings=training, device="cpu")


def evaluate_job(job: tuple[str, dict, int, int]) -> list[dict]:
    torch.set_num_threads(1)
    name, settings, data_seed, num_episodes = job
    training, planner = split(settings)
    agent = TrebiAgent.load(agent_folder(training, data_seed), device="cpu", **planner)
    config = EvaluationConfig(num_episodes=num_episodes, seed=START_SEED)
    folder = RUNS / f"evaluation-{digest([settings, data_seed, num_episodes])}"
    document = pipeline.evaluate(agent, folder, config=config)
    return [
        {
            "variant": name,
            "data_seed": data_seed,
            "ratio": row["ratio"],
            "num_episodes": row["num_episodes"],
            "mean_return": row["mean_return"],
            "median_normalized_cost": row["normalized_cost"]["median"],
            "max_normalized_cost": row["normalized_cost"]["maximum"],
            "num_over_budget": row["over_budget"]["num_episodes"],
        }
        for row in document["budgets"]
    ]


def as_markdown(rows: list[dict], command: str) -> str:
    ratios = sorted({row["ratio"] for row in rows})
    about = provenance()
    num = sum(row["num_episodes"] for row in rows if row["variant"] == "quick") // len(ratios)
    lines = [
        "# What each improvement is worth on SafePendulum",
        "",
        f"Made by `{command}`",
        f"on {about['hardware']}, torch {about['versions']['torch']}.",
        "",
        "Each cell: mean return; mean over data sets of the median cost / budget; episodes over",
        f"budget. {num} episodes per cell, over the data seeds",
        f"{sorted({row['data_seed'] for row in rows})}, one training each: a small run, in which a",
        "difference of a few episodes is noise. Last column: all episodes over budget, with the",
        "95 % Wilson interval.",
        "",
        "| variant | " + " | ".join(f"{ratio:g}" for ratio in ratios) + " | over budget |",
        "|" + " --- |" * (len(ratios) + 2),
    ]
    for name in dict.fromkeys(row["variant"] for row in rows):
        cells, over, total = [], 0, 0
        for ratio in ratios:
            chosen = [r for r in rows if (r["variant"], r["ratio"]) == (name, ratio)]
            returns = sum(r["mean_return"] for r in chosen) / len(chosen)
            cost = sum(r["median_normalized_cost"] for r in chosen) / len(chosen)
            num_over = sum(r["num_over_budget"] for r in chosen)
            cells.append(f"{returns:.0f} {cost:.2f} {num_over}")
            over, total = over + num_over, total + sum(r["num_episodes"] for r in chosen)
        low, high = wilson_interval(over, total)
        share = f"{over} of {total} ({low:.0%} to {high:.0%})"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {share} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-seeds", default="0,1")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.data_seeds.split(",")]
    trainings = {digest(split(s)[0]): split(s)[0] for s in variants().values()}
    train_jobs = [(training, seed) for training in trainings.values() for seed in seeds]
    evaluate_jobs = [
        (name, settings, seed, options.episodes)
        for name, settings in variants().items()
        for seed in seeds
    ]
    with ProcessPoolExecutor(options.workers) as pool:
        for description, job, jobs in (
            ("collect", collect_job, seeds),
            ("train", train_job, train_jobs),
            ("evaluate", evaluate_job, evaluate_jobs),
        ):
            results = list(track(pool.map(job, jobs), description, total=len(jobs)))
    rows = [row for result in results for row in result]
    folder = ROOT / "results" / "ablation"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "pendulum.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    command = (
        f"python benchmarks/ablation.py --data-seeds {options.data_seeds} "
        f"--episodes {options.episodes}"
    )
    (folder / "pendulum.md").write_text(as_markdown(rows, command))


if __name__ == "__main__":
    main()
