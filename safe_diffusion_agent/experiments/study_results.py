"""What a finished study leaves: tables, a picture, and what made them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.evaluation import tables
from safe_diffusion_agent.evaluation.optimum import best_by_ratio
from safe_diffusion_agent.evaluation.protocol import RATIOS, EpisodeResult
from safe_diffusion_agent.evaluation.tables import Evaluated
from safe_diffusion_agent.experiments.rows import Row, RowRun
from safe_diffusion_agent.experiments.rule import Rule
from safe_diffusion_agent.experiments.trust import measured
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.storage import provenance, read_json, write_text


def write_measured(folder: Path, runs: Sequence[RowRun], about: Mapping[str, Any]) -> None:
    """Writes a JSON file per task: what was measured of each agent.

    Args:
        folder: Of the study.
        runs: The rows, with their finished jobs.
        about: JSON values that identify the study.
    """
    for env_id in dict.fromkeys(run.row.dataset.env_id for run in runs):
        document = {
            "task": env_id,
            "num_episodes": about["scale"]["num_episodes"],
            "provenance": provenance(),
            "agents": [measured(run) for run in runs if run.row.dataset.env_id == env_id],
        }
        name = env_id.rpartition("/")[2].partition("-")[0].lower()
        write_text(folder / f"{name}.json", json.dumps(document, indent=2) + "\n")


def write_evaluated(
    folder: Path, runs: Sequence[RowRun], about: Mapping[str, Any], rules: Sequence[Rule] = ()
) -> None:
    """Writes `episodes.csv`, `summary.csv`, `overall.csv`, the picture, and `about.json`.

    Args:
        folder: Of the study; the picture has its name.
        runs: The rows, with their finished jobs.
        about: JSON values that identify the study.
        rules: Evaluated rules, which are lines of the tables like the methods.

    Raises:
        ValueError: Budgets of one dataset are shares of different maximum budgets.
    """
    from safe_diffusion_agent.evaluation.figures import ComparisonPanel, draw_comparison

    rows, evaluated = [run.row for run in runs], [_evaluated(run) for run in runs]
    documents = [read_json(run.out / "results.json") for run in runs]
    _check_budgets(runs, documents)
    tasks = {run.dataset_id: run.row.task for run in runs}
    of_rules = [rule.evaluated(tasks[rule.dataset_id]) for rule in rules]
    random_ratios = bool(rows[0].evaluation.get("random_ratios"))
    written = {
        "episodes": tables.tidy([*of_rules, *evaluated]),
        "summary": tables.summary([*of_rules, *evaluated], random_ratios=random_ratios),
    }
    if not random_ratios:
        written["overall"] = tables.overall([*of_rules, *evaluated])
    for name, lines in written.items():
        write_text(folder / f"{name}.csv", tables.to_table(lines))
    finished = list(zip(rows, evaluated, documents, strict=True))
    draw_comparison(
        [
            ComparisonPanel(
                name=task,
                **_panel(
                    [one for one in finished if one[0].task == task],
                    [one for one in of_rules if one.task == task],
                ),
            )
            for task in dict.fromkeys(row.task for row in rows)
        ],
        folder / f"{folder.name}.png",
        title=f"{about['title']}: training seeds {sorted({row.seed or 0 for row in rows})}, "
        f"{rows[0].evaluation['num_episodes']} episodes each",
        random_ratios=random_ratios,
    )
    commits = {document["provenance"]["commit"] or "unknown" for document in documents}
    document = dict(about) | {
        "methods": list(dict.fromkeys(row.name for row in rows)),
        "evaluated_at_commits": sorted(commits),
        "datasets": _about_datasets(runs),
        "rows": [asdict(row) for row in rows],
    }
    write_text(folder / "about.json", json.dumps(document | provenance(), indent=2) + "\n")


def _check_budgets(runs: Sequence[RowRun], documents: Sequence[Mapping[str, Any]]) -> None:
    """Refuses evaluations of one dataset whose ratios are of different maximum budgets."""
    first: dict[Any, tuple[float, Path]] = {}
    for run, document in zip(runs, documents, strict=True):
        asked, budget = run.row.evaluation.get("max_budget"), document["evaluation"]["max_budget"]
        other, path = first.setdefault((run.dataset_id, asked), (budget, run.out))
        if other != budget:
            raise ValueError(
                f"The evaluations of {run.dataset_id} should have one maximum budget: {path} has "
                f"{other:g}, {run.out} has {budget:g}. Delete the folder of the run whose budget "
                "is out of date, and run the command again."
            )


def _evaluated(run: RowRun) -> Evaluated:
    """Episodes of a row; trainings on data of seed d have seeds from 1000 d on."""
    row = run.row
    return Evaluated(
        task=row.task,
        method=row.label,
        seed=(row.seed or 0) + 1000 * row.dataset.seed,
        episodes=tables.read_episodes(run.out / "episodes.csv"),
    )


def _panel(
    finished: Sequence[tuple[Row, Evaluated, dict[str, Any]]], rules: Sequence[Evaluated] = ()
) -> dict[str, Any]:
    """Boxes of the methods that keep a budget, lines of the others, and the optimum.

    A line is the mean over the seeds of the datasets and of the trainings.
    """
    episodes: dict[str, list[EpisodeResult]] = {}
    for rule in rules:
        episodes.setdefault(rule.method, []).extend(rule.episodes)
    of_data: dict[int, float] = {}  # seed of the dataset -> return of the policy that made it
    unconstrained: dict[str, list[float]] = {}
    optimum: dict[float, float] = {}
    for row, run, document in finished:
        if document["behavior_policy"]:
            of_data[row.dataset.seed] = document["behavior_policy"]["mean_return"]
        if METHODS[row.method].constrained:
            episodes.setdefault(row.label, []).extend(run.episodes)
            ratios, budgets = zip(*((e.ratio, e.budget) for e in run.episodes), strict=True)
            optimum |= best_by_ratio(row.dataset.env_id, ratios, budgets)
        else:
            returns = [episode.episode_return for episode in run.episodes]
            unconstrained.setdefault(row.label, []).extend(returns)
    named = {"the data's policy": list(of_data.values()), **unconstrained}
    lines = {name: sum(values) / len(values) for name, values in named.items() if values}
    return {"episodes": episodes, "lines": lines, "optimum": optimum}


def _about_datasets(runs: Sequence[RowRun]) -> dict[str, dict[str, Any]]:
    """Task -> what there was to learn from; a dataset of another seed says so."""
    ids = {}
    for run in runs:
        seed = run.row.dataset.seed
        ids[run.row.task + (f" seed {seed}" if seed else "")] = run.dataset_id
    return {name: _about_data(dataset_id) for name, dataset_id in ids.items()}


def _about_data(dataset_id: str) -> dict[str, Any]:
    """Sizes and budgets; `share_within`: ratio -> share of the episodes within it."""
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
