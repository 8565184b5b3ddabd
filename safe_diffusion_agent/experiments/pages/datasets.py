"""The page of datasets, which leads to their cards."""

from functools import partial
from pathlib import Path
from typing import Any

from safe_diffusion_agent.data.manifest import MANIFEST
from safe_diffusion_agent.experiments.markdown import Column, table
from safe_diffusion_agent.storage import read_json

Line = dict[str, Any]
LINK = Column("dataset", lambda line: f"[`{line['dataset_id']}`]({line['folder']}/card.md)")
SIZES = (
    LINK,
    Column(
        "steps, of the full size",
        lambda line: f"{line['num_steps']:,} of {line['manifest_num_steps']:,}",
    ),
    Column(
        "episodes (terminated)",
        lambda line: f"{line['num_episodes']:,} ({line['share_terminated']:.0%})",
    ),
    Column("mean return", lambda line: f"{line['mean_return']:.4g}"),
    Column("steps of SAC", lambda line: f"{line['sac_steps']:,}"),
    Column("best policy", lambda line: f"{line['best_return']:.4g}, {line['best_policy']}"),
)
SIZES_NOTE = (
    "Best policy: mean return of 20 episodes, acting deterministically. `trebi collect --all` "
    "makes all datasets in full; with `--experts`, those of the zoo's policies."
)
BUDGETS_NOTE = (
    "Costs are discounted as the task's budgets are (MuJoCo: 0.99). The mean episode cost is the "
    "paper's rule for the maximum budget, but for MuJoCo, where the paper measures unconstrained "
    "planning (`trebi max-budget DATASET --agent RUN`). Stored with the dataset: the paper's "
    "value, whatever the size, so that results can be compared, or, where the paper has none, what "
    "the expert costs, unless `trebi max-budget` has replaced it by the mean episode cost. Last "
    "columns: share of episodes within each ratio of the stored one (condition (7) of the paper)."
)


def datasets_page(folder: Path) -> str:
    """Returns the page of a folder with `datasets.json`, and perhaps remarks on it."""
    lines = read_json(folder / "datasets.json")["datasets"]
    remarks = [path.read_text().strip() for path in folder.glob("remarks.md")]
    budgets = [
        LINK,
        Column("mean episode cost", lambda line: f"{line['mean_cost']:.4g}"),
        Column("best policy's", lambda line: f"{line['best_cost']:.4g}"),
        Column("paper's (Table 2)", _paper_budget),
        Column("stored", lambda line: f"{line['max_budget']:.4g}"),
        *(
            Column(f"within {row['ratio']:g}", partial(_within, k))
            for k, row in enumerate(lines[0]["shares"])
        ),
    ]
    ids = {line["dataset_id"] for line in lines}
    missing = [config.dataset_id for config in MANIFEST]
    missing = [dataset_id for dataset_id in missing if dataset_id not in ids]
    about = lines[0]["provenance"]
    machines = " and ".join(dict.fromkeys(line["provenance"]["hardware"] for line in lines))
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    commands = ", ".join(f"`{c}`" for c in sorted({ln["provenance"]["command"] for ln in lines}))
    parts = [
        "# Datasets",
        f"Made by {commands} (seed 0) on {machines}; {versions}.",
        f"Not collected yet: {', '.join(missing)}." if missing else "",
        "## Sizes and returns",
        table(SIZES, lines),
        SIZES_NOTE,
        "## Maximum budgets",
        table(budgets, lines),
        BUDGETS_NOTE,
        "## Remarks" if remarks else "",
        *remarks,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _paper_budget(line: Line) -> str:
    budget = line["paper_max_budget"]
    return "–" if budget is None else f"{budget:g}"


def _within(index: int, line: Line) -> str:
    return f"{line['shares'][index]['share']:.0%}"
