"""Cards of all datasets of the manifest that are on this machine, and the table that leads to them.

    trebi collect --all [--max-steps 30000]
    python benchmarks/datasets.py

Writes results/datasets/<task>-<quality>/card.md and card.png, datasets.json and README.md.
"""

import json
from pathlib import Path

import minari

from safe_diffusion_agent.data.collection import CollectConfig, default_dataset_id
from safe_diffusion_agent.data.manifest import MANIFEST
from safe_diffusion_agent.data.reading import load_episodes
from safe_diffusion_agent.experiments.cards import RATIOS, budget_shares, describe
from safe_diffusion_agent.storage import provenance, write_text

FOLDER = Path(__file__).parent.parent / "results" / "datasets"

# Final returns after 1e6 steps of SAC (rl-baselines3-zoo, benchmark.md, v3 of the environments, one
# training each), and of the SAC that is D4RL's expert (its infos.py, v2).
PUBLISHED = {
    "HalfCheetah": "9535 (rl-zoo), 12135 (D4RL's expert)",
    "Hopper": "2326 (rl-zoo), 3234 (D4RL's expert)",
    "Walker2d": "3863 (rl-zoo), 4592 (D4RL's expert)",
}

WHY_BUDGETS_DIFFER = {
    "Pendulum": "the mean over SAC's training depends on how soon it learns to swing up: what\n"
    "  comes before costs nothing. The paper's 60 lies between it and the final policy's cost.",
    "Reacher": "early episodes do not come near what costs; the final policy's cost is close to\n"
    "  the paper's 14.",
    "CarCircle, BallReach": "3 % of the paper's steps. The means are near the paper's all the\n"
    "  same, but SAC has learned CarCircle in part only, and BallReach hardly.",
    "HalfCheetah, Hopper, Walker2d": "the cost is the speed: a steady v m/s costs 100 v in a long\n"
    "  episode, discounted. The policies behind D4RL's data are trained to the end, or to a third\n"
    "  of that, in another simulator; ours, after a few percent of the steps, are slower. The\n"
    "  paper's values are also not means of its data, but what unconstrained Diffuser plans cost.",
}


def row_of(config: CollectConfig) -> dict:
    dataset_id = default_dataset_id(config.env_id, config.quality)
    task, quality = config.env_id.removeprefix("safe/").removesuffix("-v0"), config.quality
    folder = f"{task.lower()}-{quality}"
    describe(dataset_id, FOLDER / folder)
    episodes = load_episodes(dataset_id)
    metadata = episodes.metadata
    made_with = CollectConfig(**metadata["collect_config"])
    return {
        "dataset_id": dataset_id,
        "folder": folder,
        "task": task,
        "num_steps": len(episodes.rewards),
        "manifest_num_steps": config.num_steps,
        "num_episodes": len(episodes.lengths),
        "share_terminated": float(episodes.terminated.mean()),
        "sac_steps": made_with.sac_steps,
        "mean_return": float(episodes.episode_returns.mean()),
        "sac_return": metadata["snapshots"][-1]["mean_return"],
        "sac_cost": metadata["snapshots"][-1]["mean_cost"],
        "sac_num_episodes": metadata["snapshots"][-1]["num_episodes"],
        "mean_cost": float(episodes.discounted_costs.mean()),
        "paper_max_budget": metadata["paper_max_budget"],
        "max_budget": episodes.max_budget,
        "max_budget_source": metadata["max_budget_source"],
        "shares": budget_shares(episodes.discounted_costs, episodes.max_budget),
        "fingerprint": episodes.fingerprint,
        "provenance": metadata["provenance"],
    }


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def as_markdown(rows: list[dict]) -> str:
    sizes, budgets = [], []
    for row in rows:
        link = f"[`{row['dataset_id']}`]({row['folder']}/card.md)"
        sizes.append(
            [
                link,
                f"{row['num_steps']:,} of {row['manifest_num_steps']:,}",
                f"{row['num_episodes']:,} ({row['share_terminated']:.0%})",
                f"{row['mean_return']:.4g}",
                f"{row['sac_return']:.4g} after {row['sac_steps']:,} steps",
                PUBLISHED.get(row["task"], "none"),
            ]
        )
        budgets.append(
            [
                link,
                f"{row['mean_cost']:.4g}",
                f"{row['sac_cost']:.4g}",
                f"{row['paper_max_budget']:g}",
                f"{row['max_budget']:.4g}",
                *(f"{share['share']:.0%}" for share in row["shares"]),
            ]
        )
    about = rows[0]["provenance"]
    commands = sorted({row["provenance"]["command"] for row in rows})
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    missing = [
        default_dataset_id(config.env_id, config.quality)
        for config in MANIFEST
        if default_dataset_id(config.env_id, config.quality) not in {r["dataset_id"] for r in rows}
    ]
    return "\n".join(
        [
            "# Datasets",
            "",
            *(f"Made by `{command}`" for command in commands),
            f"(seed 0) on {about['hardware']}; {versions}. This page: `benchmarks/datasets.py`.",
            "",
            "Only Pendulum and Reacher have the paper's size. **The others are small**: as many",
            "steps of SAC as the first table says, a few percent of the paper's 1e6, so that their",
            "policies are far from trained. `trebi collect --all` makes them in full: about four",
            "hours of a CPU core for each of the five trainings of 1e6 steps.",
            *(["", f"Not collected yet: {', '.join(missing)}."] if missing else []),
            "",
            "## Sizes and returns",
            "",
            *table(
                ["dataset", "steps, of the full size", "episodes (terminated)", "mean return",
                 "final SAC", "published"],
                sizes,
            ),
            "",
            "Final SAC: mean return of 20 episodes of the final policy, acting deterministically.",
            "Published: the same after 1e6 steps, one training each, on v3 of the environments",
            "([rl-baselines3-zoo](https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md)),",
            "and the SAC that is D4RL's expert, on v2",
            "([D4RL](https://github.com/Farama-Foundation/D4RL/blob/master/d4rl/infos.py)). For",
            "Pendulum and Reacher with Sauté's rewards and for the Bullet tasks with the paper's",
            "episode lengths we know of no published return of SAC as a number.",
            "",
            "## Maximum budgets",
            "",
            *table(
                ["dataset", "mean episode cost", "final SAC's", "paper's (Table 2)", "stored",
                 *(f"within {ratio:g}" for ratio in RATIOS)],
                budgets,
            ),
            "",
            "Costs are discounted as the task's budgets are (MuJoCo: 0.99). The mean episode cost",
            "is the paper's rule for the maximum budget, but for MuJoCo, where the paper measures",
            "unconstrained planning (`trebi max-budget DATASET --agent RUN`). Stored with the",
            "dataset: the paper's value where the dataset has the paper's size, so that results",
            "can be compared; else the mean episode cost, by `trebi max-budget`. Last columns:",
            "share of episodes within each ratio of the stored one (condition (7) of the paper).",
            "",
            "Why they differ from the paper's:",
            "",
            *(f"- **{task}**: {why}" for task, why in WHY_BUDGETS_DIFFER.items()),
            "",
        ]
    )  # fmt: skip


def main() -> None:
    there = minari.list_local_datasets()
    configs = [c for c in MANIFEST if default_dataset_id(c.env_id, c.quality) in there]
    rows = [row_of(config) for config in configs]
    document = {"datasets": rows, "provenance": provenance()}
    write_text(FOLDER / "datasets.json", json.dumps(document, indent=2) + "\n")
    write_text(FOLDER / "README.md", as_markdown(rows))


if __name__ == "__main__":
    main()
