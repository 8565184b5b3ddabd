"""The page of what `trebi reproduce trust` measured on one task."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from safe_diffusion_agent.evaluation.optimum import best_returns
from safe_diffusion_agent.experiments.markdown import Column, cells, made_by, share, table

Line = dict[str, Any]
OVER = Column("over", lambda line: share(line["num_over"], line["num_episodes"]))
RETURN = Column("return", lambda line: f"{line['mean_return']:.1f}")


def trust_page(document: Line, picture: str) -> str:
    """Returns the page of a document that `write_measured` wrote."""
    about = made_by(document["provenance"], "trebi reproduce trust")
    parts = [
        f"# Trust on {document['task']}",
        f"{about} One training per heading, {document['num_episodes']} episodes per setting: a "
        "small run. Intervals are Wilson's, 95 %; they take the episodes of one training for "
        "independent.",
    ]
    for agent in document["agents"]:
        scores = ", ".join(f"{num} of `{kind}`" for kind, num in agent["num_scores"].items())
        parts += [
            f"## {agent['preset']}, training seed {agent['seed']}",
            f"Data: `{agent['dataset']}`. Calibration scores: {scores}.",
            *_risk(agent),
            *_forecasts(agent),
            *_moving(agent, document["task"]),
            *_cuts(agent),
            *_shifts(agent),
            *_adaptive(agent),
            *_guard(agent),
        ]
    parts.append(f"![Share over budget against requested risk, and forecasts]({picture})")
    return "\n\n".join(parts) + "\n"


def pooled(lines: Sequence[Line]) -> Line:
    """Returns several budgets as one; the return is the mean over budgets."""
    num, total = (sum(line[key] for line in lines) for key in ("num_over", "num_episodes"))
    return {
        "num_over": num,
        "num_episodes": total,
        "mean_return": float(np.mean([line["mean_return"] for line in lines])),
        "largest_overrun": max(line["largest_overrun"] for line in lines),
    }


def by_risk(lines: Sequence[Line]) -> dict[float | None, list[Line]]:
    """Returns the lines of each requested risk; None is no margin."""
    risks = dict.fromkeys(line["risk"] for line in lines)
    return {risk: [line for line in lines if line["risk"] == risk] for risk in risks}


def _name(risk: float | None) -> str:
    return "none" if risk is None else f"{risk:g}"


def _risk(agent: Line) -> list[str]:
    lines = agent.get("risk", [])
    if not lines:
        return []
    groups = by_risk(lines)
    most = pooled(groups[None])["mean_return"]
    ratios = [f"{ratio:g}" for ratio in dict.fromkeys(line["ratio"] for line in lines)]
    rows = []
    for risk, mine in groups.items():
        at_ratios = [f"{line['mean_return']:.1f}; {line['num_over']}" for line in mine]
        together = pooled(mine)
        lost = f"{most - together['mean_return']:.2f}"
        margin = f"{mine[0]['margin']:.2f}"
        rows.append([_name(risk), margin, *at_ratios, OVER.value(together), lost])
    columns = cells("requested risk", "margin", *ratios, "over, all budgets", "return lost")
    note = (
        f"Return, and episodes over budget of {lines[0]['num_episodes']}, for each budget (share "
        "of the maximum). Return lost: mean over budgets, against no requested risk."
    )
    return [note, table(columns, rows)]


def _forecasts(agent: Line) -> list[str]:
    lines, notes = [], []
    for part, outcome in (("forecasts", "agent"), ("behavior", "data's behavior")):
        measured = agent.get(part)
        if measured is not None:
            num = measured.get("num_kept", measured.get("num_within"))
            notes.append(f"{num} of {measured['num_states']} kept by the {outcome}")
            for name, of in measured["of"].items():
                value = "one outcome only" if of["auroc"] is None else f"{of['auroc']:.3f}"
                lines.append([name, outcome, value, f"{of['brier']:.3f}"])
    if not lines:
        return []
    columns = cells("forecast", "kept by the", "AUROC", "Brier score (0 is perfect)")
    note = f"How well forecasts tell whether a budget is kept ({'; '.join(notes)}):"
    return [note, table(columns, lines)]


def _moving(agent: Line, task: str) -> list[str]:
    if not agent.get("moving"):
        return []

    def regret(line: Line) -> str:
        values = np.array(line["regret"])
        return f"{values.mean():.1f} ± {values.std() / np.sqrt(len(values)):.1f}"

    def against_optimum(line: Line) -> str:
        best = best_returns(task, line["total_budgets"])
        return "" if best is None else f"{float(best.mean()) - line['mean_return']:.1f}"

    columns = [
        Column("schedule", lambda line: line["schedule"]),
        OVER,
        Column("lost to the cut", lambda line: f"{line['num_lost_to_cuts']}"),
        RETURN,
        Column("over, informed", lambda line: f"{line['informed']['num_over']}"),
        Column("regret against informed", regret),
        Column("against the optimum", against_optimum),
    ]
    note = (
        "Budgets that move, requested risk 0.05. `informed` is the same agent, given from the "
        "start what the schedule comes to; the optimum, of dynamic programming, is given that, "
        "too. Regret: mean ± standard error."
    )
    return [note, table(columns, agent["moving"])]


def _cuts(agent: Line) -> list[str]:
    if not agent.get("cuts"):
        return []
    columns = [
        Column("cut at step", lambda line: f"{line['step']}"),
        Column("kept", lambda line: share(line["num_kept"], line["num_episodes"])),
        Column("spent after it, median", lambda line: f"{line['median_later_cost']:.1f}"),
        Column("at most", lambda line: f"{line['max_later_cost']:.1f}"),
    ]
    note = "The maximum budget, cut to two fifteenths of it in mid-episode:"
    return [note, table(columns, agent["cuts"])]


def _shifts(agent: Line) -> list[str]:
    if not agent.get("shifts") or "risk" not in agent:
        return []
    ratios = {line["ratio"] for line in agent["shifts"][-1]["rows"]}
    curves = [({"name": "none"}, agent["risk"])]
    curves += [(one["shift"], one["rows"]) for one in agent["shifts"]]
    lines = []
    for shift, rows in curves:
        common = [row for row in rows if row["ratio"] in ratios]
        groups = [pooled(of_risk) for of_risk in by_risk(common).values()]
        worst = max(row["largest_overrun"] for row in common)
        numbers = [f"{one['num_over']}" for one in groups]
        lines.append([shift["name"], f"{groups[0]['num_episodes']}", *numbers, f"{worst:.2f}"])
    risks = [_name(risk) for risk in by_risk(agent["risk"])]
    note = (
        "Worlds that it was not trained for: episodes over budget, at each requested risk. The "
        "first row has those of the same budgets above."
    )
    columns = cells("shift", "episodes per risk", *risks, "largest overrun")
    return [note, table(columns, lines)]


def _adaptive(agent: Line) -> list[str]:
    lines = agent.get("adaptive", [])
    if not lines:
        return []
    columns = [
        Column("shift", lambda line: line["shift"]),
        Column("risk", lambda line: line["risk"]),
        OVER,
        Column("first margin", lambda line: f"{line['first_margin']:.2f}"),
        Column("last margin", lambda line: f"{line['last_margin']:.2f}"),
        RETURN,
    ]
    target = f"target {lines[0]['target']:g}, rate {lines[0]['rate']:g}"
    return [f"A risk that is corrected after every episode; {target}.", table(columns, lines)]


def _guard(agent: Line) -> list[str]:
    if not agent.get("guard"):
        return []
    columns = [
        Column("shift", lambda line: line["shift"]),
        Column("guard", lambda line: line["variant"]),
        Column("added margin", lambda line: f"{line['mean_added_margin']:.2f}"),
        OVER,
        RETURN,
    ]
    note = "More margin where the one-step models disagree, or the same everywhere:"
    return [note, table(columns, agent["guard"])]
