"""`trebi reproduce`: the paper's comparison, made again, figure by figure.

A figure needs datasets, trainings and evaluations. An interrupted reproduction continues.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from safe_diffusion_agent.data.collection import collect, default_dataset_id
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.evaluation import tables as comparison
from safe_diffusion_agent.evaluation.figures import ComparisonPanel, draw_comparison
from safe_diffusion_agent.evaluation.optimum import best_returns
from safe_diffusion_agent.evaluation.protocol import RATIOS, EpisodeResult
from safe_diffusion_agent.evaluation.tables import Evaluated
from safe_diffusion_agent.experiments.catalog import paper_figure, scale_of
from safe_diffusion_agent.experiments.jobs import Job, plan, run_all
from safe_diffusion_agent.experiments.stages import PathLike, Progress, measure_max_budget
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.storage import provenance, write_text


def reproduce(
    name: str,
    *,
    out: PathLike = "results/reproduce",
    runs: PathLike = "runs/reproduce",
    scale: str = "small",
    tasks: Sequence[str] | None = None,
    qualities: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    num_episodes: int | None = None,
    max_steps: int | None = None,
    workers: int = 1,
    ray_address: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Makes a figure of the paper again, with its numbers.

    The folder `out/<name>` gets `episodes.csv` (one evaluated episode per line), `summary.csv` (one
    budget per line), `overall.csv` (one method), the figure, and `about.json`: what made them.

    Args:
        name: One of `FIGURES`.
        out: Folder of the results.
        runs: Folder of the jobs.
        scale: One of `SCALES`.
        tasks: See `plan`.
        qualities: See `plan`.
        methods: See `plan`.
        seeds: Seeds of the trainings, instead of the scale's.
        num_episodes: Per budget and seed, instead of the scale's.
        max_steps: Steps that a dataset, and its SAC, are cut to, instead of the scale's.
        workers: See `run_all`.
        ray_address: See `run_all`.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        progress: Called as `progress(name, done, total, **values)`; the name is that of a dataset
            that is collected, or "jobs".

    Returns:
        The folder.

    Raises:
        UnknownNameError: There is no such figure, scale, task or method.
        ValueError: The figure has none of these datasets, or see `run_all`.
    """
    figure, size = paper_figure(name), scale_of(scale)
    size = replace(
        size,
        seeds=tuple(seeds or size.seeds),
        num_episodes=num_episodes or size.num_episodes,
        max_steps=max_steps or size.max_steps,
    )
    jobs = plan(figure, size, Path(runs), tasks=tasks, qualities=qualities, methods=methods)
    for dataset_id, config in {job.dataset_id: job.collect for job in jobs}.items():
        collect(config, dataset_id=dataset_id, progress=progress and partial(progress, dataset_id))
        if dataset_id != default_dataset_id(config.env_id, config.quality):
            measure_max_budget(dataset_id)  # the paper's is for data of the paper's size
    run_all(
        jobs,
        workers=workers,
        ray_address=ray_address,
        device=device,
        progress=progress and partial(progress, "jobs"),
    )
    folder = Path(out) / name
    _write(folder, name, jobs, random_ratios=figure.random_ratios)
    about = {"figure": name, "title": figure.title, "scale": asdict(size), **_about(jobs)}
    write_text(folder / "about.json", json.dumps(about, indent=2) + "\n")
    return folder


def _write(folder: Path, name: str, jobs: Sequence[Job], *, random_ratios: bool) -> None:
    """Tables and the picture of finished jobs."""
    runs_done = [
        Evaluated(
            task=job.task,
            method=job.label,
            seed=job.seed,
            episodes=comparison.read_episodes(job.results / "episodes.csv"),
        )
        for job in jobs
    ]
    tables = {"episodes": comparison.tidy(runs_done)}
    tables["summary"] = comparison.summary(runs_done, random_ratios=random_ratios)
    if not random_ratios:
        tables["overall"] = comparison.overall(runs_done)
    for table, rows in tables.items():
        write_text(folder / f"{table}.csv", comparison.to_table(rows))
    draw_comparison(
        _panels(jobs, runs_done),
        folder / f"{name}.png",
        title=f"{paper_figure(name).title}: training seeds {sorted({job.seed for job in jobs})}, "
        f"{jobs[0].evaluation.num_episodes} episodes each",
        random_ratios=random_ratios,
    )


def _about(jobs: Sequence[Job]) -> dict[str, Any]:
    """What the results rest on: methods, data, source, versions, hardware."""
    data = {job.task: job.dataset_id for job in jobs}
    return {
        "methods": list(dict.fromkeys(f"{job.method}:{job.preset}" for job in jobs)),
        "evaluated_at_commits": _commits(jobs),
        "datasets": {task: _about_data(dataset_id) for task, dataset_id in data.items()},
    } | provenance()


def _commits(jobs: Sequence[Job]) -> list[str]:
    """Of the source that evaluated: jobs that are done are not done again."""
    documents = (json.loads((job.results / "results.json").read_text()) for job in jobs)
    return sorted({document["provenance"]["commit"] or "unknown" for document in documents})


def _about_data(dataset_id: str) -> dict[str, Any]:
    """What there was to learn from; `share_within`: ratio -> share of the episodes within it."""
    episodes = load_episodes(dataset_id)
    costs = episodes.discounted_costs
    return {
        "dataset_id": dataset_id,
        "num_steps": len(episodes.rewards),
        "num_episodes": len(episodes.lengths),
        "mean_return": float(episodes.episode_returns.mean()),
        "max_budget": episodes.max_budget,
        "share_within": {
            f"{ratio:g}": float((costs <= ratio * episodes.max_budget).mean()) for ratio in RATIOS
        },
    }


def _panels(jobs: Sequence[Job], runs_done: Sequence[Evaluated]) -> list[ComparisonPanel]:
    panels = []
    for task in dict.fromkeys(job.task for job in jobs):
        episodes: dict[str, list[EpisodeResult]] = {}
        lines: dict[str, float] = {}
        optimum: dict[float, float] = {}
        for job, run in zip(jobs, runs_done, strict=True):
            if job.task == task:
                document = json.loads((job.results / "results.json").read_text())
                behavior = document["behavior_policy"]
                if behavior:
                    lines["the data's policy"] = behavior["mean_return"]
                if METHODS[job.method].constrained:
                    episodes.setdefault(job.label, []).extend(run.episodes)
                    optimum |= _optimum(job.collect.env_id, run.episodes)
                else:
                    returns = [episode.episode_return for episode in run.episodes]
                    lines.setdefault(job.label, sum(returns) / len(returns))
        panels.append(ComparisonPanel(name=task, episodes=episodes, lines=lines, optimum=optimum))
    return panels


def _optimum(env_id: str, episodes: Sequence[EpisodeResult]) -> dict[float, float]:
    """Ratio -> most return within its budget; empty where it is not known."""
    best = best_returns(env_id, [episode.budget for episode in episodes])
    ratios = [episode.ratio for episode in episodes]
    return {} if best is None else dict(zip(ratios, best.tolist(), strict=True))
