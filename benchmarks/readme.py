"""Fills in the parts of the README that come from tables and results.

A part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; NAME is a function below.
With `--check` nothing is written, and a README that is out of date is an error.
"""

import json
import re
import sys
from pathlib import Path

from comparison_report import CELL, INTERVALS, about, by_budget, unconstrained
from markdown_table import table
from readme_latency import latency
from trust_report import by_risk, share

from safe_diffusion_agent.evaluation.tables import read_table
from safe_diffusion_agent.methods.table import METHODS
from safe_envs import TASKS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def tasks() -> str:
    header = ["id", "cost of a step", "steps", "cost discount", "maximum budget"]
    rows = [
        [f"`{spec.id}`", spec.cost, f"{spec.max_episode_steps}", f"{spec.cost_discount:g}",
         f"{spec.max_budget:g}"]
        for spec in TASKS.values()
    ]  # fmt: skip
    return table(header, rows)


def env_overhead() -> str:
    document = json.loads((ROOT / "results/env_overhead.json").read_text())
    header = ["id", "bare, µs", "added, µs", "ratio (95 % interval)", "ratio to Gymnasium's own"]
    rows = []
    for row in document["tasks"]:
        low, high = row["ratio_interval_95"]
        own = row.get("gymnasium_id")
        rows.append(
            [
                f"`{row['task']}`",
                f"{row['microseconds']['bare']:.1f}",
                f"{row['added_microseconds']:.1f}",
                f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
                f"{row['ratio_to_gymnasium']:.2f} (`{own}`)" if own else "",
            ]
        )
    over = [row["task"].removeprefix("safe/") for row in document["tasks"]
            if not row["at_most_10_percent"]]  # fmt: skip
    about = document["provenance"]
    note = (
        "Bare is the same physics in `gym.make`'s own wrappers; medians of CPU time per step, both "
        f"sides in turns ({about['hardware']}; gymnasium {about['versions']['gymnasium']}). "
    )
    if over:
        note += (
            f"More than the 10 % that we aim at: {', '.join(over)}, whose bare steps are short. "
            "The last column compares the same step, cost and budget included, with a step of "
            "Gymnasium's environment without them."
        )
    return table(header, rows) + "\n\n" + note


def quickstart() -> str:
    document = json.loads((ROOT / "results/quickstart/results.json").read_text())
    header = ["budget (ratio)", "cost / budget: median", "q1", "q3", "largest",
              "episodes over budget (95 % interval)", "return"]  # fmt: skip
    rows = []
    for row in document["budgets"]:
        cost, over = row["normalized_cost"], row["over_budget"]
        low, high = over["wilson_95"]
        rows.append(
            [
                f"{row['budget']:g} ({row['ratio']:g})",
                *(f"{cost[key]:.2f}" for key in ("median", "q1", "q3", "maximum")),
                f"{over['num_episodes']} of {row['num_episodes']} ({low:.0%} to {high:.0%})",
                f"{row['mean_return']:.1f} ± {row['std_return']:.1f}",
            ]
        )
    behavior, about = document["behavior_policy"], document["provenance"]
    note = (
        f"{document['evaluation']['num_episodes']} episodes per budget, one seed: a small run. "
        f"The data's own policy ({behavior['name']}): return {behavior['mean_return']:.1f} at cost "
        f"{behavior['mean_cost']:.1f}. Made by `{document['agent']['provenance']['command']}` on "
        f"{about['hardware']}; torch {about['versions']['torch']}, "
        f"gymnasium {about['versions']['gymnasium']}."
    )
    return table(header, rows) + "\n\n" + note


def budget_cut() -> str:
    document = json.loads((ROOT / "results/quickstart/budget_cut.json").read_text())
    header = ["cut at step", *(f"{row['step']}" for row in document["cuts"])]
    rows = [
        [
            "episodes that kept it",
            *(f"{r['num_kept']}/{r['num_episodes']}" for r in document["cuts"]),
        ],
        ["spent after it, median", *(f"{r['median_later_cost']:.1f}" for r in document["cuts"])],
    ]
    note = (
        f"The budget of {document['before']:g} is cut to {document['after']:g} "
        f"(`{document['provenance']['command']}`)."
    )
    return table(header, rows) + "\n\n" + note


def frontier() -> str:
    """The table of results/frontier/pendulum.md: from its header to the empty line after it."""
    lines = (ROOT / "results/frontier/pendulum.md").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = lines[first : lines.index("", first)]
    about = json.loads((ROOT / "results/frontier/pendulum.json").read_text())
    note = (
        "Return, and in brackets the share of the optimum (0 is hanging still). `frontier` and "
        "`caps`: four trainings, 60 episodes per budget each; the others: two, 20 episodes each. "
        f"Made by `{about['command']}`."
    )
    return "\n".join([*rows, "", note])


def frontier_tasks() -> str:
    """Methods by tasks, over all budgets: mean return, and the share of episodes over budget."""
    files = sorted((ROOT / "results/frontier").glob("*-v0.json"))
    documents = [json.loads(path.read_text()) for path in files]
    names = dict.fromkeys(m["name"] for document in documents for m in document["methods"])
    cells = {
        (document["env_id"], method["name"]): _over_budgets(method["budgets"])
        for document in documents
        for method in document["methods"]
    }
    ids = [document["env_id"] for document in documents]
    rows = [[name, *(cells.get((env_id, name), "") for env_id in ids)] for name in names]
    note = (
        "Mean return over the five budgets; episodes over budget; largest cost / budget. One data "
        "set and one training each: small runs. Budget by budget, with the models' errors: "
        "[`tasks.md`](results/frontier/tasks.md)."
    )
    return table(["", *(f"`{env_id}`" for env_id in ids)], rows) + "\n\n" + note


def _over_budgets(budgets: list[dict]) -> str:
    mean = sum(row["mean_return"] for row in budgets) / len(budgets)
    num_over = sum(row["over_budget"]["num_episodes"] for row in budgets)
    total = sum(row["num_episodes"] for row in budgets)
    largest = max(row["normalized_cost"]["maximum"] for row in budgets)
    return f"{mean:.4g}; {num_over} of {total}; {largest:.2f}"


def paper_sizes() -> str:
    """The paper's networks, planning in several ways, next to small ones."""
    folder = ROOT / "results/paper_sizes"
    names = ["paper", *sorted(p.stem for p in folder.glob("paper-*.json")), "small", "frontier"]
    documents = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}
    paper = documents["paper"]
    rows = [
        [f"`{name.replace('-', '`, `')}`", *map(_return_and_overruns, document["budgets"])]
        for name, document in documents.items()
    ]
    num_steps = paper["agent"]["config"]["training"]["num_steps"]
    note = (
        f"`{paper['task']}`: mean return; episodes over budget. `paper` was trained for "
        f"{num_steps:,} steps, of the paper's 1,000,000. One training each, the same start states: "
        f"small runs. Made by `benchmarks/paper_sizes.sh` on {paper['provenance']['hardware']}; "
        f"torch {paper['provenance']['versions']['torch']}."
    )
    ratios = [f"{row['ratio']:g}" for row in paper["budgets"]]
    return table(["preset", *ratios], rows) + "\n\n" + note


def _return_and_overruns(row: dict) -> str:
    over = row["over_budget"]["num_episodes"]
    return f"{row['mean_return']:.4g}; {over} of {row['num_episodes']}"


def trust() -> str:
    """One line per task and preset; only risks that all tasks were measured at."""
    risks, rows = (None, 0.05, 0.2), []
    for path in sorted((ROOT / "results/trust").glob("*.json")):
        document = json.loads(path.read_text())
        for agent in document["agents"]:
            pooled = by_risk(agent["risk"])
            forecasts = agent.get("forecasts")
            rows.append(
                [
                    f"[`{document['task']}`](results/trust/{path.stem}.md)",
                    f"`{agent['preset']}`",
                    *(f"{share(pooled[r])}; {pooled[r]['mean_return']:.1f}" for r in risks),
                    f"{forecasts['of']['keep_probability']['auroc']:.3f}" if forecasts else "",
                ]
            )
    header = ["task", "preset", "no margin", "risk 0.05", "risk 0.2", "AUROC"]
    note = (
        "Episodes over budget (95 % interval); mean return. Budgets from a tenth of the maximum to "
        "all of it, one training each: small runs. AUROC: does `keep_probability` tell from the "
        "middle of an episode whether a small new budget will be kept? Commands, more risks, "
        "forecasts of the behavior, moving budgets and shifted worlds are behind the links."
    )
    return table(header, rows) + "\n\n" + note


def baselines() -> str:
    rows = [
        [f"`{name}`", method.summary, method.budgets]
        for name, method in METHODS.items()
        if name != "trebi"
    ]
    return table(["`--method`", "what it is", "budgets"], rows)


def comparison() -> str:
    folder = ROOT / "results/reproduce/fig1"
    document, rows = about(folder), read_table(folder / "summary.csv")
    parts = []
    for task in dict.fromkeys(row["task"] for row in rows):
        parts += [
            f"`{task.split()[0]}`:",
            by_budget(folder, task, overrun=False),
            unconstrained(rows, task),
        ]
    scale = document["scale"]
    parts.append(
        f"{CELL} {INTERVALS} {scale['num_episodes']} episodes per budget and training, training "
        f"seeds {scale['seeds']}, one data set per task, preset `{scale['preset']}` where none is "
        f"named: small trainings. Made by `{document['command']}` on {document['hardware']}; torch "
        f"{document['versions']['torch']}."
    )
    return "\n\n".join(part.strip() for part in parts if part)


PARTS = (
    tasks, env_overhead, latency, quickstart, budget_cut, trust, frontier, frontier_tasks,
    paper_sizes, baselines, comparison,
)  # fmt: skip


def filled(text: str) -> str:
    for part in PARTS:
        name = part.__name__
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        replacement = f"{begin}\n{part()}\n{end}"
        text, count = pattern.subn(lambda _, new=replacement: new, text)
        assert count == 1, f"README.md should have one part {name!r}, and has {count}."
    return text


def main() -> None:
    text = README.read_text()
    new = filled(text)
    if "--check" in sys.argv and new != text:
        sys.exit("README.md is out of date: run `python benchmarks/readme.py`.")
    README.write_text(new)


if __name__ == "__main__":
    main()
