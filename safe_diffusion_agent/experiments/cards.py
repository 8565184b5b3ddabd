"""Dataset cards: what is in a dataset, and which budgets it can teach.

The card makes condition (7) of Lin et al. 2023 visible: the share of the behavior's episodes that
are within a budget must not be too small.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from minari.storage.datasets_root_dir import get_dataset_path

from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.episodes import CostFunction, Episodes
from safe_diffusion_agent.evaluation.figures import draw_dataset
from safe_diffusion_agent.evaluation.protocol import RATIOS
from safe_diffusion_agent.evaluation.statistics import wilson_interval
from safe_diffusion_agent.storage import write_text


def describe(
    dataset_id: str,
    out: Path | None = None,
    *,
    cost_key: str = "infos/cost",
    cost_fn: CostFunction | None = None,
) -> Path:
    """Writes the card of a dataset: `card.md` and `card.png`.

    Args:
        dataset_id: Minari id.
        out: Folder of the card. None takes the dataset's own.
        cost_key: See `load_episodes`.
        cost_fn: See `load_episodes`.

    Returns:
        The Markdown file.

    Raises:
        DatasetError: See `load_episodes`.
    """
    episodes = load_episodes(dataset_id, cost_key=cost_key, cost_fn=cost_fn)
    folder = get_dataset_path(dataset_id) if out is None else out
    draw_dataset(
        episodes.episode_returns,
        episodes.discounted_costs,
        max_budget=episodes.max_budget,
        ratios=RATIOS,
        snapshots=episodes.metadata.get("snapshots", []),
        path=folder / "card.png",
        title=f"{dataset_id}: {len(episodes.lengths):,} episodes",
        discounted=episodes.cost_discount < 1.0,
    )
    write_text(folder / "card.md", card(episodes, "card.png"))
    return folder / "card.md"


def budget_shares(costs: npt.NDArray[np.float64], max_budget: float) -> list[dict[str, Any]]:
    """Share of episodes within each budget, with its 95 % Wilson interval."""
    rows = []
    for ratio in RATIOS:
        num_within = int((costs <= ratio * max_budget).sum())
        rows.append(
            {
                "ratio": ratio,
                "budget": ratio * max_budget,
                "share": num_within / len(costs),
                "wilson_95": wilson_interval(num_within, len(costs)),
            }
        )
    return rows


def card(episodes: Episodes, picture: str) -> str:
    """The Markdown text of a card."""
    metadata, costs = episodes.metadata, episodes.discounted_costs
    of_cost = "episode cost" if episodes.cost_discount == 1 else "discounted episode cost"
    facts = [
        ("environment", episodes.env_id),
        ("made by", metadata.get("algorithm", metadata.get("algorithm_name", "unknown"))),
        ("steps", f"{len(episodes.rewards):,}"),
        ("episodes", f"{len(episodes.lengths):,} ({episodes.terminated.mean():.0%} terminated)"),
        ("cost of a step", metadata.get("cost", "unknown")),
        ("cost discount", f"{episodes.cost_discount:g}"),
        ("maximum budget", _max_budget(episodes)),
        ("fingerprint", episodes.fingerprint),
        ("settings", _settings(metadata)),
    ]
    behavior = metadata.get("behavior_policy")
    if behavior:
        facts.append(
            (
                "behavior policy",
                f"{behavior['name']}: return {behavior['mean_return']:.1f}, "
                f"cost {behavior['mean_cost']:.1f} ({behavior['num_episodes']} episodes)",
            )
        )
    lines = [f"# {episodes.dataset_id}", "", f"![return, cost and budgets]({picture})", ""]
    lines += [f"- **{name}**: {value}" for name, value in facts]
    lines += ["", *_table("", ("mean", "min", "10 %", "median", "90 %", "max"), [
        ("return", _spread(episodes.episode_returns)),
        (of_cost, _spread(costs)),
        ("length", _spread(episodes.lengths)),
    ])]  # fmt: skip
    shares = budget_shares(costs, episodes.max_budget)
    lines += ["", "Episodes within each budget (condition (7) of the paper), 95 % interval:", ""]
    lines += _table("ratio", [f"{row['ratio']:g}" for row in shares], [
        ("budget", [f"{row['budget']:.4g}" for row in shares]),
        ("share", [f"{row['share']:.0%}" for row in shares]),
        ("interval", ["{:.0%} to {:.0%}".format(*row["wilson_95"]) for row in shares]),
    ])  # fmt: skip
    return "\n".join(lines) + "\n"


def _max_budget(episodes: Episodes) -> str:
    source = episodes.metadata.get("max_budget_source", "mean cost of its episodes")
    text = f"{episodes.max_budget:.4g} ({source})"
    paper = episodes.metadata.get("paper_max_budget")
    if paper is None or paper == episodes.max_budget:
        return text
    return f"{text}; the paper's, for its own data (Table 2): {paper:g}"


def _settings(metadata: dict[str, Any]) -> str:
    config = metadata.get("collect_config", {})
    return ", ".join(f"{name} {value}" for name, value in config.items()) or "unknown"


def _spread(values: npt.ArrayLike) -> list[str]:
    array = np.asarray(values, np.float64)
    quantiles = np.quantile(array, [0.0, 0.1, 0.5, 0.9, 1.0])
    return [f"{value:.4g}" for value in (array.mean(), *quantiles)]


def _table(
    corner: str, header: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]
) -> list[str]:
    lines = [f"| {corner} | " + " | ".join(header) + " |", "|" + " --- |" * (len(header) + 1)]
    return lines + [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows]
