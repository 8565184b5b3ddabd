"""What the command shows: progress bars and the table of an evaluation."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

if TYPE_CHECKING:
    from safe_diffusion_agent.experiments.rows import Row

console = Console()
LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal
WIDE = 200  # columns of a table that goes into a file or a pipe


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[..., None]]:
    """Shows one progress bar; gives the function `progress(done, total, **values)`."""
    with progress_bars(keep=True) as progress:
        yield lambda done, total, **values: progress(name, done, total, **values)


@contextmanager
def progress_bars(*, keep: bool = False) -> Iterator[Callable[..., None]]:
    """Shows progress, which appears as `progress(name, done, total, **values)` names it.

    In a terminal bars, elsewhere a line every `LINE_SECONDS`. They show rate, time left, and the
    values. An interruption ends the command and says how to continue.

    Args:
        keep: Bars that are full are still shown.
    """
    try:
        if console.is_terminal:
            with _bars(keep) as progress:
                yield progress
        else:
            yield _lines()
    except KeyboardInterrupt:
        console.print("Interrupted. Run the same command again to continue.")
        raise typer.Exit(130) from None


@contextmanager
def _bars(keep: bool) -> Iterator[Callable[..., None]]:
    columns = (
        TextColumn("[bold]{task.description:<9}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=12),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("left", table_column=Column(no_wrap=True)),
        TextColumn("[dim]{task.fields[values]}", table_column=Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, console=console, refresh_per_second=4, expand=True) as bars:
        tasks: dict[str, tuple[TaskID, int]] = {}

        def progress(name: str, done: int, total: int, **values: float) -> None:
            if name not in tasks:
                before = max(done - 1, 0)
                task = bars.add_task(name, total=total, completed=before, rate="", values="")
                tasks[name] = (task, before)
            task, first = tasks[name]
            if done < bars.tasks[task].completed:  # the next stage of the same job
                bars.reset(task, total=total, completed=done)
                tasks[name] = (task, first := done)
            elapsed = bars.tasks[task].elapsed or 0.0
            rate = _rate((done - first) / elapsed) if elapsed > 0.5 else ""
            visible = keep or done < total
            bars.update(
                task, completed=done, total=total, visible=visible, rate=rate, values=_said(values)
            )

        yield progress


def _lines() -> Callable[..., None]:
    """Returns what prints a line at the end, and after every `LINE_SECONDS` of a job until then."""
    started: dict[str, tuple[float, int]] = {}
    told: dict[str, tuple[float, int]] = {}

    def progress(name: str, done: int, total: int, **values: float) -> None:
        now = time.monotonic()
        if name not in started or done < told[name][1]:  # the next stage of the same job
            started[name] = (now, max(done - 1, 0))
            told[name] = (now, done)
        last, _ = told[name]
        if now - last < LINE_SECONDS and done < total:
            return
        told[name] = (now, done)
        begun, first = started[name]
        per_second = (done - first) / max(now - begun, 1e-6)
        left = timedelta(seconds=round((total - done) / per_second)) if done > first else "?"
        line = f"{name}  {done}/{total}  {_rate(per_second)}  {left} left  {_said(values)}"
        print(line.rstrip(), flush=True)

    return progress


def _said(values: Mapping[str, float]) -> str:
    return "  ".join(f"{key} {value:.3g}" for key, value in values.items())


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}/s" if per_second >= 1.0 else f"{3600 * per_second:.0f}/h"


def show_evaluation(document: dict[str, Any], folder: Path) -> None:
    """Prints what `stages.evaluate` returned."""
    names = ("budget", "ratio", "mean", "q1", "median", "q3", "max", "over", "95 %", "return")
    table = Table(
        *(Column(name, justify="right") for name in names), box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for row in document["budgets"]:
        cost, over = row["normalized_cost"], row["over_budget"]
        low, high = over["wilson_95"]
        table.add_row(
            f"{row['budget']:.4g}",
            f"{row['ratio']:g}",
            *(f"{cost[key]:.2f}" for key in ("mean", "q1", "median", "q3", "maximum")),
            f"{over['num_episodes']}/{row['num_episodes']}",
            f"{100 * low:.0f}-{100 * high:.0f} %",
            f"{row['mean_return']:.1f} ± {row['std_return']:.1f}",
        )
    console.print(table)
    console.print(
        "mean ... max: episode cost / budget. over: episodes over budget, with the 95 % Wilson "
        "interval of their share."
    )
    behavior = document["behavior_policy"]
    if behavior:
        console.print(
            f"behavior policy ({behavior['name']}): return {behavior['mean_return']:.1f}, "
            f"cost {behavior['mean_cost']:.1f}"
        )
    console.print(f"written: {folder}/results.json, episodes.csv, evaluation.png")


def show_collection(name: str, config: Mapping[str, Any], *, done: bool) -> None:
    """Prints what a collection would make, and from what."""
    values = (f"{key} {value}" for key, value in config.items() if key != "policies")
    console.print(f"{name} ({'done' if done else 'to be collected'}): " + ", ".join(values))
    if "policies" in config:
        numeric = ("share", "noise", "budget")
        names = ("policy", "algorithm", *numeric, "deterministic", "SHA-256")
        table = Table(*names, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for policy in config["policies"]:
            numbers = (f"{policy[key]:.3g}" if key in policy else "" for key in numeric)
            row = (policy["name"], policy["algorithm"], *numbers, policy["deterministic"])
            table.add_row(*map(str, row), policy.get("sha256", "")[:12])
        console.print(table)


def show_policies(policies: Sequence[Mapping[str, Any]]) -> None:
    """Prints who acted in a collection, and how well."""
    names = ("policy", "algorithm", "episodes", "steps", "mean return", "mean cost")
    table = Table(*names, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for policy in policies:
        numbers = (f"{policy[key]:,}" for key in ("num_episodes", "num_steps"))
        means = (f"{policy[key]:.4g}" for key in ("mean_return", "mean_cost"))
        table.add_row(policy["name"], policy["algorithm"], *numbers, *means)
    console.print(table)


def show_error(error: Exception) -> None:
    """Prints what is wrong, as it is: brackets in it are no markup."""
    console.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False)


def show_rows(rows: Sequence[tuple["Row", str, bool]]) -> None:
    """Prints what a study runs.

    Args:
        rows: Rows with the ids of their datasets, and whether they are done.
    """
    names = ("row", "dataset", "method", "settings", "load settings", "seed", "episodes", "done")
    columns = (Column(name, overflow="fold") for name in names)
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row, dataset_id, done in rows:
        settings = (
            " ".join(f"{name}={value}" for name, value in of.items())
            for of in (row.settings, row.load_settings)
        )
        episodes = row.evaluation["num_episodes"]
        label = row.label + (f" ({', '.join(row.parts)})" if row.parts else "")
        numbers = (f"{row.seed}", f"{episodes}", "yes" if done else "no")
        table.add_row(label, dataset_id, row.name, *settings, *numbers)
    (console if console.is_terminal else Console(width=WIDE)).print(table)


def show_comparison(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the rows of `summary.csv`: a table per task, methods by budgets."""
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        ratios = sorted({row["ratio"] for row in of_task})
        table = Table(
            "method", *(Column(f"{ratio:g}", justify="right") for ratio in ratios),
            title=task, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0),
        )  # fmt: skip
        for method in dict.fromkeys(row["method"] for row in of_task):
            of_method = {row["ratio"]: row for row in of_task if row["method"] == method}
            cells = [
                f"{row['mean_return']:.4g}, {row['share_over']:.0%}" if row else ""
                for row in map(of_method.get, ratios)
            ]
            table.add_row(method, *cells)
        console.print(table)
    console.print("By budget / maximum budget: mean return, share of the episodes over budget.")
