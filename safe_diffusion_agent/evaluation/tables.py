"""Tables that compare methods: evaluated episodes in, tidy rows out."""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from safe_diffusion_agent.evaluation.protocol import EpisodeResult
from safe_diffusion_agent.evaluation.statistics import (
    bootstrap_over_runs,
    conditional_value_at_risk,
    interquartile_mean,
    wilson_interval,
)
from safe_diffusion_agent.storage import csv_of

TAIL = 0.05  # of the CVaR: the worst twentieth of the episodes
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The evaluated episodes of one training.

    Attributes:
        task: Task and dataset.
        method: Name of the method, or of its variant.
        seed: Of the training.
        episodes: What came out.
    """

    task: str
    method: str
    seed: int
    episodes: Sequence[EpisodeResult]


def read_episodes(path: Path) -> list[EpisodeResult]:
    """Reads the episodes that `stages.evaluate` wrote."""
    parse: dict[Any, Callable[[str], Any]] = {float: float, int: int, bool: "True".__eq__}
    with path.open(newline="") as file:
        return [
            EpisodeResult(**{f.name: parse[f.type](row[f.name]) for f in fields(EpisodeResult)})
            for row in csv.DictReader(file)
        ]


def to_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as CSV; numbers with six digits."""
    return csv_of(
        [{key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows]
    )


def read_table(path: Path) -> list[Row]:
    """Reads what `to_table` wrote; what looks like a number becomes one."""
    with path.open(newline="") as file:
        return [{key: _parsed(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _parsed(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def tidy(runs: Iterable[Evaluated]) -> list[Row]:
    """Returns one row per episode."""
    return [
        {"task": run.task, "method": run.method, "training_seed": run.seed, **asdict(episode)}
        for run in runs
        for episode in run.episodes
    ]


def summary(runs: Sequence[Evaluated], *, random_ratios: bool = False) -> list[Row]:
    """Returns one row per task, method and budget, over all seeds.

    Random budgets are put together by fifths of the maximum; a row's ratio is the upper end.

    `cvar_overrun` is the mean of the worst twentieth of max(cost - budget, 0), in cost units; the
    interval of the share over budget is Wilson's and takes episodes to be independent;
    `std_over_seeds` is that of the seeds' mean returns (0 for one seed).
    """
    rows = []
    for (task, method), group in _grouped(runs).items():
        episodes = [(run.seed, episode) for run in group for episode in run.episodes]
        of_ratio: dict[float, list[tuple[int, EpisodeResult]]] = {}
        for seed, episode in episodes:
            ratio = math.ceil(5 * episode.ratio) / 5 if random_ratios else episode.ratio
            of_ratio.setdefault(ratio, []).append((seed, episode))
        for ratio, chosen in sorted(of_ratio.items()):
            rows.append({"task": task, "method": method, "ratio": ratio, **_statistics(chosen)})
    return rows


def _statistics(chosen: Sequence[tuple[int, EpisodeResult]]) -> Row:
    seeds = sorted({seed for seed, _ in chosen})
    means = [np.mean([e.episode_return for s, e in chosen if s == seed]) for seed in seeds]
    costs = [e.normalized_cost for _, e in chosen]
    num_over = sum(e.over_budget for _, e in chosen)
    low, high = wilson_interval(num_over, len(chosen))
    q1, median, q3 = np.quantile(costs, [0.25, 0.5, 0.75])
    overrun = [max(e.cost - e.budget, 0.0) for _, e in chosen]
    return {
        "num_seeds": len(seeds),
        "num_episodes": len(chosen),
        "mean_return": float(np.mean(means)),
        "std_over_seeds": float(np.std(means, ddof=min(1, len(means) - 1))),
        "mean_cost": float(np.mean([e.cost for _, e in chosen])),
        "normalized_cost_q1": float(q1),
        "normalized_cost_median": float(median),
        "normalized_cost_q3": float(q3),
        "normalized_cost_max": float(np.max(costs)),
        "num_over": num_over,
        "share_over": num_over / len(chosen),
        "share_over_low": low,
        "share_over_high": high,
        "cvar_overrun": conditional_value_at_risk(overrun, TAIL),
    }


def overall(runs: Sequence[Evaluated], *, num_resamples: int = 2_000) -> list[Row]:
    """Returns one row per task and method: interquartile mean return, with a bootstrap interval.

    A score is the mean return of one seed under one budget; seeds are what is resampled, with all
    of their budgets. Only for fixed ratios.
    """
    rows = []
    for (task, method), group in _grouped(runs).items():
        ratios = sorted({episode.ratio for episode in group[0].episodes})
        scores = [
            [np.mean([e.episode_return for e in run.episodes if e.ratio == r]) for r in ratios]
            for run in group
        ]
        low, high = bootstrap_over_runs(
            scores,
            interquartile_mean,
            rng=np.random.default_rng(0),
            num_resamples=num_resamples,
        )
        over = [episode.over_budget for run in group for episode in run.episodes]
        rows.append(
            {
                "task": task,
                "method": method,
                "num_seeds": len(group),
                "interquartile_mean_return": interquartile_mean(scores),
                "return_low": low,
                "return_high": high,
                "num_episodes": len(over),
                "share_over": sum(over) / len(over),
            }
        )
    return rows


def _grouped(runs: Iterable[Evaluated]) -> dict[tuple[str, str], list[Evaluated]]:
    groups: dict[tuple[str, str], list[Evaluated]] = {}
    for run in runs:
        groups.setdefault((run.task, run.method), []).append(run)
    return groups
