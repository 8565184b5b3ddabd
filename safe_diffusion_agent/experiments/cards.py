"""What is in a dataset, and which budgets it can teach: its card, and its maximum budget.

The card makes condition (7) of Lin et al. 2023 visible: the share of the behavior's episodes that
are within a budget must not be too small.
"""

import json
import math
from pathlib import Path
from typing import Any

import minari
import numpy as np
import numpy.typing as npt
from minari.storage.datasets_root_dir import get_dataset_path

from safe_diffusion_agent.agent import Agent
from safe_diffusion_agent.data.manifest import BY_EXPERTS, MANIFEST
from safe_diffusion_agent.data.qualities import CollectConfig
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.data.writing import update_metadata
from safe_diffusion_agent.episodes import CostFunction, Episodes
from safe_diffusion_agent.errors import DatasetError
from safe_diffusion_agent.evaluation.protocol import RATIOS, EvaluationConfig, evaluate_agent
from safe_diffusion_agent.evaluation.rollout import Progress
from safe_diffusion_agent.evaluation.statistics import wilson_interval
from safe_diffusion_agent.experiments.markdown import cells, table
from safe_diffusion_agent.storage import provenance, write_text


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
        cost_key: Where the dataset has its costs, `"infos/<name>"`.
        cost_fn: Computes the costs of a whole episode instead.

    Returns:
        The Markdown file.

    Raises:
        DatasetError: There is no such dataset, or it is broken, or has no costs.
    """
    from safe_diffusion_agent.evaluation.figures import draw_dataset

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


def measure_max_budget(
    dataset_id: str,
    agent: Agent | None = None,
    *,
    num_episodes: int = 60,
    seed: int = 0,
    cost_key: str = "infos/cost",
    cost_fn: CostFunction | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Computes the maximum budget of a dataset by the paper's rules (App. D), and stores it.

    Args:
        dataset_id: Minari id.
        agent: None: the mean cost of the dataset's episodes, "the expected episodic cost of the
            unconstrained behavior policy". An agent: the mean cost of its unconstrained planning,
            the rule for MuJoCo tasks.
        num_episodes: Episodes of the agent.
        seed: Fixes the agent's episodes.
        cost_key: Where the dataset has its costs, `"infos/<name>"`.
        cost_fn: Computes the costs of a whole episode instead.
        progress: Called as `progress(done, total)`, in steps of the environments.

    Returns:
        `"max_budget"` in cost units (discounted by the task's gamma_c), `"max_budget_source"` in
        words, and `"paper_max_budget"`, the paper's for its own data (Table 2), or None.

    Raises:
        ValueError: The dataset names no environment that the agent could plan in, or nothing costs.
    """
    episodes = load_episodes(dataset_id, cost_key=cost_key, cost_fn=cost_fn)
    if agent is None:
        max_budget, source = float(episodes.discounted_costs.mean()), "mean cost of its episodes"
    else:
        if episodes.env_id is None:
            raise ValueError(f"The dataset {dataset_id!r} names no environment to plan in.")
        config = EvaluationConfig(
            ratios=(math.inf,), num_episodes=num_episodes, seed=seed, max_budget=1.0
        )
        results = evaluate_agent(agent, episodes.env_id, config, progress=progress)
        max_budget = sum(result.cost for result in results) / len(results)
        source = f"unconstrained planning, preset {agent.config.preset}, {num_episodes} episodes"
    if max_budget <= 0.0:
        raise ValueError(
            f"The {source} of {dataset_id!r} is {max_budget:g}: a budget should be positive. Check "
            "the costs of the dataset."
        )
    changes = {"max_budget": max_budget, "max_budget_source": source}
    update_metadata(dataset_id, changes)
    return changes | {"paper_max_budget": episodes.metadata.get("paper_max_budget")}


def describe_all(out: Path) -> Path:
    """Writes the cards of all datasets of the paper that are on this machine.

    Args:
        out: Gets a folder per dataset, and `datasets.json`, from which `trebi report` makes a page.

    Returns:
        The JSON file.

    Raises:
        DatasetError: There are none.
    """
    there = minari.list_local_datasets()
    ids = {config.dataset_id: config for config in (*MANIFEST, *BY_EXPERTS)}
    lines = [
        _line(dataset_id, config, out) for dataset_id, config in ids.items() if dataset_id in there
    ]
    if not lines:
        raise DatasetError(
            "None of the paper's datasets is on this machine: `trebi collect --all` makes them."
        )
    document = {"datasets": lines, "provenance": provenance()}
    write_text(out / "datasets.json", json.dumps(document, indent=2) + "\n")
    return out / "datasets.json"


def _line(dataset_id: str, config: CollectConfig, out: Path) -> dict[str, Any]:
    task = config.env_id.removeprefix("safe/").removesuffix("-v0")
    folder = f"{task.lower()}-{config.quality}" + ("-by-expert" if config.expert else "")
    describe(dataset_id, out / folder)
    episodes = load_episodes(dataset_id)
    metadata, last = episodes.metadata, episodes.metadata["snapshots"][-1]
    best = metadata.get("expert") or last
    return {
        "dataset_id": dataset_id,
        "folder": folder,
        "task": task,
        "num_steps": len(episodes.rewards),
        "manifest_num_steps": config.num_steps,
        "num_episodes": len(episodes.lengths),
        "share_terminated": float(episodes.terminated.mean()),
        "sac_steps": last["step"],
        "mean_return": float(episodes.episode_returns.mean()),
        "best_policy": best.get("name") or f"SAC after {last['step']:,} steps",
        **{f"best_{name}": best[f"mean_{name}"] for name in ("return", "cost")},
        "mean_cost": float(episodes.discounted_costs.mean()),
        "paper_max_budget": metadata.get("paper_max_budget"),
        "max_budget": episodes.max_budget,
        "max_budget_source": metadata["max_budget_source"],
        "shares": budget_shares(episodes.discounted_costs, episodes.max_budget),
        "fingerprint": episodes.fingerprint,
        "provenance": metadata["provenance"],
    }


def budget_shares(costs: npt.NDArray[np.float64], max_budget: float) -> list[dict[str, Any]]:
    """Returns the share of episodes within each budget, with its 95 % Wilson interval."""
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
    """Returns the Markdown text of a card."""
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
    for policy in metadata.get("policies", []):  # that `collect_with` let act
        digest = policy.get("sha256")
        facts.append(
            (
                policy["name"] + (f" (SHA-256 {digest[:16]}...)" if digest else ""),
                f"{policy['algorithm']}, share {policy['share']:.3g}, noise {policy['noise']:g}: "
                f"return {policy['mean_return']:.1f}, cost {policy['mean_cost']:.1f} "
                f"({policy['num_episodes']} episodes)",
            )
        )
    lines = [f"# {episodes.dataset_id}", "", f"![return, cost and budgets]({picture})", ""]
    lines += [f"- **{name}**: {value}" for name, value in facts]
    spreads = [
        ["return", *_spread(episodes.episode_returns)],
        [of_cost, *_spread(costs)],
        ["length", *_spread(episodes.lengths)],
    ]
    lines += ["", table(cells("", "mean", "min", "10 %", "median", "90 %", "max"), spreads)]
    shares = budget_shares(costs, episodes.max_budget)
    lines += ["", "Episodes within each budget (condition (7) of the paper), 95 % interval:", ""]
    rows = [
        ["budget", *(f"{row['budget']:.4g}" for row in shares)],
        ["share", *(f"{row['share']:.0%}" for row in shares)],
        ["interval", *("{:.0%} to {:.0%}".format(*row["wilson_95"]) for row in shares)],
    ]
    lines += [table(cells("ratio", *(f"{row['ratio']:g}" for row in shares)), rows)]
    return "\n".join(lines) + "\n"


def _max_budget(episodes: Episodes) -> str:
    source = episodes.metadata.get("max_budget_source", "mean cost of its episodes")
    text = f"{episodes.max_budget:.4g} ({source})"
    paper = episodes.metadata.get("paper_max_budget")
    if paper is None or paper == episodes.max_budget:
        return text
    return f"{text}; the paper's, for its own data (Table 2): {paper:g}"


def _settings(metadata: dict[str, Any]) -> str:
    config = {k: v for k, v in metadata.get("collect_config", {}).items() if k != "policies"}
    return ", ".join(f"{name} {value}" for name, value in config.items()) or "unknown"


def _spread(values: npt.ArrayLike) -> list[str]:
    array = np.asarray(values, np.float64)
    quantiles = np.quantile(array, [0.0, 0.1, 0.5, 0.9, 1.0])
    return [f"{value:.4g}" for value in (array.mean(), *quantiles)]
