"""The page of all studies that `trebi reproduce` has made."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from safe_diffusion_agent.evaluation.statistics import Z_95
from safe_diffusion_agent.evaluation.tables import read_table
from safe_diffusion_agent.experiments.catalog import STUDIES
from safe_diffusion_agent.experiments.markdown import Column, cells, made_by, share, table
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.storage import read_json

Line = dict[str, Any]
HEAD = """# Studies

Written by `trebi report`. Each part is a study of `trebi reproduce`: the figures of the paper (Lin
et al. 2023), made again in small, and our own.

Per budget (share of the maximum): mean return · episodes over budget · mean overrun of the worst
5 % of the episodes, in cost units. The interval of the interquartile mean is a bootstrap's over
trainings, each drawn with all its budgets. The one of the share over budget is Wilson's over the
pooled episodes, as if none shared a training. With random budgets: by fifths of the maximum. Lin et
al. 2023 trained everything for 1e6 steps on 1e6 steps of data (2e4 on Pendulum and Reacher); these
are minutes of a CPU core each.

`trebi:small` is the paper's method with small networks and the discount of its Appendix D;
`trebi:quick` and `trebi:frontier` are ours."""
DUELS = (
    "Against each rival, at how many budgets TREBI has a smaller / the same / a larger share over "
    "budget; and at how many at least its return:"
)


def studies_page(folder: Path) -> str:
    """Returns the page of a folder with a folder per study."""
    made = [name for name in STUDIES if (folder / name / "about.json").exists()]
    return "\n\n".join([HEAD, *(_section(folder / name) for name in made)]) + "\n"


def _section(folder: Path) -> str:
    document, name = read_json(folder / "about.json"), folder.name
    lines = read_table(folder / "summary.csv")
    parts = [f"{'###' if '-' in name else '##'} {name}: {document['title']}"]
    parts += [path.read_text().strip() for path in folder.glob("remarks.md")]
    if (folder / f"{name}.png").exists():
        parts.append(f"![{document['title']}]({name}/{name}.png)")
    for task in dict.fromkeys(line["task"] for line in lines):
        mine = [line for line in lines if line["task"] == task]
        parts += [f"#### {task}", _by_budget(folder, mine)]
        parts.append(_data_of(document, task) + _unconstrained(mine))
        duels = _duels(mine) if (folder / "overall.csv").exists() else ""
        parts += [DUELS, duels] if duels else []
    scale, commits = document["scale"], ", ".join(document["evaluated_at_commits"])
    parts.append(
        f"Training seeds {scale['seeds']}, {scale['num_episodes']} episodes per budget where the "
        f"rows say no other number; {', '.join(f'`{method}`' for method in document['methods'])}; "
        f"evaluated at {commits}. {made_by(document, f'trebi reproduce {name}')}"
    )
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _is_constrained(label: str) -> bool:
    method = re.split("[:,]", label)[0]  # a label is "method:preset, variant", or less
    return method not in METHODS or METHODS[method].constrained


def _constrained(lines: Sequence[Line]) -> dict[str, dict[float, Line]]:
    """Method -> ratio -> its line, of the methods that keep a budget."""
    methods: dict[str, dict[float, Line]] = {}
    for line in lines:
        if _is_constrained(line["method"]):
            methods.setdefault(line["method"], {})[line["ratio"]] = line
    return methods


def _by_budget(folder: Path, lines: Sequence[Line]) -> str:
    """Methods by budgets, one task; last, over all budgets."""
    methods = _constrained(lines)
    if not methods:
        return ""
    ratios = sorted({ratio for of_method in methods.values() for ratio in of_method})
    columns = [Column("method", lambda item: f"`{item[0]}`")]
    columns += [Column(f"{ratio:g}", partial(_cell, ratio)) for ratio in ratios]
    if (folder / "overall.csv").exists():
        task = lines[0]["task"]
        overall = {
            line["method"]: line
            for line in read_table(folder / "overall.csv")
            if line["task"] == task
        }
        columns += [
            Column("interquartile mean return (95 %)", lambda item: _mean(overall[item[0]])),
            Column("over budget (95 %)", lambda item: _over(overall[item[0]])),
        ]
        if STUDIES[folder.name].paired:
            differences = _differences(folder, task)
            columns.append(Column("return less the first's", lambda item: differences[item[0]]))
    return table(columns, methods.items())


def _cell(ratio: float, item: tuple[str, dict[float, Line]]) -> str:
    line = item[1].get(ratio)
    if line is None:
        return ""
    numbers = f"{line['mean_return']:.4g} · {line['share_over']:.0%}"
    return f"{numbers} · {line['cvar_overrun']:.1f}"


def _mean(line: Line) -> str:
    mean = f"{line['interquartile_mean_return']:.4g}"
    interval = f" ({line['return_low']:.4g} to {line['return_high']:.4g})"
    return mean + interval if line["num_seeds"] > 1 else mean


def _over(line: Line) -> str:
    total = int(line["num_episodes"])
    return share(round(line["share_over"] * total), total)


def _differences(folder: Path, task: str) -> dict[str, str]:
    """Mean difference to the first method over the same starts and budgets, with its interval."""
    returns: dict[str, dict[tuple[Any, ...], float]] = {}
    for line in read_table(folder / "episodes.csv"):
        if line["task"] == task:
            start = line["training_seed"], line["ratio"], line["episode"]
            returns.setdefault(line["method"], {})[start] = line["episode_return"]
    first = next(iter(returns.values()))
    cells = {}
    for method, of_method in returns.items():
        gains = np.array([value - first[start] for start, value in of_method.items()])
        half_width = Z_95 * gains.std() / np.sqrt(len(gains))
        cells[method] = f"{gains.mean():+.1f} ± {half_width:.1f}"
    return cells


def _unconstrained(lines: Sequence[Line]) -> str:
    """The lines of the figure, in words."""
    words = [
        f"{line['method']} {line['mean_return']:.4g} at cost {line['mean_cost']:.3g}"
        for line in lines
        if not _is_constrained(line["method"])
    ]
    return f"Without a budget: {'; '.join(words)}. " if words else ""


def _duels(lines: Sequence[Line]) -> str:
    """TREBI's presets against each rival: at how many budgets is it safer, and at what return?"""
    methods = _constrained(lines)
    ours = [name for name in methods if name.startswith("trebi")]
    rivals = [name for name in methods if name not in ours]
    if not ours or not rivals:
        return ""
    columns = cells("rival", *(f"`{name}`" for name in ours))
    rows = [[f"`{r}`", *(_duel(methods[name], methods[r]) for name in ours)] for r in rivals]
    return table(columns, rows)


def _duel(mine: dict[float, Line], theirs: dict[float, Line]) -> str:
    pairs = [(mine[ratio], line) for ratio, line in theirs.items()]
    signs = [np.sign(ours["share_over"] - its["share_over"]) for ours, its in pairs]
    more = sum(ours["mean_return"] >= its["mean_return"] for ours, its in pairs)
    return f"{signs.count(-1)} / {signs.count(0)} / {signs.count(1)}; {more}"


def _data_of(document: Line, task: str) -> str:
    parts = []
    for name, data in document["datasets"].items():
        if name == task or name.startswith(f"{task} seed"):
            within = ", ".join(f"{part:.0%}" for part in data["share_within"].values())
            parts.append(
                f"Data: `{data['dataset_id']}`, {data['num_steps']:,} steps, "
                f"{data['num_episodes']} episodes, mean return {data['mean_return']:.4g}; within "
                f"the budgets: {within}. Maximum budget: {data['max_budget']:.4g}. "
            )
    return "".join(parts)
