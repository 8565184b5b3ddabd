"""The page of the reproduced figures: results/reproduce/README.md.

    python benchmarks/comparison_report.py

Reads what `trebi reproduce` wrote into results/reproduce: about.json and summary.csv.
"""

import json
from pathlib import Path
from typing import Any

from markdown_table import table

from safe_diffusion_agent.evaluation.statistics import wilson_interval
from safe_diffusion_agent.evaluation.tables import read_table
from safe_diffusion_agent.experiments.catalog import FIGURES
from safe_diffusion_agent.methods.table import METHODS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "reproduce"
Row = dict[str, Any]
CELL = "Per budget (share of the maximum): mean return · episodes over budget."
OVERRUN = "Third in a cell: mean overrun of the worst 5 % of the episodes, in cost units."
INTERVALS = (
    "The interval of the interquartile mean is a bootstrap's over trainings, the one of the share "
    "over budget is Wilson's over episodes."
)

DUELS = (
    "Against each rival, at how many budgets TREBI has a smaller / the same / a larger share over "
    "budget; and at how many at least its return:"
)

# What the figures say, beside what the paper says (Sec. 5.1, App. E).
REMARKS = {
    "fig1": "As in the paper, BCORLE(lambda) and BCQ-Saute overspend on Pendulum, by the "
    "largest multiples where the budget is small. `trebi:small`, the paper's method, "
    "hardly ever overspends, and pays for it: on Pendulum the penalty n = 1000 drives "
    "all candidates to hanging still (fig4b: smaller ones return more). CPQ is as "
    "careful on Pendulum, and is not trained long enough on Reacher. Reacher's goal "
    "is out of reach: returns hardly differ, and the cost is what there is to see.",
    "fig2": "On medium and medium-expert data it is as in the paper: TREBI, `small` too, "
    "keeps every budget, also those that none of the data's episodes keep; the "
    "baselines overspend where the data do, most of them always. Returns lie within "
    "the baselines' range, `frontier`'s near its top or above it. CPQ keeps its "
    "budgets without driving. Medium-replay is poor here (the first episodes of a "
    "short SAC): none is within the two smallest budgets, and `small`, which imitates "
    "them, overspends there; `frontier` does not, and loses return in episodes in "
    "which the cheetah comes to a stand.",
    "fig3": "On CarCircle `frontier` is over budget in the fewest episodes of all. It drives "
    "slowly under small budgets, where BCORLE(lambda) returns far more with a few "
    "overruns, and returns the most under the largest. Its critic is trained from the "
    "recorded episodes alone: with imagined branches, its margin came out at more "
    "than half of the largest budget. Overruns are large with every method: a car "
    "that does not come back pays at every step. BallReach: SAC hardly learned it in "
    "30,000 steps. Returns are near zero but for CPQ, which is over budget in half of "
    "the episodes; both TREBIs are in the fewest.",
    "fig4a": "The paper: a longer horizon gives more return and fewer violations. Here nothing "
    "violates, and 16 to 32 steps return most. The reason is mostly in what is "
    "trained on (fig4a-causes): as in Diffuser, training trajectories lie within the "
    "200 steps of an episode, so that with H = 128 none starts after step 72. With "
    "trajectories up to the end, H = 128 returns as much as H = 32, and a little more "
    "with the penalty n = 10, at as many overruns. Four times the training makes up "
    "for about half of the difference.",
    "fig4b": "The paper: up to n = 1000 a larger n gives more return and fewer violations, n = "
    "10000 is worse in both. Here a larger n gives fewer violations and less return "
    "up to 1000, and 10000 is no better. Two guesses why were tried, and both were "
    "wrong: with 20 denoising steps instead of 10 (fig4b-steps), or with alpha "
    "reduced by as much as the variance of the last guided step is larger with 10 "
    "(fig4b-variance), the trend is the same. What makes it differ is not known; the "
    "sizes of networks and training remain.",
    "fig5": "Few episodes of these data are within any budget but the largest, and the "
    "baselines overspend nearly always. `frontier` keeps most budgets by falling "
    "early, which ends the cost: in its imagined episodes it overspends by so much "
    "that the margin for its risk is larger than the largest budget, and what then "
    "costs least is a fall. The paper does not punish falling (the reference code "
    "does, see `termination_penalty`), and `frontier` cannot. The paper's method does "
    "best at 0.8 and 1.",
    "fig6": "No episode of these data is within the two smallest budgets: nearly every method "
    "overspends there. From 0.6 on `frontier` is over budget hardly ever or never, at "
    "more than twice the return of most baselines; only CPQ returns as much, where it "
    "does.",
    "fig7": "The paper: a plan for four steps costs a little return and few violations. Here "
    "it costs no violations, but more than a little return, a quarter with "
    "`frontier`, more with `small`; at the two budgets that none of the data's "
    "episodes keep, every step without a new plan costs `small` dearly.",
    "fig8": "TREBI keeps the budgets down to a fifth of the maximum, far below what any episode "
    "of the data costs, `frontier` below that, too; the baselines overspend where the data do. "
    "The paper shows the same. Medium-replay is left out for time.",
    "fig9": "As with the five budgets: TREBI's `small` keeps nearly all budgets that some "
    "episodes of the data keep, `frontier` most of the others as well, by falling "
    "early; the baselines overspend up to the largest.",
    "fig10": "As with the five budgets: below what the data's episodes cost, all overspend; "
    "from 0.6 on `frontier` keeps most budgets at twice the baselines' return. "
    "`small` keeps them by standing still.",
    "fig11": "CarCircle: BCORLE(lambda) returns most up to the last fifth, and is over budget "
    "most often where budgets are small; `frontier` is over budget rarely there, but "
    "from the middle on more often than its risk of 5 % allows: the margin is "
    "calibrated on imagined episodes, not on these. BallReach is not learned by any "
    "method.",
}


def about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "about.json").read_text())


def is_constrained(label: str) -> bool:
    return label.partition(":")[0] not in METHODS or METHODS[label.partition(":")[0]].constrained


def by_budget(folder: Path, task: str, *, overrun: bool = True) -> str:
    """Methods by budgets, one task; last, over all budgets."""
    rows = [row for row in read_table(folder / "summary.csv") if row["task"] == task]
    rows = [row for row in rows if is_constrained(row["method"])]
    ratios = sorted({row["ratio"] for row in rows})
    cells: dict[str, dict[float, str]] = {}
    for row in rows:
        cell = f"{row['mean_return']:.4g} · {row['share_over']:.0%}"
        cell += f" · {row['cvar_overrun']:.1f}" if overrun else ""
        cells.setdefault(row["method"], {})[row["ratio"]] = cell
    overall = _over_budgets(folder, task)
    lines = [
        [f"`{name}`", *(c.get(ratio, "") for ratio in ratios), *overall.get(name, [])]
        for name, c in cells.items()
    ]
    header = ["method", *(f"{ratio:g}" for ratio in ratios)]
    if overall:
        header += ["interquartile mean return (95 %)", "over budget (95 %)"]
    return table(header, lines)


def _over_budgets(folder: Path, task: str) -> dict[str, list[str]]:
    """Return and share over budget of all budgets together; nothing for random budgets."""
    if not (folder / "overall.csv").exists():
        return {}
    cells = {}
    for row in read_table(folder / "overall.csv"):
        total, num_over = int(row["num_episodes"]), round(row["share_over"] * row["num_episodes"])
        low, high = wilson_interval(num_over, total)
        mean = f"{row['interquartile_mean_return']:.4g}"
        if row["num_seeds"] > 1:
            mean += f" ({row['return_low']:.4g} to {row['return_high']:.4g})"
        if row["task"] == task:
            over = f"{num_over} of {total} ({low:.1%} to {high:.1%})"
            cells[row["method"]] = [mean, over]
    return cells


def unconstrained(rows: list[Row], task: str) -> str:
    """The lines of the figure, in words."""
    lines = [row for row in rows if row["task"] == task and not is_constrained(row["method"])]
    if not lines:
        return ""
    words = (f"{r['method']} {r['mean_return']:.4g} at cost {r['mean_cost']:.3g}" for r in lines)
    return f"Without a budget: {'; '.join(words)}. "


def duels(rows: list[Row], task: str) -> str:
    """TREBI's presets against each rival: at how many budgets is it safer, and at what return?"""
    of_method: dict[str, dict[float, Row]] = {}
    for row in rows:
        if row["task"] == task and is_constrained(row["method"]):
            of_method.setdefault(row["method"], {})[row["ratio"]] = row
    ours = [name for name in of_method if name.startswith("trebi")]
    lines = []
    for rival in (name for name in of_method if name not in ours):
        cells = []
        for name in ours:
            pairs = [(of_method[name][ratio], row) for ratio, row in of_method[rival].items()]
            shares = [(mine["share_over"], its["share_over"]) for mine, its in pairs]
            fewer, same = sum(a < b for a, b in shares), sum(a == b for a, b in shares)
            more = sum(mine["mean_return"] >= its["mean_return"] for mine, its in pairs)
            cells.append(f"{fewer} / {same} / {len(pairs) - fewer - same}; {more}")
        lines.append([f"`{rival}`", *cells])
    if not ours or not lines:
        return ""
    return table(["rival", *(f"`{name}`" for name in ours)], lines)


def data_of(document: dict[str, Any], task: str) -> str:
    data = document["datasets"][task]
    within = ", ".join(f"{share:.0%}" for share in data["share_within"].values())
    return (
        f"Data: `{data['dataset_id']}`, {data['num_steps']:,} steps, "
        f"{data['num_episodes']} episodes, mean return {data['mean_return']:.4g}; within the "
        f"budgets: {within}. Maximum budget: {data['max_budget']:.4g}. "
    )


def section(folder: Path) -> str:
    """One figure, or what was tried to explain one."""
    document, rows = about(folder), read_table(folder / "summary.csv")
    name = document["figure"]
    of_paper = name in FIGURES
    scale, random_ratios = document["scale"], of_paper and FIGURES[name].random_ratios
    parts = [f"{'##' if of_paper else '###'} {name}: {document['title']}", REMARKS.get(name, "")]
    if of_paper:
        parts.append(f"![{document['title']}]({name}/{name}.png)")
    for task in dict.fromkeys(row["task"] for row in rows):
        parts += [f"### {task}"] if of_paper else []
        parts.append(by_budget(folder, task))
        parts.append(data_of(document, task) + unconstrained(rows, task))
        against = "" if random_ratios else duels(rows, task)
        if against:
            parts += [DUELS, against]
    methods = document["methods"]
    presets = f"preset `{scale['preset']}` where none is named"
    if len(methods) == 1:
        presets = f"`{methods[0]}`"
    command = document["command"]
    if not command.startswith("trebi"):
        command = f"python benchmarks/{command}"
    parts.append(
        f"Training seeds {scale['seeds']}, "
        f"{'100 episodes in all' if random_ratios else str(scale['num_episodes']) + ' episodes'} "
        f"each, {presets}. Made by `{command}` "
        f"(evaluated at {', '.join(document['evaluated_at_commits'])}) on "
        f"{document['hardware']}; torch {document['versions']['torch']}."
    )
    return "\n\n".join(part.strip() for part in parts if part)


def main() -> None:
    folders = [
        path.parent
        for name in FIGURES
        for path in [RESULTS / name / "about.json", *sorted(RESULTS.glob(f"{name}-*/about.json"))]
        if path.exists()
    ]
    head = (
        "# The paper's figures, made again in small\n\n"
        f"Written by `benchmarks/comparison_report.py`. {CELL} {OVERRUN} "
        f"{INTERVALS} With random budgets: by fifths of the maximum. Lin et al. 2023 trained "
        "everything for 1e6 steps on 1e6 steps of data (2e4 on Pendulum and Reacher); these are "
        "minutes of a CPU core each.\n\n"
        "`trebi:small` is the paper's method with small networks, `trebi:quick` and "
        "`trebi:frontier` are ours."
    )
    text = "\n\n".join([head, *map(section, folders)])
    (RESULTS / "README.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
