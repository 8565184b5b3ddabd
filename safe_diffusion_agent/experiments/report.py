"""`trebi report`: writes the pages of the stored results, and fills in tables of other pages.

A table stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; NAME is one of `PARTS`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from safe_diffusion_agent.errors import UnknownNameError
from safe_diffusion_agent.evaluation.figures import COLORS, GRAY, write_figure
from safe_diffusion_agent.evaluation.statistics import wilson_interval
from safe_diffusion_agent.experiments.markdown import Column, made_by, share, table
from safe_diffusion_agent.experiments.pages.datasets import datasets_page
from safe_diffusion_agent.experiments.pages.studies import studies_page
from safe_diffusion_agent.experiments.pages.timing import latency_page, overhead_page
from safe_diffusion_agent.experiments.pages.trust import by_risk, pooled, trust_page
from safe_diffusion_agent.methods.table import METHODS
from safe_diffusion_agent.storage import read_json, write_text
from safe_envs import TASKS

MARKED = re.compile(r"<!-- begin ([\w-]+) -->\n.*?<!-- end \1 -->", re.DOTALL)


def report(root: Path, *, check: bool = False) -> list[str]:
    """Writes what is out of date: pages of results, and tables in README.md and docs/.

    Args:
        root: Folder that has `results/` and `README.md`.
        check: Writes nothing.

    Returns:
        The files that were out of date.

    Raises:
        UnknownNameError: There is no table of a name that a page has marked.
        ValueError: The folder has no results.
    """
    if not (root / "results").is_dir():
        raise ValueError(f"{root} should have a folder results/. Name another with --root.")
    texts = dict(_pages(root / "results"))
    for path in [*root.glob("README.md"), *sorted(root.glob("docs/**/*.md"))]:
        texts[path] = filled(path.read_text(), root)
    changed = [
        path for path, text in texts.items() if not path.exists() or path.read_text() != text
    ]
    for path in [] if check else changed:
        write_text(path, texts[path])
    for path in _trust_files(root / "results"):
        if not check:
            _draw_trust(read_json(path)["agents"], path.with_suffix(".png"))
    return [str(path.relative_to(root)) for path in changed]


def _trust_files(results: Path) -> list[Path]:
    folders = (results / "trust", results / "reproduce" / "trust")
    return [path for folder in folders for path in sorted(folder.glob("*.json"))]


def _pages(results: Path) -> Iterator[tuple[Path, str]]:
    """File and text of each page; what was not measured has none."""
    if (results / "reproduce").exists():
        yield results / "reproduce" / "README.md", studies_page(results / "reproduce")
    for path in _trust_files(results):
        page = trust_page(read_json(path), f"{path.stem}.png")
        yield path.with_suffix(".md"), page
    if (results / "latency").exists():
        yield results / "latency" / "README.md", latency_page(results / "latency")
    overhead, datasets = results / "env_overhead.json", results / "datasets"
    if overhead.exists():
        yield results / "envs" / "README.md", overhead_page(read_json(overhead))
    if (datasets / "datasets.json").exists():
        yield datasets / "README.md", datasets_page(datasets)


def filled(text: str, root: Path) -> str:
    """Returns a Markdown text with its tables filled in; `root` has `results/`.

    Raises:
        UnknownNameError: There is no table of a name that the text has marked.
    """

    def part(match: re.Match[str]) -> str:
        name = match[1]
        if name not in PARTS:
            raise UnknownNameError("table", name, PARTS)
        return f"<!-- begin {name} -->\n{PARTS[name](root)}\n<!-- end {name} -->"

    return MARKED.sub(part, text)


def _tasks(root: Path) -> str:
    del root
    columns = [
        Column("id", lambda spec: f"`{spec.id}`"),
        Column("cost of a step", lambda spec: spec.cost),
        Column("steps", lambda spec: f"{spec.max_episode_steps}"),
        Column("cost discount", lambda spec: f"{spec.cost_discount:g}"),
        Column("maximum budget", lambda spec: f"{spec.max_budget:g}"),
    ]
    return table(columns, TASKS.values())


def _methods(root: Path) -> str:
    del root
    columns = [
        Column("`--method`", lambda item: f"`{item[0]}`"),
        Column("what it is", lambda item: item[1].summary),
        Column("budgets", lambda item: item[1].budgets),
    ]
    return table(columns, METHODS.items())


def _quickstart(root: Path) -> str:
    document = read_json(root / "results" / "quickstart" / "results.json")
    names = {"median": "cost / budget: median", "q1": "q1", "q3": "q3", "maximum": "largest"}
    columns = [
        Column("budget (ratio)", lambda line: f"{line['budget']:g} ({line['ratio']:g})"),
        *(Column(name, partial(_cost, key)) for key, name in names.items()),
        Column(
            "episodes over budget (95 % interval)",
            lambda line: share(line["over_budget"]["num_episodes"], line["num_episodes"]),
        ),
        Column("return", lambda line: f"{line['mean_return']:.1f} ± {line['std_return']:.1f}"),
    ]
    behavior, about = document["behavior_policy"], document["provenance"]
    command = document["agent"]["provenance"]["command"]
    note = (
        f"{document['evaluation']['num_episodes']} episodes per budget, one seed: a small run. "
        f"The data's own policy ({behavior['name']}): return {behavior['mean_return']:.1f} at cost "
        f"{behavior['mean_cost']:.1f}. {made_by(about | {'command': command})}"
    )
    return table(columns, document["budgets"]) + "\n\n" + note


def _cost(key: str, line: dict[str, Any]) -> str:
    return f"{line['normalized_cost'][key]:.2f}"


PARTS: dict[str, Callable[[Path], str]] = {
    "tasks": _tasks,
    "methods": _methods,
    "quickstart": _quickstart,
}


def _draw_trust(agents: Sequence[dict[str, Any]], path: Path) -> None:
    """Share over budget against requested risk; observed against forecast shares."""
    figure = Figure(figsize=(11.0, 3.6))
    risks, by_agent, by_behavior = figure.subplots(1, 3)
    for color, agent in zip(COLORS, agents, strict=False):
        groups = {r: pooled(rows) for r, rows in by_risk(agent.get("risk", [])).items() if r}
        curves = [
            (risks, list(groups), [(g["num_over"], g["num_episodes"]) for g in groups.values()]),
        ]
        for axes, part, kind in (
            (by_agent, "forecasts", "keep_probability"),
            (by_behavior, "behavior", "safe_mass"),
        ):
            bins = agent[part]["of"][kind]["curve"] if part in agent else []
            hits = [(one["num_hits"], one["num_cases"]) for one in bins]
            curves.append((axes, [one["mean_forecast"] for one in bins], hits))
        for axes, x, counts in curves:
            if counts:
                _draw_shares(axes, x, counts, color=color, label=agent["preset"])
    for axes, name, most in (
        (risks, "requested risk", 0.45),
        (by_agent, "forecast: keep probability", 1.0),
        (by_behavior, "forecast: safe mass", 1.0),
    ):
        axes.plot([0.0, most], [0.0, most], color=GRAY, linestyle="--", label="as said")
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    risks.set_ylabel("episodes over budget")
    by_agent.set_title("kept by the agent")
    by_behavior.set_title("kept by the data's behavior")
    write_figure(figure, path)


def _draw_shares(axes: Any, x: Sequence[float], counts: Sequence[Any], **style: Any) -> None:
    shares = np.array([hits / total for hits, total in counts])
    low, high = np.array([wilson_interval(*count) for count in counts]).T
    bars = [np.maximum(shares - low, 0.0), np.maximum(high - shares, 0.0)]
    axes.errorbar(x, shares, bars, marker="o", capsize=2, **style)
