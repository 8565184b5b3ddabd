r"""Fewer steps, same quality? Latency, return and violations of trained agents that plan faster.

    python benchmarks/fast_presets.py safe_diffusion_agent/pretrained/pendulum --episodes 20

    trebi collect safe/HalfCheetah-v0 --steps 100000      # safe/ReacherReachable-v0: 20000
    for seed in 0 1 2; do
        trebi train safe-envs/halfcheetah/sac-replay-v0 runs/fast/halfcheetah-$seed \
            --preset frontier --seed $seed
    done
    python benchmarks/fast_presets.py runs/fast/halfcheetah-* --name halfcheetah \
        --only "fast:,2 sampling,realtime:"

An agent that is judged by the frontier is tried with one list of planner settings, any other one
with another; nothing is trained. All variants of an agent meet the same start states, so that
returns are compared episode by episode. Evaluations that are done are kept in runs/fast-presets.
Writes results/latency/fast-NAME.json and .md.
"""

import argparse
import re
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markdown_table import table_lines, write_report
from rich.progress import Progress

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.evaluation.protocol import EvaluationConfig
from safe_diffusion_agent.evaluation.statistics import Z_95, wilson_interval
from safe_diffusion_agent.experiments import stages as pipeline
from safe_diffusion_agent.methods.trebi.presets import PRESETS
from safe_diffusion_agent.storage import provenance

ROOT = Path(__file__).parent.parent
RUNS, RESULTS = ROOT / "runs" / "fast-presets", ROOT / "results" / "latency"
START_SEED = 6000


@dataclass(frozen=True)
class Variant:
    """How a trained agent plans, and every how many steps."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    control_interval: int = 1


def preset_difference(preset: str) -> dict[str, Any]:
    """Planner settings in which a preset differs from `frontier`."""
    ours, theirs = (asdict(PRESETS[name].planner) for name in (preset, "frontier"))
    return {name: value for name, value in ours.items() if value != theirs[name]}


def compiled(name: str, preset: str) -> Variant:
    return Variant(f"{name}, compiled", preset_difference(preset) | {"execution": "compiled"})


FRONTIER = (
    Variant("frontier"),
    compiled("frontier", "frontier"),
    Variant("2 sampling steps, 4 candidates", {"sampling_steps": 2, "num_candidates": 4}),
    Variant("1 sampling step", {"sampling_steps": 1}),
    Variant("fast: 5 sampling steps, 4 candidates", preset_difference("fast")),
    compiled("fast", "fast"),
    Variant("realtime: the critic's plans alone", preset_difference("realtime")),
    compiled("realtime", "realtime"),
    Variant("a plan every 2 steps", control_interval=2),
    Variant("a plan every 4 steps", control_interval=4),
)
VALUES = (
    Variant("as trained"),
    Variant("5 sampling steps", {"sampling_steps": 5}),
    Variant("3 sampling steps", {"sampling_steps": 3}),
    Variant("2 sampling steps", {"sampling_steps": 2}),
    Variant("3 sampling steps, 4 candidates", {"sampling_steps": 3, "num_candidates": 4}),
    Variant("no guidance", {"guidance_scale": 0.0}),
    Variant("no guidance, 3 steps, 64 candidates",
            {"guidance_scale": 0.0, "sampling_steps": 3, "num_candidates": 64}),
    Variant("a plan every 2 steps", control_interval=2),
)  # fmt: skip


def load(folder: Path, variant: Variant) -> TrebiAgent:
    return TrebiAgent.load(folder, device="cpu", **variant.settings)


def variants_of(folder: Path) -> tuple[Variant, ...]:
    return FRONTIER if load(folder, Variant("")).config.model.judge == "frontier" else VALUES


def milliseconds(folder: Path, variants: tuple[Variant, ...], repeats: int) -> dict[str, float]:
    """Median time per step of each variant, one state at a time, all variants in turns."""
    agents = {variant.name: load(folder, variant) for variant in variants}
    intervals = {variant.name: variant.control_interval for variant in variants}
    times: dict[str, list[float]] = {name: [] for name in agents}
    for _ in range(repeats):
        for name, agent in agents.items():
            task = agent.task
            begin = time.process_time()
            agent.act(np.zeros(task.obs_dim), task.max_budget / 2, task.max_episode_steps)
            times[name].append(time.process_time() - begin)
    return {name: 1e3 * statistics.median(t[1:]) / intervals[name] for name, t in times.items()}


def episodes_of(
    folder: Path, variant: Variant, num_episodes: int, runs: Path, progress: Progress
) -> list[dict[str, str]]:
    agent = load(folder, variant)
    config = EvaluationConfig(
        num_episodes=num_episodes, seed=START_SEED, control_interval=variant.control_interval
    )
    out = runs / f"{folder.parent.name}-{folder.name}" / re.sub(r"[^a-z0-9]+", "-", variant.name)
    row = progress.add_task(f"{folder.name}: {variant.name}")

    def show(done: int, total: int, **_: float) -> None:
        progress.update(row, completed=done, total=total)

    pipeline.evaluate(agent, out, config=config, progress=show)
    progress.update(row, completed=1, total=1)
    lines = (out / "episodes.csv").read_text().splitlines()
    header = lines[0].split(",")
    return [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]


def paired(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Mean difference and half of its 95 % interval (normal)."""
    difference = np.subtract(ours, theirs)
    return float(difference.mean()), float(Z_95 * difference.std() / np.sqrt(len(difference)))


def summary(name: str, times: list[float], episodes: list, reference: list) -> dict[str, Any]:
    returns, baseline = ([float(e["episode_return"]) for e in es] for es in (episodes, reference))
    ratios = sorted({float(e["ratio"]) for e in episodes})
    num_over = sum(e["over_budget"] == "True" for e in episodes)
    difference, half_width = paired(returns, baseline)
    return {
        "variant": name,
        "milliseconds": statistics.mean(times),
        "num_episodes": len(episodes),
        "num_over_budget": num_over,
        "wilson_95": wilson_interval(num_over, len(episodes)),
        "mean_returns": {
            f"{ratio:g}": float(
                np.mean([r for r, e in zip(returns, episodes) if float(e["ratio"]) == ratio])
            )
            for ratio in ratios
        },
        "return_difference": difference,
        "return_difference_half_width_95": half_width,
        "max_normalized_cost": max(float(e["normalized_cost"]) for e in episodes),
    }


def as_markdown(document: dict[str, Any]) -> str:
    about = document["provenance"]
    lines = [
        f"# Faster planners on {document['task']}",
        "",
        f"Made by `{about['command']}` on {about['hardware']}, torch {about['versions']['torch']}.",
        "",
        "CPU time per environment step of one episode. Return: by budget (share of the maximum),",
        "and the difference to the first line over the same start states and budgets, with its",
        "95 % interval. Over budget: episodes, with the 95 % Wilson interval.",
    ]
    for group in document["groups"]:
        ratios = list(group["rows"][0]["mean_returns"])
        agents = group["agents"]
        lines += ["", f"Agents: {', '.join(agents)}. Small runs: {len(agents)} training(s).", ""]
        header = ["variant", "ms", *ratios, "return, difference", "over budget", "largest cost"]
        rows = []
        for row in group["rows"]:
            low, high = row["wilson_95"]
            half_width = row["return_difference_half_width_95"]
            rows.append(
                [
                    row["variant"],
                    f"{row['milliseconds']:.1f}",
                    *(f"{row['mean_returns'][ratio]:.1f}" for ratio in ratios),
                    f"{row['return_difference']:+.1f} ± {half_width:.1f}",
                    f"{row['num_over_budget']} of {row['num_episodes']} ({low:.1%} to {high:.1%})",
                    f"{row['max_normalized_cost']:.2f}",
                ]
            )
        lines += table_lines(header, rows)
    return "\n".join(lines) + "\n"


def measure(
    folders: list[Path], num_episodes: int, repeats: int, runs: Path, only: list[str]
) -> list[dict[str, Any]]:
    groups = []
    by_variants: dict[tuple[str, ...], list[Path]] = {}
    for folder in folders:
        names = tuple(variant.name for variant in variants_of(folder))
        by_variants.setdefault(names, []).append(folder)
    with Progress() as progress:
        for members in by_variants.values():
            first, *others = variants_of(members[0])
            chosen = [v for v in others if not only or any(v.name.startswith(o) for o in only)]
            variants = (first, *chosen)
            times = [milliseconds(folder, variants, repeats) for folder in members]
            episodes = {
                variant.name: [
                    episode
                    for folder in members
                    for episode in episodes_of(folder, variant, num_episodes, runs, progress)
                ]
                for variant in variants
            }
            reference = episodes[variants[0].name]
            rows = [summary(n, [t[n] for t in times], e, reference) for n, e in episodes.items()]
            groups.append({"agents": [folder.name for folder in members], "rows": rows})
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agents", nargs="+", type=Path, help="folders of trained TREBI agents")
    parser.add_argument("--episodes", type=int, default=30, help="per budget, agent and variant")
    parser.add_argument("--repeats", type=int, default=30, help="timed plans per variant")
    parser.add_argument("--only", default="", help="beginnings of variants' names; commas between")
    parser.add_argument("--name", default="pendulum")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=RUNS, help="where evaluations are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    only = [name for name in options.only.split(",") if name]
    groups = measure(options.agents, options.episodes, options.repeats, options.runs, only)
    document = {
        "task": load(options.agents[0], Variant("")).task.env_id,
        "groups": groups,
        "provenance": provenance(),
    }
    path = options.out / f"fast-{options.name}"
    write_report(path, document, as_markdown)


if __name__ == "__main__":
    main()
