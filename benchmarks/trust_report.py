"""Tables and pictures of what benchmarks/trust.py measured.

    python benchmarks/trust_report.py results/trust/pendulum.json

Writes a .md and .png files beside the .json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from markdown_table import table_lines
from matplotlib.figure import Figure
from trust_measures import RISK

from safe_diffusion_agent.evaluation.figures import BLUE, COLORS, GRAY, write_figure
from safe_diffusion_agent.evaluation.optimum import best_returns
from safe_diffusion_agent.evaluation.statistics import wilson_interval

Row = dict[str, Any]


def share(row: Row) -> str:
    low, high = row["wilson_95"]
    return f"{row['num_over']} of {row['num_episodes']} ({low:.1%} to {high:.1%})"


def pooled(rows: list[Row]) -> Row:
    """Rows of several budgets as one; its return is the mean over budgets."""
    num, total = (sum(row[key] for row in rows) for key in ("num_over", "num_episodes"))
    return {
        "num_over": num,
        "num_episodes": total,
        "wilson_95": wilson_interval(num, total),
        "mean_return": float(np.mean([row["mean_return"] for row in rows])),
        "largest_overrun": max(row["largest_overrun"] for row in rows),
    }


def by_risk(rows: list[Row]) -> dict[float | None, Row]:
    return {
        risk: pooled([row for row in rows if row["risk"] == risk])
        for risk in dict.fromkeys(row["risk"] for row in rows)
    }


def risk_section(agent: Row) -> list[str]:
    rows = agent["risk"]
    ratios = list(dict.fromkeys(row["ratio"] for row in rows))
    uncalibrated = by_risk(rows)[None]["mean_return"]
    lines = []
    for risk, all_of_it in by_risk(rows).items():
        mine = [row for row in rows if row["risk"] == risk]
        cells = [f"{row['mean_return']:.1f}; {row['num_over']}" for row in mine]
        lost = uncalibrated - all_of_it["mean_return"]
        name = "none" if risk is None else f"{risk:g}"
        lines.append([name, f"{mine[0]['margin']:.2f}", *cells, share(all_of_it), f"{lost:.2f}"])
    header = ["requested risk", "margin", *(f"{ratio:g}" for ratio in ratios), "over, all budgets"]
    num = rows[0]["num_episodes"]
    return [
        "",
        f"Return, and episodes over budget of {num}, for each budget (share of the maximum). "
        "Return lost: mean over budgets, against no requested risk.",
        "",
        *table_lines([*header, "return lost"], lines),
    ]


def forecast_section(agent: Row) -> list[str]:
    lines, notes = [], []
    for part, outcome in (("forecasts", "agent"), ("behavior", "data's behavior")):
        measured = agent.get(part)
        if measured is None:
            continue
        num = measured.get("num_kept", measured.get("num_within"))
        notes.append(f"{num} of {measured['num_states']} kept by the {outcome}")
        for name, quality in measured["of"].items():
            value = "one outcome only" if quality["auroc"] is None else f"{quality['auroc']:.3f}"
            lines.append([name, outcome, value, f"{quality['brier']:.3f}"])
    if not lines:
        return []
    return [
        "",
        f"How well forecasts tell whether a budget is kept ({'; '.join(notes)}):",
        "",
        *table_lines(["forecast", "kept by the", "AUROC", "Brier score (0 is perfect)"], lines),
    ]


def moving_section(agent: Row, task: str) -> list[str]:
    lines = []
    for row in agent.get("moving", []):
        optimum = best_returns(task, row["total_budgets"])
        regret = np.array(row["regret"])
        error = regret.std() / np.sqrt(len(regret))
        lines.append(
            [
                row["schedule"],
                share(row),
                f"{row['num_lost_to_cuts']}",
                f"{row['mean_return']:.1f}",
                f"{row['informed']['num_over']}",
                f"{regret.mean():.1f} ± {error:.1f}",
                "" if optimum is None else f"{float(optimum.mean()) - row['mean_return']:.1f}",
            ]
        )
    header = ["schedule", "over", "lost to the cut", "return", "over, informed",
              "regret against informed", "against the optimum"]  # fmt: skip
    if not lines:
        return []
    return [
        "",
        f"Budgets that move (see safe_diffusion_agent/schedules.py), requested risk {RISK:g}. "
        "`informed` is the same agent, given from the start what the schedule comes to; the "
        "optimum, of dynamic programming, is given that, too. Regret: mean ± standard error.",
        "",
        *table_lines(header, lines),
    ]


def shift_section(agent: Row) -> list[str]:
    curves = [({"name": "none"}, agent["risk"])] if "risk" in agent else []
    curves += [(one["shift"], one["rows"]) for one in agent.get("shifts", [])]
    if len(curves) < 2:
        return []
    lines = []
    for shift, rows in curves:
        common = [row for row in rows if row["ratio"] in {r["ratio"] for r in curves[-1][1]}]
        cells = [f"{one['num_over']}" for one in by_risk(common).values()]
        worst = max(row["largest_overrun"] for row in common)
        num = next(iter(by_risk(common).values()))["num_episodes"]
        lines.append([shift["name"], f"{num}", *cells, f"{worst:.2f}"])
    risks = ["none" if risk is None else f"{risk:g}" for risk in by_risk(curves[0][1])]
    return [
        "",
        "Worlds that it was not trained for: episodes over budget, at each requested risk. The "
        "first row has those of the same budgets above.",
        "",
        *table_lines(["shift", "episodes per risk", *risks, "largest overrun"], lines),
    ]


def small_sections(agent: Row) -> list[str]:
    lines = []
    if agent.get("adaptive"):
        rows = [
            [row["shift"], row["risk"], share(row), f"{row['first_margin']:.2f}",
             f"{row['last_margin']:.2f}", f"{row['mean_return']:.1f}"]
            for row in agent["adaptive"]
        ]  # fmt: skip
        lines += ["", f"A risk that is corrected after every episode; {row_target(agent)}.", ""]
        lines += table_lines(
            ["shift", "risk", "over", "first margin", "last margin", "return"], rows
        )
    if agent.get("guard"):
        rows = [
            [row["shift"], row["variant"], f"{row['mean_added_margin']:.2f}", share(row),
             f"{row['mean_return']:.1f}"]
            for row in agent["guard"]
        ]  # fmt: skip
        lines += ["", "More margin where the one-step models disagree, or the same everywhere:", ""]
        lines += table_lines(["shift", "guard", "added margin", "over", "return"], rows)
    if "times" in agent:
        times = agent["times"]
        lines += [
            "",
            f"One state at the start of an episode takes `plan` {times['plan']:.0f} ms and "
            f"`feasibility` {times['feasibility']:.0f} ms.",
        ]
    return lines


def row_target(agent: Row) -> str:
    first = agent["adaptive"][0]
    return f"target {first['target']:g}, rate {first['rate']:g}"


def as_markdown(document: Row, name: str) -> str:
    about = document["provenance"]
    lines = [
        f"# Trust on {document['task']}",
        "",
        f"Made by `python benchmarks/{about['command']}` on {about['hardware']}, torch "
        f"{about['versions']['torch']}. One training per heading, {document['num_episodes']} "
        "episodes per setting: a small run. Intervals are Wilson's, 95 %; they take the episodes "
        "of one training for independent.",
    ]
    for agent in document["agents"]:
        scores = ", ".join(f"{num} of `{kind}`" for kind, num in agent["num_scores"].items())
        lines += ["", f"## {agent['preset']}, training seed {agent['seed']}", ""]
        lines += [f"Data: `{agent['dataset']}`. Calibration scores: {scores}."]
        if "risk" in agent:
            lines += risk_section(agent)
        lines += forecast_section(agent) + moving_section(agent, document["task"])
        lines += shift_section(agent) + small_sections(agent)
    pictures = [f"![Share over budget against requested risk, and forecasts]({name}.png)"]
    return "\n".join([*lines, "", *pictures]) + "\n"


def draw_risk(axes: Any, agents: list[Row]) -> None:
    """Share over budget against requested risk, all budgets pooled."""
    for color, agent in zip((BLUE, *COLORS[1:]), agents, strict=False):
        curve = {risk: row for risk, row in by_risk(agent["risk"]).items() if risk is not None}
        shares = np.array([row["num_over"] / row["num_episodes"] for row in curve.values()])
        low, high = np.array([row["wilson_95"] for row in curve.values()]).T
        bars = [np.maximum(shares - low, 0.0), np.maximum(high - shares, 0.0)]
        axes.errorbar(
            list(curve), shares, bars, color=color, marker="o", capsize=2, label=agent["preset"]
        )
    axes.plot([0.0, 0.45], [0.0, 0.45], color=GRAY, linestyle="--", label="as requested")
    axes.set_xlabel("requested risk")
    axes.set_ylabel("episodes over budget")


def draw_forecasts(axes: Any, agents: list[Row], part: str, forecast: str) -> None:
    """Observed against forecast share, one point per bin."""
    for color, agent in zip((BLUE, *COLORS[1:]), agents, strict=False):
        if part not in agent:
            continue
        curve = agent[part]["of"][forecast]["curve"]
        x, shares = (np.array([one[key] for one in curve]) for key in ("mean_forecast", "share"))
        low, high = np.array([one["wilson_95"] for one in curve]).T
        bars = [np.maximum(shares - low, 0.0), np.maximum(high - shares, 0.0)]
        axes.errorbar(
            x, shares, bars, color=color, marker="o", capsize=2, linestyle=":",
            label=agent["preset"],
        )  # fmt: skip
    axes.plot([0.0, 1.0], [0.0, 1.0], color=GRAY, linestyle="--")
    axes.set_xlabel(f"forecast: {forecast.replace('_', ' ')}")
    axes.set_ylabel("share that was kept")


def draw(document: Row, path: Path) -> None:
    agents = document["agents"]
    figure = Figure(figsize=(11.0, 3.6))
    panels = figure.subplots(1, 3)
    if all("risk" in agent for agent in agents):
        draw_risk(panels[0], agents)
    draw_forecasts(panels[1], agents, "forecasts", "keep_probability")
    draw_forecasts(panels[2], agents, "behavior", "safe_mass")
    panels[1].set_title("by the agent")
    panels[2].set_title("by the data's behavior")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    write_figure(figure, path)


def write_report(path: Path) -> None:
    document = json.loads(path.read_text())
    path.with_suffix(".md").write_text(as_markdown(document, path.stem))
    draw(document, path.with_suffix(".png"))


if __name__ == "__main__":
    write_report(Path(sys.argv[1]))
