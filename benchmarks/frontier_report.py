"""Tables and pictures of the frontier preset from what benchmarks/frontier.py measured.

    python benchmarks/frontier_report.py

Reads results/frontier/pendulum.csv and pendulum.json; writes pendulum.md, pendulum.png and
decision.png beside them.
"""

import csv
import json
from pathlib import Path

import numpy as np
import torch
from frontier import VARIANTS
from frontier_tasks import milliseconds_per_act
from markdown_table import table_lines
from matplotlib.figure import Figure

from safe_diffusion_agent import TrebiAgent
from safe_diffusion_agent.evaluation.figures import BLUE, COLORS, write_figure
from safe_diffusion_agent.evaluation.optimum import best_returns, share_of_optimum
from safe_diffusion_agent.evaluation.statistics import wilson_interval
from safe_diffusion_agent.experiments.inspection import decision_at, draw_decision
from safe_diffusion_agent.methods.table import load_agent

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "frontier"
ENV_ID, MAX_BUDGET = "safe/Pendulum-v0", 60.0
RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)


def read_rows() -> list[dict]:
    with (RESULTS / "pendulum.csv").open() as file:
        rows = list(csv.DictReader(file))
    numbers = ("ratio", "num_episodes", "mean_return", "max_normalized_cost", "num_over_budget")
    return [row | {name: float(row[name]) for name in numbers} for row in rows]


def share(ratio: float, mean_return: float) -> float:
    return float(share_of_optimum(ENV_ID, [ratio * MAX_BUDGET], [mean_return])[0])


def over_budget(num: float, total: float) -> str:
    low, high = wilson_interval(int(num), int(total))
    return f"{num:.0f} of {total:.0f} ({low:.1%} to {high:.1%})"


def summary(rows: list[dict], name: str) -> list[str]:
    """Cells of one variant: return and share of the optimum per budget; episodes over budget."""
    mine = [row for row in rows if row["variant"] == name]
    cells = []
    for ratio in RATIOS:
        chosen = [row for row in mine if row["ratio"] == ratio]
        mean = float(np.mean([row["mean_return"] for row in chosen]))
        cells.append(f"{mean:.1f} ({share(ratio, mean):.2f})")
    num, total = (sum(row[key] for row in mine) for key in ("num_over_budget", "num_episodes"))
    worst = max(row["max_normalized_cost"] for row in mine)
    return [*cells, over_budget(num, total), f"{worst:.2f}"]


def costs_of(name: str) -> list[str]:
    """Minutes of training and milliseconds per `act`, CPU time on one thread, where known."""
    variant = next(variant for variant in VARIANTS if variant.name == name)
    folder = variant.agent_folder(data_seed=0, train_seed=0)
    if not folder.exists():
        return ["", ""]
    file = folder / "training_seconds"
    minutes = f"{float(file.read_text()) / 60:.1f}" if file.exists() else ""
    agent = load_agent(folder, device="cpu", **variant.planner)
    return [minutes, f"{milliseconds_per_act(agent):.1f}"]


def per_agent(rows: list[dict], name: str) -> list[list[str]]:
    """Lowest and highest share of the optimum over the trainings, per budget."""
    result = []
    for ratio in RATIOS:
        chosen = [row for row in rows if (row["variant"], row["ratio"]) == (name, ratio)]
        shares = [share(ratio, row["mean_return"]) for row in chosen]
        num, total = (sum(r[key] for r in chosen) for key in ("num_over_budget", "num_episodes"))
        result.append(
            [f"{ratio:g}", f"{min(shares):.3f}", f"{max(shares):.3f}", over_budget(num, total)]
        )
    return result


def changes_table(agents: list[dict]) -> list[str]:
    lines = []
    for name in dict.fromkeys(agent["variant"] for agent in agents):
        mine = [agent for agent in agents if agent["variant"] == name]
        random = [agent["random"] for agent in mine]
        changes = [agent["changes"] for agent in mine]
        kept = sum(cut["num_kept"] for change in changes for cut in change["cuts"])
        cuts = sum(change["num_episodes"] * len(change["cuts"]) for change in changes)
        num, total = (sum(r[key] for r in random) for key in ("num_over_budget", "num_episodes"))
        raised = np.mean([c["raised from 8 to 60 at step 60"]["mean_return"] for c in changes])
        zero = max(change["0"]["max_cost"] for change in changes)
        free = np.mean([change["infinite"]["mean_return"] for change in changes])
        lines.append(
            [name, over_budget(num, total), f"{np.mean([r['mean_return'] for r in random]):.1f}",
             f"{kept} of {cuts}", f"{raised:.1f}", f"{zero:.2f}", f"{free:.1f}"]
        )  # fmt: skip
    header = ["", "random budgets: over", "return", "cut to 8: kept", "raised: return",
              "budget 0: largest cost", "no limit: return"]  # fmt: skip
    return table_lines(header, lines)


def draw(rows: list[dict], names: list[str], path: Path) -> None:
    figure = Figure(figsize=(6.0, 3.8))
    axes = figure.subplots()
    ratios = list(RATIOS)
    for name, color in zip(names, (BLUE, *COLORS[1:]), strict=False):
        means = [
            [r["mean_return"] for r in rows if (r["variant"], r["ratio"]) == (name, ratio)]
            for ratio in ratios
        ]
        axes.plot(ratios, [np.mean(m) for m in means], color=color, marker="o", label=name)
        axes.fill_between(
            ratios, [min(m) for m in means], [max(m) for m in means], color=color, alpha=0.2
        )
    best = best_returns(ENV_ID, np.array(ratios) * MAX_BUDGET)
    axes.plot(ratios, best, color="black", linestyle="--", label="optimum")
    axes.set_xlabel("budget / maximum budget")
    axes.set_ylabel("return")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    write_figure(figure, path)


def main() -> None:
    torch.set_num_threads(1)
    rows = read_rows()
    document = json.loads((RESULTS / "pendulum.json").read_text())
    names = list(dict.fromkeys(row["variant"] for row in rows))
    full = [name for name in names if not name.startswith("frontier, ")]
    ablations = [name for name in names if name not in full]
    about = document["provenance"]
    header = ["", *(f"{ratio:g}" for ratio in RATIOS), "over budget", "largest cost / budget",
              "training, min", "ms per act"]  # fmt: skip
    trainings = len({(r["data_seed"], r["train_seed"]) for r in rows if r["variant"] == full[0]})
    text = [
        "# The frontier preset on SafePendulum",
        "",
        f"Made by `{document['command']}` and `python benchmarks/frontier_report.py`",
        f"on {about['hardware']}, torch {about['versions']['torch']}.",
        "",
        "Return, and in brackets the share of the optimum: (return - return of hanging still) /",
        "(optimum - hanging still), the optimum by dynamic programming. On start states that",
        "nothing was tuned on, 60 episodes per budget and training for `frontier` and `caps` (two",
        f"data sets with two training seeds each: {trainings} trainings), 20 for the others (one",
        "seed). Over budget: of all episodes of all budgets, with the 95 % Wilson interval (which",
        "takes the episodes of one training for independent). Training and `act` for one state:",
        "CPU time on one thread, of the first training (`benchmarks/frontier.py --times`).",
        "",
        *table_lines(header, [[name, *summary(rows, name), *costs_of(name)] for name in full]),
        "",
        "![Return against budget, with the optimum](pendulum.png)",
        "",
        "The trainings of `frontier` one by one: lowest and highest share of the optimum.",
        "",
        *table_lines(["budget", "lowest", "highest", "over budget"], per_agent(rows, "frontier")),
        "",
        "Budgets at random (100 episodes per training), and changed in mid-episode (10 per",
        "training and change). Whether every cut could be kept by anyone is not known.",
        "",
        *changes_table(document["agents"]),
        "",
        "## What each part is worth",
        "",
        "20 episodes per budget, one data set, one training seed: small runs. Compare with the",
        "first line of the table above.",
        "",
        *table_lines(header, [[n, *summary(rows, n), *costs_of(n)] for n in ablations]),
        "",
        "- *no margin*: without what the calibration holds back.",
        "- *one multiplier*: the best single behavior that fits, instead of the dual bound.",
        "- *without the critic's plans*: samples of the diffusion model alone. Without any",
        "  memory such a planner counts at every step on a plan that it does not find again.",
        "- *one model step*: the critic stands for all that follows the first step, in plans and",
        "  in the branches that it learns from.",
        "- *no imagined branches*: the critic learns from the recorded episodes alone.",
        "",
        "## One decision",
        "",
        "![What each candidate could still return and cost, and the budget](decision.png)",
        "",
    ]  # fmt: skip
    (RESULTS / "pendulum.md").write_text("\n".join(text))
    draw(rows, full, RESULTS / "pendulum.png")
    agent = TrebiAgent.load(ROOT / "runs" / "frontier" / "trebi-frontier-data0-seed0", device="cpu")
    draw_decision(decision_at(agent, budget=0.4 * MAX_BUDGET, step=60), RESULTS / "decision.png")


if __name__ == "__main__":
    main()
